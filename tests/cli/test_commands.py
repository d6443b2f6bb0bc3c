"""The commands as a user runs them: another process, its output and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples"
CLEAN = SAMPLES / "misuse/linux-6.1-686.clean.trace.zst"
LEAK = SAMPLES / "misuse/linux-6.1-686.leak-local.trace.zst"
BIG = SAMPLES / "linux-5.10-686.trace.zst"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"}


def highmem(*arguments: str | Path, text: bytes = b"", **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "highmem", *map(str, arguments)],
        input=text,
        capture_output=True,
        env={**ENVIRONMENT, **more},
        timeout=60,
        check=False,
    )


def one_line(run: subprocess.CompletedProcess, status: int = 2) -> str:
    """The error of *run*: one line and no result."""
    assert run.returncode == status, run.stderr
    assert run.stdout == b""
    line = run.stderr.decode()
    assert line.endswith("\n") and "Traceback" not in line
    return line


def refused(run: subprocess.CompletedProcess) -> str:
    line = one_line(run)
    assert line.startswith("highmem: ") and line.count("\n") == 1
    return line


def plain(path: Path) -> bytes:
    import zstandard

    return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()


# Results and exit status.


def test_nothing_found_is_0_and_findings_are_1() -> None:
    clean, leak = highmem("replay", CLEAN), highmem("replay", LEAK)
    assert (clean.returncode, leak.returncode) == (0, 1)
    assert b"verdict: clean" in clean.stdout and b"leaked-window" in leak.stdout
    assert clean.stderr == leak.stderr == b""
    assert b"\x1b" not in leak.stdout


def test_lost_events_are_3() -> None:
    lines = plain(CLEAN).splitlines(keepends=True)
    run = highmem("replay", "-", text=b"".join([*lines[:4000], b"CPU:1 [LOST 9 EVENTS]\n"]))
    assert run.returncode == 3 and b"incomplete" in run.stdout


def test_findings_weigh_more_than_losses_and_any_file_counts() -> None:
    assert highmem("replay", CLEAN, LEAK).returncode == 1
    both = highmem("replay", "--format", "json", CLEAN, LEAK)
    documents = json.loads(both.stdout)
    assert [bool(d["findings"]) for d in documents] == [False, True]


def test_exit_zero_is_0_whatever_was_found() -> None:
    run = highmem("replay", "--exit-zero", LEAK)
    assert run.returncode == 0 and b"leaked-window" in run.stdout


def test_standard_input_is_read_compressed_or_not() -> None:
    for text in (plain(LEAK), LEAK.read_bytes()):
        run = highmem("replay", "-", text=text)
        assert run.returncode == 1 and b"leaked-window" in run.stdout


def test_json_is_as_its_schema_says() -> None:
    schema = json.loads((ROOT / "docs/verdict.schema.json").read_text("utf-8"))
    document = json.loads(highmem("replay", "--format", "json", LEAK).stdout)
    Draft202012Validator(schema).validate(document)
    assert document["findings"][0]["rule"] == "leaked-window"
    assert document["input"]["name"].endswith("leak-local.trace.zst")


def test_the_profile_can_be_given() -> None:
    run = highmem("replay", "--profile", "debian-6.1-686", "--ram", "2G", CLEAN)
    assert run.returncode == 0 and b"given" in run.stdout


# Refusals.


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.trace").touch()
    (tmp_path / "binary.trace").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "folder").mkdir()
    for name in ("missing.trace", "binary.trace", "folder"):
        assert name in refused(highmem("replay", tmp_path / name)), name


def test_an_empty_input_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "empty.trace").touch()
    run = highmem("replay", tmp_path / "empty.trace")
    assert b"Traceback" not in run.stderr
    assert run.returncode in (0, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("replay",),
        ("replay", "--no-such-option", "x"),
        ("replay", "--ram", "much", str(CLEAN)),
        ("nonsense",),
        ("layout", "--ram", "nothing"),
    ],
)
def test_bad_usage_is_2_without_a_traceback(arguments: tuple[str, ...]) -> None:
    run = highmem(*arguments)
    assert run.returncode == 2 and run.stdout == b""
    assert b"Error" in run.stderr and b"Traceback" not in run.stderr


def test_an_unknown_profile_names_those_there_are() -> None:
    assert "debian-6.1-686" in refused(highmem("replay", "--profile", "debian-7", CLEAN))


def test_the_name_of_a_missing_file_is_shown_escaped(tmp_path: Path) -> None:
    assert "\x1b" not in refused(highmem("replay", tmp_path / "a\x1b[31m\nb.trace"))


# Output files.


def test_the_output_file_has_the_result_and_the_usual_mode(tmp_path: Path) -> None:
    target = tmp_path / "verdict.json"
    run = highmem("replay", "--format", "json", "-o", target, LEAK)
    assert run.returncode == 1 and run.stdout == b""
    assert json.loads(target.read_bytes())["findings"]
    (tmp_path / "other").touch()
    assert target.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "verdict.json"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    line = refused(highmem("replay", "-o", tmp_path / "none" / "verdict.txt", CLEAN))
    assert "cannot be written" in line


def test_a_failure_leaves_the_old_output(tmp_path: Path) -> None:
    target = tmp_path / "verdict.txt"
    target.write_text("old")
    refused(highmem("replay", "-o", target, tmp_path / "missing.trace"))
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_killed_in_the_middle_there_is_no_file_of_that_name(tmp_path: Path) -> None:
    target = tmp_path / "verdict.txt"
    program = (
        "import os, signal, sys\n"
        "from highmem.cli.output import open_output\n"
        "with open_output(sys.argv[1]) as stream:\n"
        "    stream.write('half'); stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", program, str(target)]
    run = subprocess.run(command, env=ENVIRONMENT, timeout=60, check=False)
    assert run.returncode == -signal.SIGKILL
    assert not target.exists()


# Interruptions.


def test_a_reader_that_has_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "highmem", "rules", "--format", "json"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.read(1)
        run.stdout.close()
        assert run.stderr.read() == b""
        run.wait(60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_result_that_finds_no_room_is_an_error_and_one_line() -> None:
    command = [sys.executable, "-m", "highmem", "rules"]
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert run.returncode == 2
    assert run.stderr == b"highmem: standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_closed_streams_change_no_status(closed: str) -> None:
    command = f'exec "{sys.executable}" -m highmem replay "{LEAK}" {closed}'
    run = subprocess.run(
        ["sh", "-c", command], env=ENVIRONMENT, capture_output=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (1, b"", b"")


def test_ctrl_c_is_130_and_one_line() -> None:
    command = [sys.executable, "-m", "highmem", "replay", "-"]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as run:
        assert run.stdin is not None and run.stdout is not None and run.stderr is not None
        run.stdin.write(plain(CLEAN)[:200_000])
        run.stdin.flush()
        time.sleep(2)  # it has begun to read and waits for more
        run.send_signal(signal.SIGINT)
        assert run.stderr.read() == b"highmem: interrupted\n"
        assert run.wait(60) == 130


# The other commands.


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "highmem", "--help"]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, check=True)
    imported = {line.rpartition(b"|")[2].strip() for line in run.stderr.splitlines()}
    assert b"click" in imported
    for heavy in (b"numpy", b"rich", b"zstandard", b"highmem.replay", b"highmem.kernel"):
        assert heavy not in imported
    assert b"replay" in run.stdout and b"Exit status" in run.stdout


def test_rules_are_listed_and_explained() -> None:
    listed = highmem("rules")
    assert listed.returncode == 0 and b"unmap-order" in listed.stdout
    explained = highmem("rules", "unmap-order")
    assert b"kunmap_local(a);" in explained.stdout and b"Mend:" in explained.stdout
    document = json.loads(highmem("rules", "unmap-order", "--format", "json").stdout)
    assert document["name"] == "unmap-order" and document["level"] == "error"
    rows = json.loads(highmem("rules", "--format", "json").stdout)
    assert len(rows) == listed.stdout.count(b"\n")


def test_an_unknown_rule_names_those_there_are() -> None:
    line = refused(highmem("rules", "unmap-odrer"))
    assert "'unmap-odrer'" in line and "unmap-order" in line


def test_layout_shows_the_windows() -> None:
    run = highmem("layout", "--profile", "debian-5.10-686")
    assert run.returncode == 0 and b"FIX_KMAP_BEGIN" in run.stdout


def test_every_command_has_help_and_the_program_a_version() -> None:
    for command in ("replay", "layout", "rules"):
        assert b"Usage" in highmem(command, "-h").stdout
    version = highmem("--version").stdout
    assert b"highmem " in version
    assert b"compiled" in version or b"interpreted" in version
