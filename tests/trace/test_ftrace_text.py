from __future__ import annotations

from typing import Any

import pytest

from highmem.errors import InputError, UsageError
from highmem.trace import Probe, ProbeTable
from highmem.trace.lines import MAX_LINE
from highmem.trace.schema import (
    BATCH_LENGTH,
    FLAG_IRQS_OFF,
    FLAG_KNOWN,
    FLAG_MIGRATE_KNOWN,
    PREEMPT_SHIFT,
    Argument,
    Function,
    Kind,
)
from support.trace_reading import account_holds, read_bytes, rows_of

CAT = b"             cat-107     [003] .... 9.405284: "
GOOD = CAT + b"m_kmap_high: (kmap_high+0x0/0x1f0) page=0xf6add488 prot=0x1\n"


def only(data: bytes, **options: Any) -> dict[str, Any]:
    source = read_bytes(data, **options)
    rows = rows_of(source)
    account_holds(source.account, data, len(rows))
    assert len(rows) == 1
    assert source.account.rejected == 0
    return rows[0]


def reasons(data: bytes) -> list[tuple[int, str]]:
    source = read_bytes(data)
    account_holds(source.account, data, len(rows_of(source)))
    return [(rejection.line, rejection.reason) for rejection in source.account.rejections]


def test_every_column_of_a_map() -> None:
    assert only(GOOD) == {
        "line": 1,
        "time": 9_405_284_000,
        "cpu": 3,
        "pid": 107,
        "comm": "cat",
        "kind": Kind.MAP,
        "function": Function.KMAP_HIGH,
        "argument": Argument.PAGE,
        "flags": FLAG_KNOWN,
        "value": 0xF6ADD488,
        "prot": 1,
        "km_type": -1,
        "caller": None,
        "next_pid": -1,
        "next_comm": None,
        "state": None,
    }


def test_a_return_knows_its_caller() -> None:
    row = only(
        b" gzip-107 [003] d...1 9.405348: r_kmap_high: "
        b"(copy_strings+0xa5/0x2a0 <- kmap_high) vaddr=0xfec07000\n"
    )
    assert (row["kind"], row["argument"]) == (Kind.MAP_RETURN, Argument.ADDRESS)
    assert (row["value"], row["caller"]) == (0xFEC07000, "copy_strings+0xa5")
    assert row["flags"] == FLAG_KNOWN | FLAG_MIGRATE_KNOWN | FLAG_IRQS_OFF | 1 << 16


def test_a_switch_is_told_first_hand() -> None:
    row = only(
        b"           sleep-92      [000] d..2.     7.377156: sched_switch: prev_comm=init "
        b"prev_pid=92 prev_prio=120 prev_state=R+ ==> next_comm=rcu_preempt next_pid=15 "
        b"next_prio=120\n"
    )
    assert (row["kind"], row["pid"], row["comm"]) == (Kind.SWITCH, 92, "init")
    assert (row["next_pid"], row["next_comm"], row["state"]) == (15, "rcu_preempt", "R+")
    assert row["flags"] >> PREEMPT_SHIFT & 0xFF == 2


def test_overwritten_events_are_lost_at_the_start() -> None:
    data = b"# tracer: nop\n# entries-in-buffer/entries-written: 1/18   #P:4\n" + GOOD
    source = read_bytes(data)
    lost, event = rows_of(source)
    assert (lost["kind"], lost["line"], lost["cpu"], lost["value"]) == (Kind.LOST, 2, -1, 17)
    assert (lost["argument"], lost["pid"], lost["comm"]) == (Argument.COUNT, -1, None)
    assert event["line"] == 3
    assert source.account.lost == 17
    account_holds(source.account, data, 2)


def test_nothing_is_lost_where_all_is_there() -> None:
    source = read_bytes(b"# entries-in-buffer/entries-written: 1/1   #P:4\n" + GOOD)
    assert [row["kind"] for row in rows_of(source)] == [Kind.MAP]
    assert source.account.lost == 0


@pytest.mark.parametrize(
    ("line", "count", "counted"),
    [
        (b"CPU:2 [LOST 17 EVENTS]\n", 17, 17),
        (b"CPU:2 [LOST EVENTS]\n", 0, 1),
        (b"CPU:2 [17 EVENTS DROPPED]\r\n", 17, 17),
        (b"CPU:2 [EVENTS DROPPED]\n", 0, 1),
    ],
)
def test_losses_stand_where_they_happened(line: bytes, count: int, counted: int) -> None:
    source = read_bytes(GOOD + line + GOOD)
    rows = rows_of(source)
    assert [row["kind"] for row in rows] == [Kind.MAP, Kind.LOST, Kind.MAP]
    assert (rows[1]["cpu"], rows[1]["value"], rows[1]["line"]) == (2, count, 2)
    assert rows[1]["time"] == rows[0]["time"]
    assert source.account.lost == counted


def test_the_header_says_what_the_flags_are() -> None:
    header = (
        b"# tracer: nop\n#  _-----=> irqs-off\n# / _----=> need-resched\n"
        b"# | / _---=> hardirq/softirq\n# || / _--=> preempt-depth\n# ||| /     delay\n"
    )
    deep = GOOD.replace(b" .... ", b" ...12 ")
    assert rows_of(read_bytes(header + deep))[0]["flags"] == FLAG_KNOWN | 0x12 << PREEMPT_SHIFT
    five = header.replace(b"#\n", b"") + b"# |||| / _-=> migrate-disable\n"
    both = rows_of(read_bytes(header + deep + five + deep))
    flags = FLAG_KNOWN | FLAG_MIGRATE_KNOWN | 1 << PREEMPT_SHIFT | 2 << 16
    assert [row["flags"] for row in both] == [FLAG_KNOWN | 0x12 << PREEMPT_SHIFT, flags]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"# anything",
        b"##### CPU 2 buffer started ####",
        b"cpus=4",
        b"version = 7",
        b"CPU 1 is empty",
        b" => copy_strings",
        b" => copy_strings+0x12 (c1234567)",
        b" 0)   0.123 us    |  kmap_high();",
        b" ------------------------------------------",
        CAT + b"kmap_high <-copy_strings",
        CAT + b"zfs_map [zfs] <-zfs_read [zfs]",
        CAT + b"<stack trace>",
        CAT + b"function:             kmap_high <-- copy_strings",
        CAT + b"sched_wakeup: comm=x pid=1 prio=120 target_cpu=000",
        CAT + b"tracing_mark_write: cat-1 [000] .... 1.000000: u_kunmap_high: (x) page=0x1",
        CAT + b"r_kunmap_high: (copy_strings+0xa5/0x2a0 <- kunmap_high)",
    ],
)
def test_lines_of_no_interest_are_passed_over(line: bytes) -> None:
    data = GOOD + line + b"\n"
    source = read_bytes(data)
    assert len(rows_of(source)) == 1
    account_holds(source.account, data, 1)
    assert source.account.passed_over == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"nonsense", "no task, cpu and time"),
        (b"cat-107 [003] .... 9.40528: m_kmap_high: (x) page=0x1", "no task, cpu and time"),
        (b"cat-107 [003] .... 9405284: m_kmap_high: (x) page=0x1", "a bare count"),
        (b"a very long name-1 [003] .... 9.405284: m_kmap_high: (x) page=0x1", "no task"),
        (CAT + b"", "no event after its time"),
        (CAT + b"two words", "no event after its time"),
        (CAT + b"m_kmap_high: (kmap_high+0x0/0x1f0) page=(fault)", "page is not a number: (fault)"),
        (CAT + b"m_kmap_high: (kmap_high+0x0/0x1f0) page=0x1 page=0x2", "page is there twice"),
        (CAT + b"m_kmap_high: (kmap_high+0x0/0x1f0) page=0x12345678123456781", "not a number"),
        (CAT + b"m_kmap_high: (kmap_high+0x0/0x1f0) page=0x1 prot=x", "prot is not a number"),
        (CAT + b"m_kmap_atomic: (x) page=0x1 type=256", "no km_type: 256"),
        (CAT + b"m_kmap_high: (f+0x1/0x2 <- kmap_high) page=0x1", "stands for an entry"),
        (CAT + b"r_kmap_high: (kmap_high+0x0/0x1f0) vaddr=0x1", "stands for a return"),
        (CAT + b"sched_switch: prev_comm=cat", "cannot be told apart"),
        (
            CAT + b"sched_switch: prev_comm=cat prev_pid=108 prev_prio=1 prev_state=R ==> "
            b"next_comm=a next_pid=2 next_prio=3",
            "does not fit pid 107",
        ),
        (b"cat-4294967295 [003] .... 9.405284: m_kmap_high: (x) page=0x1", "no pid: 4294967295"),
        (b"x" * (MAX_LINE + 1), "longer than 65536 bytes"),
    ],
)
def test_lines_that_cannot_be_read_are_rejected_with_a_reason(line: bytes, reason: str) -> None:
    found = reasons(GOOD + line + b"\n" + GOOD)
    assert [number for number, _ in found] == [2]
    assert reason in found[0][1]


def test_a_line_of_the_greatest_length_is_still_read() -> None:
    line = GOOD.rstrip() + b" x=" + b"y" * MAX_LINE
    row = only(line[:MAX_LINE] + b"\n")
    assert row["value"] == 0xF6ADD488


def test_only_the_first_rejections_are_kept_and_all_are_counted() -> None:
    source = read_bytes(GOOD + b"\x1b[2Jbad\xff\n" * 500)
    rows_of(source)
    assert source.account.rejected == 500
    assert [r.line for r in source.account.rejections] == list(range(2, 12))
    assert source.account.rejections[0].text == r"\x1b[2Jbad\xff"


def test_the_kept_text_is_short() -> None:
    source = read_bytes(GOOD + b"\x1b" * 5000 + b"\n")
    rows_of(source)
    assert len(source.account.rejections[0].text) == 200


def test_a_last_line_without_its_end_is_not_trusted() -> None:
    cut = GOOD + GOOD[:-3]  # prot=0x1 became prot=0
    source = read_bytes(cut)
    assert len(rows_of(source)) == 1
    assert source.account.truncated
    assert source.account.rejections[0].reason == "the input ends inside this line"
    account_holds(source.account, cut, 1)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_carriage_returns_are_no_part_of_a_line(newline: bytes) -> None:
    assert only(GOOD.replace(b"\n", newline))["prot"] == 1


def test_nul_and_broken_utf8_in_a_name_are_shown_escaped() -> None:
    assert only(b" a\0\xff\x1bz-1 [000] 1.000000: m_kmap_high: (x) page=0x1\n")["comm"] == (
        r"a\x00\xff\x1bz"
    )


@pytest.mark.parametrize(
    ("fields", "argument", "value", "prot", "km_type"),
    [
        (b"page=0xf6add488", Argument.PAGE, 0xF6ADD488, 0, -1),
        (b"page=f6add488 prot=163", Argument.PAGE, 0xF6ADD488, 163, -1),
        (b"prot=0x163 page=0xf6add488", Argument.PAGE, 0xF6ADD488, 0x163, -1),
        (b"pfn=224254", Argument.PFN, 224254, 0, -1),
        (b"pfn=0x36bfe prot=0x8000000000000163", Argument.PFN, 0x36BFE, 0x8000000000000163, -1),
        (b"page=0x1 type=3", Argument.PAGE, 1, 0, 3),
        (b'comm="x page" page=0x1', Argument.PAGE, 1, 0, -1),
        (b"a={0x1 page=0x2} page=0x1", Argument.PAGE, 1, 0, -1),
        (b"page=4143830152", Argument.PAGE, 4143830152, 0, -1),
    ],
)
def test_fields(fields: bytes, argument: Argument, value: int, prot: int, km_type: int) -> None:
    for place in (b"(kmap_atomic+0x0/0x1f0) ", b"(c1234567)   ", b""):
        row = only(CAT + b"m_kmap_atomic:   " + place + fields + b"\n")
        assert (row["argument"], row["value"]) == (argument, value)
        assert (row["prot"], row["km_type"]) == (prot, km_type)


def test_probes_without_their_argument_are_events_and_noted_once() -> None:
    line = CAT + b"p_kmap_high_0: (kmap_high+0x0/0x1f0)\n"
    source = read_bytes(line * 3)
    rows = rows_of(source)
    assert [(row["kind"], row["argument"]) for row in rows] == [(Kind.MAP, Argument.NONE)] * 3
    assert len(source.account.notes) == 1
    assert "p_kmap_high_0 has none of the fields page, pfn" in source.account.notes[0]


def test_a_flush_has_no_argument() -> None:
    row = only(CAT + b"kmap_flush_unused: (kmap_flush_unused+0x0/0x80) arg1=0x5\n")
    assert (row["kind"], row["argument"], row["value"]) == (Kind.FLUSH, Argument.NONE, 0)


def test_given_probes_replace_the_usual_ones() -> None:
    probes = ProbeTable(
        {"mine": Probe(Function.KUNMAP, Kind.UNMAP, {"arg1": Argument.PAGE}, base=16)}
    )
    row = only(CAT + b"mine: (x) arg1=12345678901\n", probes=probes)
    assert (row["function"], row["value"]) == (Function.KUNMAP, 0x12345678901)
    assert rows_of(read_bytes(GOOD, probes=probes)) == []


def test_the_latency_format_counts_microseconds() -> None:
    row = only(
        b"    bash-1994    2d..1.   17us+: m_kmap_high: (kmap_high+0x0/0x1f0) page=0x1 prot=0x1\n"
    )
    assert (row["time"], row["cpu"], row["pid"], row["comm"]) == (17_000, 2, 1994, "bash")


def test_nanoseconds_are_kept() -> None:
    assert only(GOOD.replace(b"9.405284", b"9.405284321"))["time"] == 9_405_284_321
    data = GOOD + GOOD.replace(b"9.405284", b"9.405284321")
    assert [row["time"] for row in rows_of(read_bytes(data))] == [9_405_284_000, 9_405_284_321]


def test_a_text_of_something_else_is_an_error_of_one_line() -> None:
    source = read_bytes(b"[    7.646096] kmapbug 6\n" * 3)
    with pytest.raises(InputError, match="not ftrace text, no line of it could be read") as error:
        list(source)
    assert "\n" not in str(error.value)
    assert source.account.rejected == source.account.lines == 3


def test_comments_make_no_recording_of_a_text_of_something_else() -> None:
    with pytest.raises(InputError, match="not ftrace text, no line of it could be read"):
        list(read_bytes(b"# A page\n\nSome words.\n## More\nMore words.\n"))


@pytest.mark.parametrize(
    "header",
    [
        b"# tracer: nop\n",
        b"#                                _-----=> irqs-off\n",
        b"#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n",
    ],
)
def test_a_header_of_ftrace_says_what_a_text_is(header: bytes) -> None:
    source = read_bytes(header + b"no such line\n")
    assert sum(map(len, source)) == 0
    assert source.account.rejected == 1


def test_a_recording_can_be_read_once() -> None:
    source = read_bytes(GOOD)
    list(source)
    with pytest.raises(UsageError, match="only once"):
        list(source)


def test_batches_are_bounded_and_in_order() -> None:
    source = read_bytes(GOOD * 40_000)
    batches = list(source)
    assert max(map(len, batches)) < BATCH_LENGTH + 2_000
    assert [n for batch in batches for n in batch.line.tolist()] == list(range(1, 40_001))


def test_a_recording_in_which_nothing_repeats_is_read_right() -> None:
    # More than any table keeps, and then all of it once more.
    numbers = [*range(1, 25_001), *range(1, 25_001)]
    lines = [
        b" t-%d [003] .... 9.405284: r_kmap_high: (f%d+0x1/0x2 <- kmap_high) vaddr=0x%x\n"
        % (n, n, n)
        for n in numbers
    ]
    rows = rows_of(read_bytes(b"".join(lines)))
    assert [row["pid"] for row in rows] == numbers
    assert [row["value"] for row in rows] == numbers
    assert [row["caller"] for row in rows] == [f"f{n}+0x1" for n in numbers]


def test_switches_in_which_nothing_repeats_are_read_right() -> None:
    numbers = [*range(1, 25_001), *range(1, 25_001)]
    lines = [
        b" t-1 [003] .... 9.405284: sched_switch: prev_comm=t prev_pid=1 prev_prio=120 "
        b"prev_state=S ==> next_comm=t%d next_pid=%d next_prio=120\n" % (n, n)
        for n in numbers
    ]
    rows = rows_of(read_bytes(b"".join(lines)))
    assert [row["next_pid"] for row in rows] == numbers
    assert [row["next_comm"] for row in rows] == [f"t{n}" for n in numbers]
