from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ROOT / "scripts" / "groups.py"
SHELL_FILES = sorted(
    path
    for path in (*(ROOT / "scripts").iterdir(), ROOT / ".ci" / "run")
    if path.is_file() and path.suffix in ("", ".sh")
)
ENTRIES = [path for path in SHELL_FILES if path.suffix == ""]
CHORES = {"bench", "coverage", "demo", "format", "install", "lint", "test", "test-all", "test-lab"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_setup_function(code: str, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` after ``setup.sh``, with ``path`` as the only place of commands."""
    return subprocess.run(
        ["/bin/sh", "-euc", f'. "${{0%/*}}/setup.sh"; {code}', str(ROOT / "scripts" / "test")],
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def write_command(folder: Path, name: str, body: str) -> Path:
    command = folder / name
    command.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    command.chmod(0o755)
    return command


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A PATH with no Python in it, only the command that setup.sh needs to find the checkout."""
    write_command(tmp_path, "dirname", 'PATH=/usr/bin:/bin exec dirname "$@"')
    return tmp_path


def test_all_chores_have_a_script() -> None:
    assert {path.name for path in ENTRIES if path.parent.name == "scripts"} == CHORES


@pytest.mark.parametrize("path", SHELL_FILES, ids=name_of)
def test_shell_syntax(path: Path) -> None:
    shell = "bash" if "bash" in path.read_text(encoding="utf-8").splitlines()[0] else "sh"
    result = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("path", ENTRIES, ids=name_of)
def test_entry_scripts_are_executable_and_stop_at_errors(path: Path) -> None:
    assert os.access(path, os.X_OK)
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    assert first in ("#!/bin/sh", "#!/usr/bin/env bash")
    assert any(re.match(r"set -eu", line) for line in rest)


def test_makefile_has_no_target_without_script() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    match = re.search(r"^CHORES = (.+)$", text, flags=re.MULTILINE)
    assert match is not None
    assert set(match[1].split()) == CHORES


def test_too_old_python3_is_passed_over_for_the_newest_suitable(bare_path: Path) -> None:
    write_command(bare_path, "python3", "exit 1")
    for name in ("python3.12", "python3.13"):
        write_command(bare_path, name, f'exec "{sys.executable}" "$@"')
    assert run_setup_function("find_python", bare_path).stdout == "python3.13\n"


def test_suitable_python3_is_preferred(bare_path: Path) -> None:
    for name in ("python3", "python3.13"):
        write_command(bare_path, name, f'exec "{sys.executable}" "$@"')
    assert run_setup_function("find_python", bare_path).stdout == "python3\n"


def test_no_suitable_python_is_one_clear_line(bare_path: Path) -> None:
    write_command(bare_path, "python3", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
    result = run_setup_function("base=$(find_python); echo not reached", bare_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "highmem: needs Python 3.11 or later and found Python 3.9.2: "
        "install one, or set PYTHON to its path\n"
    )


def test_unsuitable_choice_of_the_user_is_not_overruled(bare_path: Path) -> None:
    write_command(bare_path, "python3", f'exec "{sys.executable}" "$@"')
    old = write_command(bare_path, "old", "exit 1")
    result = run_setup_function("base=$(find_python); echo not reached", bare_path, PYTHON=str(old))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"highmem: PYTHON={old} is not a Python 3.11 or later\n"


def test_python_without_ensurepip_and_pip_is_one_clear_line(tmp_path: Path) -> None:
    checkout, commands = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "scripts").mkdir(parents=True)
    commands.mkdir()
    setup = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    (checkout / "scripts" / "setup.sh").write_text(setup, encoding="utf-8")
    refuse = 'case "$*" in *ensurepip* | *pip\\ --version*) exit 1 ;; esac'
    python = write_command(commands, "python3", f'{refuse}\nexec "{sys.executable}" "$@"')
    result = subprocess.run(
        ["/bin/sh", "-euc", '. "${0%/*}/setup.sh"; need core', f"{checkout}/scripts/test"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"highmem: {python} has neither ensurepip nor pip: "
        "install python3-venv, or set PYTHON to another Python\n"
    )


def test_a_venv_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine").write_text("precious", encoding="utf-8")
    setup = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    (tmp_path / "scripts" / "setup.sh").write_text(setup, encoding="utf-8")
    result = subprocess.run(
        ["/bin/sh", "-euc", '. "${0%/*}/setup.sh"; need core', f"{tmp_path}/scripts/test"],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("highmem: .venv is not from scripts/install")
    assert (tmp_path / ".venv" / "mine").read_text(encoding="utf-8") == "precious"


def test_groups_resolve_their_includes() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = pyproject["dependency-groups"]
    for name in groups:
        command = [sys.executable, str(GROUPS), name]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        printed = result.stdout.splitlines()
        own = [item for item in groups[name] if isinstance(item, str)]
        assert set(own) <= set(printed)
        if {"include-group": "test"} in groups[name]:
            assert set(groups["test"]) <= set(printed)


def test_unknown_group_is_a_usage_error() -> None:
    command = [sys.executable, str(GROUPS), "no-such-group"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage:")
