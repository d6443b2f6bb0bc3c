"""What tests/support/ftrace_writer.py writes, the reader reads back, in every variant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.trace.printable import printable
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_IRQS_OFF,
    FLAG_KNOWN,
    FLAG_MIGRATE_KNOWN,
    FLAG_NEED_RESCHED,
    FLAG_SOFTIRQ,
    MIGRATE_SHIFT,
    PREEMPT_SHIFT,
    SYMBOLS,
    Argument,
    Kind,
)
from support.ftrace_writer import (
    STYLES,
    Call,
    Event,
    Lost,
    Noise,
    State,
    Style,
    Switch,
    recording,
)
from support.trace_reading import SlowFtraceText, account_holds, read_bytes, rows_of

HOSTILE = [
    b"", b"-", b"a-1", b"a b", b"[000]", b"<idle>", b"<...>", b"==>", b"a ==> b", b" prev_pid=1",
    b"-1 [000] .... 1", b"-1 [0] 1.000000", b"x-1 [000] ....", b"1.000000: m:", b": m_kmap: (x)",
    b"next_comm=x", b"kworker/0:1-eve", b"(sd-pam)", b"#", b"=> x", b"CPU:1 [LOST", b"\xff\xfe\x80",
    b"\x1b[31m", b"a\tb", b"a\rb", b"x\0y", b":1 [1] R ==> ", b"a:1 [1] R ==> b", b"-1 0.... 0us: ",
    b"a-1 0.... 0us: ", b"_-----=> x", b"=0x1 page=0x2",
]  # fmt: skip
bytes_of_a_comm = st.integers(1, 255).filter(lambda n: n != 10)
comms = st.sampled_from(HOSTILE) | st.lists(bytes_of_a_comm, max_size=15).map(bytes)
states = st.builds(
    State,
    comm=comms,
    pid=st.integers(0, 2**22),
    cpu=st.integers(0, 255),
    time=st.integers(0, 10**14),
    irqs_off=st.booleans(),
    need_resched=st.booleans(),
    hardirq=st.booleans(),
    softirq=st.booleans(),
    preempt=st.integers(0, 15),
    migrate=st.integers(0, 15),
)
places = st.sampled_from(["f+0x12/0x80", "c1234567", "zfs_read+0x1/0x2 [zfs]"])
entries = st.sampled_from([(s, "u" if "unmap" in s else "m") for s in SYMBOLS if "flush" not in s])
values = st.integers(0, 2**32 - 1)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    symbol, letter = draw(entries)
    field = draw(st.sampled_from(["page", "pfn", "vaddr", "addr"]))
    if letter == "m" and draw(st.booleans()):
        caller = draw(places)
        name = draw(st.sampled_from([f"r_{symbol}", f"r_{symbol}_0", f"{symbol}__return"]))
        field = draw(st.sampled_from(["vaddr", "addr", "ret", "arg1"]))
        return Call(name, f"{caller} <- {symbol}", ((field, f"{draw(values):#x}"),))
    name = draw(st.sampled_from([f"{letter}_{symbol}", symbol, f"p_{symbol}_0"]))
    fields = [(field, f"{draw(values):#x}")]
    fields += [("prot", f"{draw(values):#x}")] * draw(st.booleans())
    fields += [("type", str(draw(st.integers(0, 50))))] * draw(st.booleans())
    fields += [("other", draw(st.sampled_from(["7", '"a b"', "{0x1,0x2}"])))] * draw(st.booleans())
    return Call(name, draw(places), tuple(fields))


events: st.SearchStrategy[Event] = (
    calls()
    | st.builds(Switch, st.sampled_from(["R", "R+", "S", "D|K"]), comms, st.integers(0, 2**22))
    | st.builds(Lost, st.integers(0, 10**9))
    | st.builds(
        Noise, st.sampled_from([b"kmap_high <-copy_strings", b"sched_wakeup: comm=x pid=1"])
    )
)
SYMBOL_OF = {
    name: symbol
    for symbol in SYMBOLS
    for name in (
        symbol, f"m_{symbol}", f"u_{symbol}", f"p_{symbol}_0", f"r_{symbol}", f"r_{symbol}_0",
        f"{symbol}__return",
    )
}  # fmt: skip
ARGUMENTS = {"page": Argument.PAGE, "pfn": Argument.PFN}


def expected_flags(state: State, count: int) -> int:
    if not count:
        return 0
    bits = FLAG_KNOWN | FLAG_IRQS_OFF * state.irqs_off | FLAG_NEED_RESCHED * state.need_resched
    bits |= FLAG_HARDIRQ * state.hardirq | FLAG_SOFTIRQ * state.softirq
    bits |= state.preempt << PREEMPT_SHIFT
    return bits | (FLAG_MIGRATE_KNOWN | state.migrate << MIGRATE_SHIFT) * (count == 5)


def expected_time(time: int, style: Style) -> int:
    if style.program == "latency":
        return time // 1000 * 1000
    return time // 10 ** (9 - style.digits) * 10 ** (9 - style.digits)


def expected(state: State, event: Event, style: Style) -> dict[str, Any]:
    """What is left of an event in a recording of that style: padding hides leading blanks."""
    if isinstance(event, Lost):
        return {"kind": Kind.LOST, "cpu": state.cpu, "value": event.count, "pid": -1}
    comm = state.comm[:8] if style.program == "latency" else state.comm
    row: dict[str, Any] = {
        "time": expected_time(state.time, style),
        "cpu": state.cpu,
        "pid": state.pid,
        "flags": expected_flags(state, style.flags),
        "comm": printable(comm.lstrip(b" ")),
    }
    if isinstance(event, Switch):
        padded = style.program == "trace-cmd"
        row["kind"] = Kind.SWITCH
        row["comm"] = printable(state.comm.lstrip(b" ") if padded else state.comm)
        row["next_comm"] = printable(event.next_comm)
        return row | {"next_pid": event.next_pid, "state": event.state}
    assert isinstance(event, Call)
    fields = dict(event.fields)
    field = next(iter(fields))
    caller, arrow, _ = event.place.partition(" <- ")
    symbol = SYMBOL_OF[event.name]
    back = Kind.MAP_RETURN if arrow else Kind.MAP
    return row | {
        "kind": Kind.UNMAP if "unmap" in symbol else back,
        "function": SYMBOLS[symbol],
        "argument": ARGUMENTS.get(field, Argument.ADDRESS),
        "value": int(fields[field], 16),
        "prot": int(fields.get("prot", "0"), 16),
        "km_type": int(fields.get("type", "-1")),
        "caller": caller.replace("/0x80", "").replace("/0x2", "") if arrow else None,
    }


@pytest.mark.parametrize("style", STYLES, ids=str)
@given(st.lists(st.tuples(states, events), min_size=1, max_size=12))
def test_what_was_written_is_read(style: Style, written: list[tuple[State, Event]]) -> None:
    data = recording(written, style)
    source = read_bytes(data)
    rows = rows_of(source)
    account_holds(source.account, data, len(rows))
    assert source.account.rejections == []
    wanted = [expected(s, e, style) for s, e in written if not isinstance(e, Noise)]
    assert [{key: row[key] for key in want} for row, want in zip(rows, wanted, strict=True)] == (
        wanted
    )
    slow = read_bytes(data, reader=SlowFtraceText)
    assert rows_of(slow) == rows
    assert slow.account == source.account


@pytest.mark.parametrize("style", [s for s in STYLES if s.program != "trace-cmd" and s.header])
def test_overwritten_events_are_counted(style: Style) -> None:
    call = Call("m_kmap_high", "kmap_high+0x0/0x1f0", (("page", "0xf6add488"),))
    source = read_bytes(recording([(State(), call)], style, overwritten=7))
    rows = rows_of(source)
    assert [(row["kind"], row["value"]) for row in rows] == [(Kind.LOST, 7), (Kind.MAP, 0xF6ADD488)]
    assert source.account.lost == 7
