"""``highmem replay`` with files beside its verdict: whole under their name, or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from highmem.cli.exports import Exports
from highmem.cli.replay import replay
from highmem.errors import UsageError

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
LEAK = SAMPLES / "misuse" / "linux-6.1-686.leak-local.trace.zst"
COMMAND = [sys.executable, "-m", "highmem", "replay"]
TABLES = [f"tables/{name}.parquet" for name in ("callers", "events", "findings", "mappings")]


def text_of(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()


def ends_with(end: bytes) -> Callable[[Path], bool]:
    return lambda path: path.read_bytes().endswith(end)


def is_perfetto(path: Path) -> bool:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    return bool(trace.packet[-1].track_event.name.startswith("highmem "))


def is_json(path: Path) -> bool:
    return bool(json.loads(path.read_bytes()))


# Option, what it is given, the files that come of it, and what tells a whole one.
KINDS = {
    "html": ("--html", "page.html", ["page.html"], ends_with(b"</html>\n")),
    "chrome": ("--chrome", "trace.json", ["trace.json"], is_json),
    "perfetto": ("--perfetto", "trace.pftrace", ["trace.pftrace"], is_perfetto),
    "parquet": ("--parquet", "tables", TABLES, ends_with(b"PAR1")),
    "text": ("-o", "verdict.txt", ["verdict.txt"], ends_with(b")\n")),
    "json": ("--format=json", "-overdict.json", ["verdict.json"], is_json),
    "ndjson": ("--format=ndjson", "-overdict.ndjson", ["verdict.ndjson"], ends_with(b"}\n")),
}
STREAMED = ("html", "chrome", "perfetto", "parquet")


def need(kind: str) -> None:
    package = {"perfetto": "perfetto", "parquet": "duckdb"}.get(kind)
    if package:
        pytest.importorskip(package, reason=f"{package} is not installed")


def started(kind: str, folder: Path, trace: str) -> subprocess.Popen[bytes]:
    option, value, _, _ = KINDS[kind]
    return subprocess.Popen(
        [*COMMAND, trace, option, value],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def under_way(folder: Path) -> bool:
    """Whether a hidden file or folder shows that an output was begun."""
    return any(path.name.startswith(".") for path in folder.rglob("*"))


@pytest.mark.parametrize("kind", STREAMED)
def test_killed_in_the_middle_nothing_has_the_final_name(kind: str, tmp_path: Path) -> None:
    need(kind)
    *_, files, _ = KINDS[kind]
    with started(kind, tmp_path, "-") as process:
        assert process.stdin is not None
        text = text_of(LEAK)
        process.stdin.write(text[: len(text) // 2])
        process.stdin.flush()
        patience = time.monotonic() + 60
        while not under_way(tmp_path) and time.monotonic() < patience:
            time.sleep(0.01)
        assert under_way(tmp_path)
        time.sleep(0.2)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert [name for name in files if (tmp_path / name).exists()] == []


@pytest.mark.parametrize("kind", STREAMED)
def test_killed_in_the_middle_an_older_file_stays_as_it_was(kind: str, tmp_path: Path) -> None:
    need(kind)
    *_, files, _ = KINDS[kind]
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"older")
    with started(kind, tmp_path, "-") as process:
        assert process.stdin is not None
        process.stdin.write(text_of(LEAK)[:200_000])
        process.stdin.flush()
        patience = time.monotonic() + 60
        while not under_way(tmp_path) and time.monotonic() < patience:
            time.sleep(0.01)
        process.kill()
    assert {(tmp_path / name).read_bytes() for name in files} == {b"older"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_a_file_is_whole_or_not_there(kind: str, tmp_path: Path) -> None:
    need(kind)
    *_, files, is_whole = KINDS[kind]
    begin = time.monotonic()
    with started(kind, tmp_path, str(LEAK)) as process:
        process.communicate()
    assert process.returncode == 1
    assert all(is_whole(tmp_path / name) for name in files)
    whole = time.monotonic() - begin
    for number in range(24):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        with started(kind, folder, str(LEAK)) as process:
            # Most of the run's time goes by before the first output: look at its second half.
            time.sleep(whole * (0.5 + 0.6 * number / 24))
            process.kill()
            process.communicate()
        there = [folder / name for name in files if (folder / name).exists()]
        assert all(is_whole(path) for path in there)


def test_all_outputs_of_one_run(tmp_path: Path) -> None:
    need("perfetto")
    need("parquet")
    options = [o for kind in STREAMED for o in (KINDS[kind][0], str(tmp_path / KINDS[kind][1]))]
    result = CliRunner().invoke(replay, [str(LEAK), *options])
    assert result.exit_code == 1, result.output
    assert "leaked-window" in result.stdout
    for kind in STREAMED:
        *_, files, is_whole = KINDS[kind]
        assert all(is_whole(tmp_path / name) for name in files), kind
    assert not under_way(tmp_path)


def test_files_get_the_mode_that_they_would_have_anyway(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        CliRunner().invoke(replay, [str(LEAK), "--chrome", str(tmp_path / "trace.json")])
    finally:
        os.umask(before)
    assert (tmp_path / "trace.json").stat().st_mode & 0o777 == 0o640


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(replay, arguments)
    assert isinstance(result.exception, UsageError), result.output
    assert result.stdout == ""
    text = str(result.exception)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", STREAMED)
def test_a_folder_that_is_not_there_is_one_line(kind: str, tmp_path: Path) -> None:
    need(kind)
    target = str(tmp_path / "no" / "such")
    assert "cannot be written" in refused(str(LEAK), KINDS[kind][0], target)


def test_outputs_are_for_one_recording() -> None:
    assert "one recording" in refused(str(LEAK), str(LEAK), "--html", "page.html")


def test_standard_output_is_the_verdicts() -> None:
    assert "name a file" in refused(str(LEAK), "--chrome", "-")


def test_two_outputs_of_one_name(tmp_path: Path) -> None:
    name = str(tmp_path / "x")
    assert "same name" in refused(str(LEAK), "--chrome", name, "--html", f"{tmp_path}/./x")


def test_what_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    wanted = {name: str(tmp_path / name) for name in ("chrome", "html")}
    with pytest.raises(ZeroDivisionError), Exports(wanted, 1):
        assert under_way(tmp_path)
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_recording_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.trace"
    bad.write_bytes(b"")
    folder = tmp_path / "out"
    folder.mkdir()
    result = CliRunner().invoke(replay, [str(bad), "--chrome", str(folder / "trace.json")])
    assert result.exit_code != 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("package", ["perfetto", "duckdb"])
def test_a_missing_package_is_said_before_the_work(
    package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kind = {"perfetto": "perfetto", "duckdb": "parquet"}[package]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    text = refused(str(tmp_path / "not even read"), KINDS[kind][0], str(tmp_path / "out"))
    assert "pip install 'highmem[" in text
    assert not (tmp_path / "out").is_file()
