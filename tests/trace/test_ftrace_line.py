from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.trace import ftrace_line as grammar
from highmem.trace.ftrace_line import Switch, caller_of, flag_bits, number, prefix_of, switches
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_IRQS_OFF,
    FLAG_KNOWN,
    FLAG_MIGRATE_KNOWN,
    FLAG_NEED_RESCHED,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    MIGRATE_SHIFT,
    PREEMPT_SHIFT,
    SYMBOLS,
    Function,
    Kind,
)

FIVE = FLAG_KNOWN | FLAG_MIGRATE_KNOWN


@pytest.mark.parametrize(
    ("text", "layout", "bits"),
    [
        (b"....", (), FLAG_KNOWN),
        (b"d...", (), FLAG_KNOWN | FLAG_IRQS_OFF),
        (b"dNh1", (), FLAG_KNOWN | FLAG_IRQS_OFF | FLAG_NEED_RESCHED | FLAG_HARDIRQ | 1 << 8),
        (b"..s.", (), FLAG_KNOWN | FLAG_SOFTIRQ),
        (b"..H.", (), FLAG_KNOWN | FLAG_SOFTIRQ | FLAG_HARDIRQ),
        (b"..z.", (), FLAG_KNOWN | FLAG_NMI),
        (b"..Z.", (), FLAG_KNOWN | FLAG_NMI | FLAG_HARDIRQ),
        (b".....", (), FIVE),
        (b"...f2", (), FIVE | 15 << PREEMPT_SHIFT | 2 << MIGRATE_SHIFT),
        (b"D.s..", (), FIVE | FLAG_IRQS_OFF | FLAG_SOFTIRQ),
        (b"b.s..", (), FIVE | FLAG_SOFTIRQ),
        (b"...12", grammar.FOUR_FLAGS, FLAG_KNOWN | 0x12 << PREEMPT_SHIFT),
        (b"....", grammar.FIVE_FLAGS, 0),
        (b"d..1.", (*grammar.FOUR_FLAGS, "lock-depth"), FLAG_KNOWN | FLAG_IRQS_OFF | 1 << 8),
        (
            b"d.n.213",
            (
                "irqs-off",
                "need-resched",
                "need-resched-lazy",
                "hardirq",
                "preempt-depth",
                "preempt-lazy-depth",
                "migrate-disable",
            ),
            FIVE | FLAG_IRQS_OFF | 2 << PREEMPT_SHIFT | 3 << MIGRATE_SHIFT,
        ),
        (b"...+", (), 0),
        (b"........", (), 0),
    ],
)
def test_flags(text: bytes, layout: tuple[str, ...], bits: int) -> None:
    assert flag_bits(text, layout) == bits


@pytest.mark.parametrize(
    ("text", "base", "wide", "value"),
    [
        (b"0xfff93000", 0, True, 0xFFF93000),
        (b"0XFFF93000", 0, True, 0xFFF93000),
        (b"fff93000", 0, True, 0xFFF93000),
        (b"c1234567", 0, True, 0xC1234567),
        (b"4294520832", 0, True, 4294520832),  # a u32 printed as decimal
        (b"-446464", 0, True, (1 << 32) - 446464),  # an s32 printed as decimal
        (b"80001000", 0, True, 0x80001000),
        (b"224254", 0, False, 224254),
        (b"36bfe", 0, False, 0x36BFE),
        (b"224254", 16, False, 0x224254),
        (b"0x163", 10, False, 0x163),
        (b"163", 10, True, 163),
        (b"0", 0, True, 0),
        (b"0x0", 0, False, 0),
        (b"18446744073709551615", 0, True, 2**64 - 1),
        (b"18446744073709551616", 0, True, None),
        (b"0xffffffffffffffff", 0, True, 2**64 - 1),
        (b"0x1ffffffffffffffff", 0, True, None),
        (b"36bfe", 10, False, None),
        (b"(fault)", 0, True, None),
        (b"", 0, True, None),
        (b"0x", 0, True, None),
        (b"1_0", 0, False, None),
        (b"-0x1", 0, True, None),
        (b"-0", 0, True, None),
        (b"-4294967296", 0, True, None),
        (b"+1", 0, False, None),
        (b" 1", 0, False, None),
    ],
)
def test_numbers(text: bytes, base: int, wide: bool, value: int | None) -> None:
    assert number(text, base, wide) == value


@given(st.binary(max_size=24), st.sampled_from([0, 10, 16]), st.booleans())
def test_no_text_is_a_number_outside_64_bits(text: bytes, base: int, wide: bool) -> None:
    value = number(text, base, wide)
    assert value is None or 0 <= value < 1 << 64


@pytest.mark.parametrize(
    ("place", "kind", "caller"),
    [
        # trace-cmd and perf, which follow the format's (REC->__probe_func <- REC->__probe_ret_ip):
        (b"kmap_high <- copy_strings+0xa5/0x2a0", Kind.MAP_RETURN, b"copy_strings+0xa5"),
        (b"kmap_high+0x0/0x1f0 <- copy_strings+0xa5", Kind.MAP_RETURN, b"copy_strings+0xa5"),
        (b"kmap_high+0x4/0x1f0 <- zfs_read+0x1 [zfs]", Kind.MAP_RETURN, b"zfs_read+0x1 [zfs]"),
        (b"kmap_high <- c10abc12", Kind.MAP_RETURN, b"c10abc12"),
        (b"c10def34 <- c10abc12", Kind.MAP_RETURN, b"c10abc12"),
        # The kernel's own text has 0x before an address without a name:
        (b"0xc10abc12 <- 0xc10def34", Kind.MAP_RETURN, b"0xc10abc12"),
        (b"added+0x1/0x2 <- deadbeef", Kind.MAP_RETURN, b"added+0x1"),
        # Neither side is the function, or both are:
        (b"f+0x1/0x2 <- g", Kind.MAP_RETURN, b"f+0x1"),
        (b"kmap_high.part.0+0x1/0x2 <- kmap_high", Kind.MAP_RETURN, b"kmap_high.part.0+0x1"),
        (b"kmap_high_get+0x1/0x2 <- kmap_high", Kind.MAP_RETURN, b"kmap_high_get+0x1"),
        (b"kmap+0x1/0x2 <- kmap_high", Kind.MAP_RETURN, b"kmap+0x1"),
        (b"copy_strings+0xa5/0x2a0 <- kmap_high", Kind.MAP_RETURN, b"copy_strings+0xa5"),
        (b"zfs_read+0x12/0x40 [zfs] <- kmap_high", Kind.MAP_RETURN, b"zfs_read+0x12 [zfs]"),
        (b"kmap_high+0x0/0x1f0", Kind.MAP, b""),
        (b"c10def34", Kind.UNMAP, b""),
        (b"kmap_high+0x0/0x1f0", Kind.MAP_RETURN, None),
        (b"copy_strings+0xa5/0x2a0 <- kmap_high", Kind.MAP, None),
    ],
)
def test_callers(place: bytes, kind: Kind, caller: bytes | None) -> None:
    assert caller_of(place, kind, Function.KMAP_HIGH) == caller


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_either_order_names_the_same_caller_of_every_symbol(symbol: str) -> None:
    function, name = SYMBOLS[symbol], symbol.encode()
    for place in (b"f+0x1f/0x80 <- " + name, name + b" <- f+0x1f/0x80"):
        assert caller_of(place, Kind.MAP_RETURN, function) == b"f+0x1f"


def test_another_symbol_of_the_same_function_is_no_caller_to_be_turned() -> None:
    place = b"__kmap_atomic+0x5/0x40 <- kmap_atomic"
    assert caller_of(place, Kind.MAP_RETURN, Function.KMAP_ATOMIC) == b"__kmap_atomic+0x5"


LINES = [
    (b"             cat-107   [003] .... 9.405284: x: y", (b"cat", 107, 3, b"....")),
    (b"           <...>-9     [012] 9.405284: x: y", (b"<...>", 9, 12, b"")),
    (b"          <idle>-0     [000] d.h1. 9.405284: x: y", (b"<idle>", 0, 0, b"d.h1.")),
    (b"     a b-1 [2] -77     [001] ....1 9.405284: x: y", (b"a b-1 [2] ", 77, 1, b"....1")),
    (b"                -5     [001] .... 9.405284: x: y", (b"", 5, 1, b"....")),
    (b"   kworker/0:1-22 (-----) [000] .... 9.405284: x: y", (b"kworker/0:1", 22, 0, b"....")),
    (b"   kworker/0:1-22 (    9) [000] 9.405284: x: y", (b"kworker/0:1", 22, 0, b"")),
    # All that fits into 15 bytes of what a line has between comm and event:
    (b" -1 [0] 1.00000-9 [001] .... 9.405284: x: y", (b"-1 [0] 1.00000", 9, 1, b"....")),
    (b" a-1 0.... 0us: -9 [001] .... 9.405284: x: y", (b"a-1 0.... 0us: ", 9, 1, b"....")),
    (b" a-1 [000] d..1 -9 [001] .... 9.405284: x: y", (b"a-1 [000] d..1 ", 9, 1, b"....")),
]


@pytest.mark.parametrize(("line", "prefix"), LINES)
def test_prefixes(line: bytes, prefix: tuple[bytes, int, int, bytes]) -> None:
    match = grammar.LINE.fullmatch(line)
    assert match is not None
    assert prefix_of(match[1]) == prefix
    assert match[6] == b"x: y"


def test_a_line_that_quotes_another_is_itself() -> None:
    quoted = b"cat-1 [000] .... 1.000000: u_kunmap_high: (x) page=0x1"
    match = grammar.LINE.fullmatch(b" sh-2 [001] .... 9.405284: tracing_mark_write: " + quoted)
    assert match is not None
    assert prefix_of(match[1]).pid == 2


def test_the_latency_format() -> None:
    match = grammar.LATENCY_LINE.fullmatch(b"kworker/-22      3d.h1.   17us!: x: y")
    assert match is not None
    assert prefix_of(match[1]) == (b"kworker/", 22, 3, b"d.h1.")
    assert match.groups()[1:] == (None, None, None, b"17", b"x: y")


def test_the_latency_format_has_names_of_eight_bytes() -> None:
    line = b"kworker/0-22      3d.h1.   17us!: x: y"
    assert grammar.LATENCY_LINE.fullmatch(line) is None


def test_the_kernels_switch() -> None:
    fields = (
        b" prev_comm=a ==> b prev_pid=9 prev_prio=120 prev_state=R+ ==> "
        b"next_comm= prev_pid=1 x next_pid=27 next_prio=-1"
    )
    assert switches(fields) == [Switch(b"a ==> b", 9, b"R+", b" prev_pid=1 x", 27)]


def test_the_switch_of_trace_cmd() -> None:
    assert switches(b"         kworker/1:1:27 [120] S ==> swapper/1:0 [120]") == [
        Switch(b"kworker/1:1", 27, b"S", b"swapper/1", 0)
    ]


def test_a_switch_of_trace_cmd_with_two_readings_gives_both() -> None:
    # Its task called itself ":1 [1] R ==> ".
    found = switches(b" :1 [1] R ==> :5 [9] S ==> x:7 [9]")
    assert {(s.prev_comm, s.prev_pid, s.next_pid) for s in found} == {
        (b":1 [1] R ==> ", 5, 7),
        (b"", 1, 7),
    }


COMM = re.compile(rb"[^\0\n]{0,15}", re.DOTALL)


@given(
    st.from_regex(COMM, fullmatch=True),
    st.from_regex(COMM, fullmatch=True),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from([b"R", b"R+", b"D|K"]),
)
def test_any_two_names_can_be_told_apart(
    prev: bytes, following: bytes, prev_pid: int, next_pid: int, state: bytes
) -> None:
    fields = (
        b" prev_comm=%b prev_pid=%d prev_prio=120 prev_state=%b ==> "
        b"next_comm=%b next_pid=%d next_prio=98" % (prev, prev_pid, state, following, next_pid)
    )
    assert switches(fields) == [Switch(prev, prev_pid, state, following, next_pid)]


def test_losses_of_both_programs() -> None:
    def loss(text: bytes) -> tuple[bytes | None, ...] | None:
        match = grammar.LOSS.fullmatch(text)
        return match.groups() if match else None

    assert loss(b"CPU:2 [LOST 17 EVENTS]") == (b"2", b"17", None)
    assert loss(b"CPU:2 [LOST EVENTS]") == (b"2", None, None)
    assert loss(b"CPU:10 [17 EVENTS DROPPED]") == (b"10", None, b"17")
    assert loss(b"CPU:10 [EVENTS DROPPED]") == (b"10", None, None)
    assert loss(b"CPU:10 [EVENTS]") is None
