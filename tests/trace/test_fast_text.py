"""The fast reader of ftrace text gives what the pure reader gives, on every input.

Every comparison is of all columns of all rows, of the texts in the order of their numbers and
of the whole account, errors included.
"""

from __future__ import annotations

import io
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.compiled import load_source
from highmem.errors import InputError
from highmem.trace import _text, load_probes
from highmem.trace.ftrace_fast import FastFtraceText
from highmem.trace.ftrace_text import FtraceText
from highmem.trace.probes import ProbeTable
from highmem.trace.schema import COLUMNS, Kind, TraceSource
from highmem.trace.source import ByteSource, open_source
from support.ftrace_writer import STYLES, Call, Event, Lost, Noise, State, Style, Switch, recording
from support.trace_reading import account_holds, rows_of

SAMPLES = Path(__file__).parents[2] / "samples"
RECORDINGS = sorted(path.relative_to(SAMPLES) for path in SAMPLES.rglob("*.trace.zst"))
INTERPRETED = load_source("highmem.trace._text", "highmem_text_interpreted")
COMPILED = pytest.param(
    _text,
    marks=pytest.mark.skipif(not _text.COMPILED, reason="the scanner is not compiled here"),
    id="compiled",
)
both_ways = pytest.mark.parametrize("way", [COMPILED, pytest.param(INTERPRETED, id="interpreted")])
# Properties run the compiled scanner where there is one; that the interpreted one is the same
# file is the whole difference, so it gets fewer examples.
QUICK: ModuleType = _text if _text.COMPILED else INTERPRETED
few = settings(max_examples=30)


class Dripping(io.BytesIO):
    """A pipe that gives *size* bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self._size = size

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(self._size)


def source_of(data: bytes, chunk: int) -> ByteSource:
    return ByteSource("it", Dripping(data, chunk) if chunk else io.BytesIO(data))


def outcome(reader: TraceSource) -> dict[str, Any]:
    """All that a reader gives."""
    try:
        rows, error = rows_of(reader), ""
    except InputError as refused:
        rows, error = [], str(refused)
    texts = list(reader.strings.texts)
    return {"rows": rows, "error": error, "account": reader.account, "texts": texts}


def fast(
    data: bytes, way: ModuleType, chunk: int = 0, probes: ProbeTable | None = None, room: int = 64
) -> FastFtraceText:
    return FastFtraceText(source_of(data, chunk), probes, way.Scanner(room))


def hold(
    data: bytes, way: ModuleType = QUICK, chunk: int = 0, probes: ProbeTable | None = None
) -> dict[str, Any]:
    """Assert that both readers give the same for *data*; what they give."""
    pure = outcome(FtraceText(source_of(data, 0), probes))
    found = outcome(fast(data, way, chunk, probes))
    assert found == pure
    account_holds(pure["account"], data, len(pure["rows"]))
    return pure


def odd_lines(data: bytes, way: ModuleType = QUICK, probes: ProbeTable | None = None) -> int:
    """How many lines of *data* the scanner hands back."""
    count = 0

    class Counting(FastFtraceText):
        def _odd(self, line: bytes) -> None:
            nonlocal count
            count += 1
            super()._odd(line)

    rows_of(Counting(source_of(data, 0), probes, way.Scanner(64)))
    return count


@both_ways
@pytest.mark.parametrize(
    ("place", "caller"),
    [
        (b"copy_strings+0xa5/0x2a0 <- kmap_high", "copy_strings+0xa5"),
        (b"kmap_high <- copy_strings+0xa5/0x2a0", "copy_strings+0xa5"),
        (b"kmap_high+0x0/0x1f0 <- copy_strings+0xa5/0x2a0", "copy_strings+0xa5"),
        (b"c1068620 <- c121d28c", "c121d28c"),
        (b"f+0x1/0x2 <- g", "f+0x1"),
    ],
)
def test_the_caller_is_the_side_that_is_not_probed(
    way: ModuleType, place: bytes, caller: str
) -> None:
    line = b"cat-1 [000] d..1 1.%06d: r_kmap_high: (%b) vaddr=0xff80%d000\n"
    # Some by the whole grammar, the rest by what was learnt of them.
    found = hold(b"".join(line % (n, place, n) for n in range(8)), way)
    assert [row["caller"] for row in found["rows"]] == [caller] * 8


# -- recordings of real kernels -----------------------------------------------------------


@pytest.mark.skipif(not _text.COMPILED, reason="the scanner is not compiled here")
@pytest.mark.parametrize("name", RECORDINGS, ids=str)
def test_recordings_read_the_same(name: Path) -> None:
    pure = FtraceText(open_source(SAMPLES / name))
    quick = FastFtraceText(open_source(SAMPLES / name))
    columns: list[dict[str, np.ndarray]] = []
    for reader in (pure, quick):
        batches = list(reader)
        columns.append({key: np.concatenate([getattr(b, key) for b in batches]) for key in COLUMNS})
    for key in COLUMNS:
        assert np.array_equal(columns[0][key], columns[1][key]), key
    assert pure.account == quick.account
    assert pure.strings.texts == quick.strings.texts


@pytest.mark.parametrize(
    "name", [name for name in RECORDINGS if name.parts[0] == "misuse"], ids=str
)
def test_recordings_read_the_same_interpreted(name: Path) -> None:
    data = b"".join(open_source(SAMPLES / name))
    hold(data[: 200_000 + data[200_000:].index(b"\n") + 1], INTERPRETED)


@both_ways
def test_nearly_every_line_of_a_recording_is_read_by_the_scanner(way: ModuleType) -> None:
    data = b"".join(open_source(SAMPLES / "misuse/linux-6.1-686.clean.trace.zst"))
    lines = data.splitlines(keepends=True)
    once = odd_lines(data, way)
    assert once < len(lines) // 4
    # Twice the same text: nothing in the second half is new, but its header makes the meaning
    # of the flags (at most 16 different ones here) new.
    header = sum(line.startswith(b"#") for line in lines)
    assert odd_lines(data * 2, way) - once <= header + 16


# -- made recordings ----------------------------------------------------------------------

HOSTILE = [
    b"", b"-", b"a-1", b"a b", b"[000]", b"<idle>", b"<...>", b"==>", b"a ==> b", b" prev_pid=1",
    b"-1 [000] .... 1", b"-1 [0] 1.000000", b"x-1 [000] ....", b"1.000000: m:", b": m_kmap: (x)",
    b"next_comm=x", b"kworker/0:1-eve", b"(sd-pam)", b"#", b"=> x", b"CPU:1 [LOST", b"\xff\xfe\x80",
    b"\x1b[31m", b"a\rb", b"x\0y", b":1 [1] R ==> ", b"a:1 [1] R ==> b", b"a:1 [1] R ==>",
    b"-1 0.... 0us: ", b"_-----=> x", b"=0x1 page=0x2", b"[1] [2] [3]", b"3] ....", b"a  [0",
]  # fmt: skip
comms = st.sampled_from(HOSTILE) | st.sampled_from([b"cat", b"gzip", b"swapper/0"])
states = st.builds(
    State,
    comm=comms,
    pid=st.sampled_from([0, 1, 107, 4_194_304, 2**31 - 1, 2**31]),
    cpu=st.sampled_from([0, 3, 12, 255]),
    time=st.sampled_from([0, 9_405_284_000, 99_999_999_999, 10**14, 1_234_567_891]),
    irqs_off=st.booleans(),
    preempt=st.integers(0, 2),
    migrate=st.integers(0, 1),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.sampled_from(
        [
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0xf6ab8458"),)),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0xf6a7bb70"), ("prot", "0x163"))),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0x1"), ("type", "0x3"))),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("prot", "0x163"), ("page", "0x1"))),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0x1"), ("page", "0x1"))),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "4138435160"),)),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0x1234567890abcdef"),)),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0x1234567890abcdef0"),)),
            Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "(fault)"),)),
            Call("m_kmap_high", "f+0x0/0x80 <- g", (("page", "0x1"),)),
            Call("r_kmap_high", "kmap+0x2/0x80 <- kmap_high", (("vaddr", "0xff800000"),)),
            Call("r_kmap_high", "f+0x2/0x8 [zfs] <- kmap_high", (("arg1", "0xff800000"),)),
            Call("u_kunmap_high", "kunmap_high+0x0/0x80", (("page", "0xf6ab8458"),)),
            Call("u_kunmap_high", "kunmap_high+0x0/0x80", ()),
            Call("kprobes:m_kmap_high", "kmap_high+0x0/0x80", (("page", "0x12"),)),
            Call("f_kmap_flush_unused", "kmap_flush_unused+0x0/0x1", ()),
            Call("f_kmap_flush_unused", "kmap_flush_unused+0x0/0x1", (("page", "0x1"),)),
            Call("my_probe", "kmap_high+0x0/0x80", (("arg1", "0x10"), ("arg2", "0x25"))),
            Call("other_probe", "kmap_high+0x0/0x80", (("page", "0x10"),)),
        ]
    ),
    st.builds(Switch, st.sampled_from(["R", "R+", "D|K"]), comms, st.sampled_from([0, 7, 107])),
    st.builds(Lost, st.sampled_from([0, 5])),
    st.sampled_from(
        [
            Noise(text)
            for text in (
                b"kmap_high <-copy_strings", b"sched_wakeup: comm=x pid=1", b"<stack trace>",
                b"sched:sched_waking: comm=cat prio=120", b"timer_start:x", b"a:b:c: d",
                b"sched_switch: prev_comm=x", b"<stack trace> ", b"m_kmap_high: ", b"", b"  ",
            )
        ]
    ),
)  # fmt: skip
styles = st.sampled_from([*STYLES, Style(flags=7), Style(header=False, flags=5, digits=9)])
recordings = st.builds(recording, st.lists(st.tuples(states, events), max_size=12), styles)
TABLE = """
[probes.my_probe]
function = "kmap_high"
value = "arg1"
prot = "arg2"
[probes.sched_wakeup]
function = "kunmap_high"
value = "pid"
[probes."kprobes:m_kmap_high"]
function = "kmap_high"
value = "arg9"
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ProbeTable:
    path = tmp_path_factory.mktemp("probes") / "probes.toml"
    path.write_text(TABLE)
    return load_probes(path)


chunks = st.sampled_from([0, 0, 1, 7, 64, 100])


@given(st.lists(recordings, min_size=1, max_size=3), chunks)
def test_made_recordings(parts: list[bytes], chunk: int) -> None:
    # Twice: the second time the parts of the lines are known.
    data = b"".join(parts) * 2
    if data:
        hold(data, chunk=chunk)


@few
@given(st.lists(recordings, min_size=1, max_size=3), chunks)
def test_made_recordings_interpreted(parts: list[bytes], chunk: int) -> None:
    data = b"".join(parts) * 2
    if data:
        hold(data, INTERPRETED, chunk)


@given(recordings.filter(bool))
def test_made_recordings_with_a_table_of_probes(table: ProbeTable, data: bytes) -> None:
    hold(data * 2, probes=table)


@st.composite
def mixtures(draw: st.DrawFn) -> bytes:
    """Lines put together from parts of other lines, all of which the scanner was taught."""
    data = draw(recordings)
    lines = [line for line in data.splitlines(keepends=True) if line.strip()]
    if not lines:
        return b"\n"
    pieces = [line[: draw(st.integers(0, len(line)))] for line in lines]
    ends = [line[draw(st.integers(0, len(line) - 1)) :] for line in lines]
    index = st.integers(0, len(lines) - 1)
    mixed = [pieces[draw(index)] + ends[draw(index)] for _ in range(8)]
    # Most cuts are where the parts of a line meet.
    cuts = [b"[", b"] ", b" ", b": ", b"=", b"==> ", b"0x", b"("]
    for _ in range(8):
        cut, a, b = draw(st.sampled_from(cuts)), lines[draw(index)], lines[draw(index)]
        mixed.append(cut.join((a.rsplit(cut, 1)[0], b.rsplit(cut, 1)[-1])))
    return data + b"".join(mixed)


@settings(max_examples=300)
@given(mixtures())
def test_mixed_up_lines(data: bytes) -> None:
    hold(data)


@few
@given(mixtures())
def test_mixed_up_lines_interpreted(data: bytes) -> None:
    hold(data, INTERPRETED)


@given(recordings.filter(bool), st.data())
def test_flipped_bytes(data: bytes, draws: st.DataObject) -> None:
    damaged = bytearray(data * 2)
    places = st.tuples(st.integers(len(data), len(damaged) - 1), st.integers(1, 255))
    for place, flip in draws.draw(st.lists(places, min_size=1, max_size=8)):
        damaged[place] ^= flip
    hold(bytes(damaged), chunk=draws.draw(chunks))


@given(st.binary(min_size=1, max_size=500))
def test_random_bytes(data: bytes) -> None:
    hold(b"\n" + data)  # so that nothing says it is compressed


# -- every place where something can end --------------------------------------------------

STEADY: list[tuple[State, Event]] = [
    (State(), Call("m_kmap_high", "kmap_high+0x0/0x80", (("page", "0xf6a"), ("prot", "0x163")))),
    (State(preempt=1), Call("r_kmap_high", "f+0x12/0x80 <- kmap_high", (("vaddr", "0xff80"),))),
    (State(), Noise(b"sched_wakeup: comm=x pid=1")),
    (State(), Switch("S", b"swapper/3", 0)),
    (State(), Lost(5)),
]
SMALL = [recording(STEADY, style) for style in STYLES]
small = pytest.mark.parametrize("data", SMALL, ids=[str(style) for style in STYLES])


@both_ways
@small
def test_chunks_of_every_size(data: bytes, way: ModuleType) -> None:
    step = 1 if way is QUICK else 41
    pure = outcome(FtraceText(source_of(data * 2, 0)))
    for size in range(1, len(data) + 2, step):
        assert outcome(fast(data * 2, way, size)) == pure, size


@small
def test_a_text_cut_at_every_offset(data: bytes) -> None:
    for cut in range(1, len(data), 3):
        hold(data + data[:cut])


@pytest.mark.skipif(not _text.COMPILED, reason="the scanner is not compiled here")
def test_every_byte_of_a_known_line_matters() -> None:
    data = recording(STEADY, STYLES[2])
    for place in range(data.index(b"cat"), len(data)):
        for byte in b" 0af19[]():=.-\r\0\n\xff":
            second = bytearray(data)
            second[place] = byte
            hold(data + bytes(second))


@pytest.mark.parametrize("room", [1, 2, 3])
def test_batches_are_full_and_in_order(room: int) -> None:
    data = SMALL[1] * 3
    reader = fast(data, QUICK, room=room)
    lengths = [len(batch) for batch in reader]
    assert set(lengths[:-1]) <= {room}
    assert sum(lengths) == reader.account.events
    found = outcome(fast(data, QUICK, room=room))
    assert found == outcome(FtraceText(source_of(data, 0)))


# -- hostile input ------------------------------------------------------------------------


def line_of(
    number: int, event: bytes = b"u_kunmap_high: (kunmap_high+0x0/0x80) page=0x10"
) -> bytes:
    return b"%16s-%-5d [003] d... %5d.405284: %s\n" % (b"t%d" % number, number, number, event)


@pytest.mark.skipif(not _text.COMPILED, reason="the scanner is not compiled here")
def test_tables_that_overflow_are_emptied_and_filled_again() -> None:
    rng = random.Random(1)
    calls = b"u_kunmap_high: (kunmap_high+0x%x/0x80) page=0x10"
    lines = [line_of(n, calls % rng.randrange(60_000)) for n in range(30_000)]
    lines += [line_of(n % 100, calls % (n % 7)) for n in range(5_000)]
    hold(b"".join(lines))


@pytest.mark.skipif(not _text.COMPILED, reason="the scanner is not compiled here")
def test_what_never_repeats_does_not_fill_the_memory() -> None:
    place = b"x" * 1000
    lines = b"".join(
        line_of(7, b"u_kunmap_high: (%s%d+0x0/0x80) page=(fault)" % (place, n))
        + line_of(7, b"event_%s_%d: x" % (place, n))
        for n in range(8_000)
    )
    reader = fast(lines, QUICK)
    tracemalloc.start()
    try:
        assert rows_of(reader) == []
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert (reader.account.rejected, reader.account.passed_over) == (8_000, 8_000)


@both_ways
@pytest.mark.parametrize(("extra", "rejected"), [(-1, 1), (0, 2), (1, 3), (200_000, 3)])
@pytest.mark.parametrize("chunk", [0, 1000])
def test_lines_at_the_greatest_length(
    way: ModuleType, extra: int, rejected: int, chunk: int
) -> None:
    start = line_of(1)[:-1]
    long = start + b" " * (65_536 + extra - len(start)) + b"\n"
    data = line_of(1) + long + line_of(1) + long[:-1] + b"\r\n" + long[:-1]
    found = hold(data, way, chunk)
    assert found["account"].rejected == rejected


def test_carriage_returns_belong_to_the_newline() -> None:
    line = line_of(1)
    data = line + line[:-1] + b"\r\n" + line[:-1] + b"\r\r\n" + b"\r\n" + line[:-1] + b"\r"
    assert len(hold(data)["rows"]) == 3
    assert odd_lines(data) == 2


def test_flags_mean_what_the_header_last_said() -> None:
    def head(*names: bytes) -> bytes:
        return b"# tracer: nop\n" + b"".join(b"#   _-----=> %b\n" % name for name in names)

    line = line_of(1).replace(b"d...", b"dNh31")
    four = (b"irqs-off", b"need-resched", b"hardirq/softirq", b"preempt-depth")
    data = line + head(*four) + line * 2 + head(*four, b"migrate-disable") + line * 2
    data += head(b"migrate-disable", *four) + line * 2
    found = hold(data)
    assert len({row["flags"] for row in found["rows"]}) == 3


def test_flags_of_all_lengths_and_none() -> None:
    line = line_of(1)
    for flags in (b"d", b"d..", b"....", b".....", b"......", b".......", b"........", b"." * 9):
        with_nul = flags[:-1] + b"\0"
        data = b"".join(line.replace(b"d...", text) for text in (flags, with_nul, flags)) * 2
        hold(line + data + line.replace(b"d... ", b""))


def test_a_task_is_known_by_name_only_once_it_has_an_event() -> None:
    # Texts are numbered in the order in which events bring them.
    other = line_of(5, b"sched_wakeup: comm=x")
    data = other * 3 + line_of(6) + other * 2 + line_of(5) + other + line_of(5)
    assert hold(data)["texts"] == ["t6", "t5"]
    assert odd_lines(data) == 3


def test_stack_traces_are_passed_over() -> None:
    stack = line_of(5, b"<stack trace>") + b" => kmap_high\n => zfs_read [zfs]\n => <c1234567>\n"
    forged = b" => x-5 [003] d... 5.405284: u_kunmap_high: (k+0x0/0x1) page=0x1\n"
    data = line_of(5) + stack * 4 + forged * 2 + b" =>\n = \n => \n"
    found = hold(data)
    assert len(found["rows"]) == 3
    assert hold(stack)["account"].passed_over == 4
    assert hold(b" => a\nrubbish\n")["error"] == ""


def test_switches_are_put_together_from_their_halves() -> None:
    def switch(pid: int, state: bytes, next_pid: int) -> bytes:
        text = b"prev_comm=t%d prev_pid=%d prev_prio=120 prev_state=%s ==> " % (pid, pid, state)
        text += b"next_comm=n%d next_pid=%d next_prio=120" % (next_pid, next_pid)
        return line_of(pid, b"sched_switch: " + text)

    taught = switch(1, b"S", 2) + switch(2, b"R+", 1)
    new = switch(1, b"S", 1) + switch(2, b"R+", 2)
    wrong = new.replace(b"prev_pid=1", b"prev_pid=9")
    wrong += switch(1, b"S", 2).replace(b"t1-1", b"t2-2", 1)  # of another task than its line
    far = switch(1, b"S", 2**31)
    found = hold(taught + new + wrong + far * 2)
    assert [row["next_pid"] for row in found["rows"]] == [2, 1, 1, 2, 2]
    assert [row["pid"] for row in found["rows"]] == [1, 2, 1, 2, 2]
    assert odd_lines(taught + new) == 2
    assert found["account"].rejected == 4


def test_a_hash_that_another_key_shares_is_no_match(monkeypatch: pytest.MonkeyPatch) -> None:
    # More keys than are looked at: the rows of some are given to others.
    monkeypatch.setattr(INTERPRETED, "_hash", lambda p, at, length: 1)
    lines = [line_of(n, b"u_kunmap_high: (f+0x%x/0x80) page=0x1" % n) for n in range(40)]
    hold(b"".join(lines + lines[::-1]), INTERPRETED)


def test_a_guess_at_a_row_that_is_another_key_s_now_is_no_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(INTERPRETED, "_hash", lambda p, at, length: 1)
    one, two = line_of(1), line_of(1, b"u_kunmap_high: (f+0x1/0x80) page=0x1")
    names = [line_of(2, b"event_%d: 0x12" % n) for n in range(20)]
    same = [line_of(1, b"event_%d: 0x12" % n) for n in range(20)]
    data = b"".join([one, two, one, two, one, *names, *(two + line for line in same[::-1])])
    assert len(hold(data, INTERPRETED)["rows"]) == 5 + 20


def test_a_cpu_has_five_digits_at_most() -> None:
    lines = [line_of(1).replace(b"[003]", b"[%s]" % cpu) for cpu in (b"3", b"12345", b"123456")]
    found = hold(line_of(1) + b"".join(lines))
    assert [row["cpu"] for row in found["rows"]] == [3, 3, 12345]
    assert found["account"].rejected == 1


# -- choosing the reader ------------------------------------------------------------------


def test_read_trace_takes_the_fast_reader_where_it_is_compiled(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_bytes(line_of(1))
    script = (
        "import sys\nfrom highmem.trace import is_compiled, read_trace\n"
        "reader = read_trace(sys.argv[1])\nprint(type(reader).__name__, is_compiled())\n"
        "print(sum(map(len, reader)))\n"
    )
    fastest = "FastFtraceText True" if _text.COMPILED else "FtraceText False"
    for value, name in (("", fastest), ("1", "FtraceText False")):
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)],
            env={"PYTHONPATH": ":".join(sys.path), "HIGHMEM_INTERPRETED": value},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split("\n")[:2] == [name, "1"]


def test_a_recording_is_read_once_and_may_be_left() -> None:
    reader = fast(SMALL[0] * 100, QUICK, room=4)
    first = next(iter(reader))
    reader.close()
    assert len(first) == 4
    assert set(first.kind.tolist()) <= set(Kind)
    assert reader.format == FtraceText.format
