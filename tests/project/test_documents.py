from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READMES = ("README.md", "README.zh-CN.md")
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
# [text](target), [text](<target>), ![image](target "title"), and "[label]: target" on its own line.
LINK = re.compile(r"\]\(<?([^)\s>]+)|^\[[^\]]+\]:\s+<?([^\s>]+)", flags=re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", flags=re.IGNORECASE)

# Written in pieces, so that this file does not contain them. Places that exist on one machine only,
# and hosts of package registries: which index is asked is the user's choice.
FORBIDDEN = tuple(
    (left + right).encode()
    for left, right in (
        ("/wo", "rk/"),
        ("/tm", "p/"),
        ("/r", "oot/"),
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("npm", "js.org"),
        ("crates", ".io"),
        ("proxy.go", "lang.org"),
    )
)


def ignored_folders() -> set[str]:
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return {".git"} | {line.rstrip("/") for line in lines if line.endswith("/")}


def project_files() -> list[Path]:
    ignored = ignored_folders()
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in ignored and "*" not in name]
        folders[:] = [name for name in folders if not name.endswith(".egg-info")]
        names = [name for name in names if not name.startswith(".coverage")]
        # Compiled modules stay on the machine that made them.
        found += [Path(folder, name) for name in names if not name.endswith(".so")]
    return sorted(path for path in found if path.is_file())


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_of(readme: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    blocks = [body for language, body in FENCE.findall(text) if language == "console"]
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ").rstrip() for line in lines if line.startswith("$ ")]


def test_no_file_names_a_place_of_one_machine_or_a_registry() -> None:
    hits = [
        f"{name_of(path)}: {word.decode()}"
        for path in project_files()
        for word in FORBIDDEN
        if word in path.read_bytes()
    ]
    assert hits == []


def test_both_readmes_list_the_same_commands() -> None:
    english, chinese = (commands_of(readme) for readme in READMES)
    assert english
    assert english == chinese


@pytest.mark.parametrize("readme", READMES)
def test_readmes_name_only_scripts_that_exist(readme: str) -> None:
    scripts = {word for line in commands_of(readme) for word in re.findall(r"scripts/[\w-]+", line)}
    assert "scripts/demo" in scripts
    assert "scripts/test" in scripts
    assert [name for name in sorted(scripts) if not os.access(ROOT / name, os.X_OK)] == []


@pytest.mark.parametrize(
    "path", [path for path in project_files() if path.suffix == ".md"], ids=name_of
)
def test_relative_links_lead_somewhere(path: Path) -> None:
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    targets = [inline or reference for inline, reference in LINK.findall(prose)]
    local = [target.partition("#")[0] for target in targets if not ELSEWHERE.match(target)]
    assert [target for target in local if target and not (path.parent / target).exists()] == []


def test_contributing_names_every_room_of_the_package() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "highmem"
    rooms = {path.name for path in package.iterdir() if path.is_dir()} - ignored_folders()
    assert rooms
    assert [room for room in sorted(rooms) if f"| `{room}/` |" not in text] == []


def test_contributing_names_every_script() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    scripts = [path for path in (ROOT / "scripts").iterdir() if path.suffix == ""]
    missing = [path.name for path in scripts if path.is_file() and name_of(path) not in text]
    assert missing == []
