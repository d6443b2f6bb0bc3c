from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import zstandard

from highmem.errors import InputError
from highmem.trace import Probe, ProbeTable, read_trace
from highmem.trace.schema import Argument, Function, Kind
from support.ftrace_writer import STYLES, Call, State, recording
from support.trace_reading import rows_of

DATA = recording([(State(), Call("mine", "f+0x0/0x10", (("arg1", "0xf6add488"),)))] * 3, STYLES[0])
MINE = ProbeTable({"mine": Probe(Function.KMAP_HIGH, Kind.MAP, {"arg1": Argument.PAGE})})


def test_a_file_is_read_with_the_probes_that_are_given(tmp_path: Path) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(zstandard.compress(DATA))
    source = read_trace(path, probes=MINE)
    assert (source.name, source.format) == (str(path), "ftrace-text")
    assert [row["value"] for row in rows_of(source)] == [0xF6ADD488] * 3


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DATA)))
    source = read_trace("-", probes=MINE)
    assert source.name == "<stdin>"
    assert len(rows_of(source)) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x17\x08\x44tracing6\0\0\0\0\0", "a damaged trace.dat"),
        (b"PERFILE2" + bytes(100), "perf.data"),
        (b"\x7fELF" + bytes(100), "an ELF file"),
        (b"EMiL\1\0\0\0" + bytes(100), "LiME"),
        (b"BZh91AY&SY" + bytes(100), "bzip2"),
        (b"PK\3\4" + bytes(100), "zip"),
        (bytes(100), "binary file"),
        (b"abc\0def\nghi\n", "binary file"),
        (b"", "empty"),
        (zstandard.compress(zstandard.compress(DATA)), "compressed twice"),
        (zstandard.compress(b"\x17\x08\x44tracing6\0\0"), "trace.dat"),
    ],
)
def test_what_is_no_recording_is_told_with_its_kind(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "input"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_trace(path)
    assert str(error.value).startswith(str(path))
    assert str(error.value).isprintable()


def test_a_nul_further_down_does_not_make_a_text_binary(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(DATA + b"\0\0\0\n" + DATA)
    source = read_trace(path, probes=MINE)
    assert len(rows_of(source)) == 6
    assert source.account.rejected == 1
