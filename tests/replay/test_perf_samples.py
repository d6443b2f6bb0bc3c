"""Recordings that perf made on real kernels (samples/perf).

Expected: what grep finds in their text, what their headers say, and what another perf printed
of the same perf.data.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from highmem.replay import replay
from highmem.replay.verdict import Verdict
from highmem.trace import read_trace
from highmem.trace.schema import Kind
from highmem.trace.source import open_source
from support.recordings import SAMPLES
from support.trace_reading import rows_of

PERF = SAMPLES / "perf"
# profile, findings
RECORDINGS: dict[str, tuple[str, list[str]]] = {
    "5.10-686": ("debian-5.10-686", []),
    "5.10-686.lost": ("debian-5.10-686", ["lost-events"]),
    "5.10-686.twice": ("debian-5.10-686", []),
    "6.1-686.ns": ("debian-6.1-686", []),
    "6.1-686.callers": ("debian-6.1-686", []),
}
_EVENT = re.compile(r".*\[(\d+)\] +([\d.]+): +(?:probe|sched):(\w+): .*")
_FIRST = re.compile(r"# time of first sample : (\d+)\.(\d{6})")


def text(name: str) -> list[str]:
    return b"".join(open_source(PERF / f"{name}.txt.zst")).decode().splitlines()


def events(name: str) -> list[tuple[str, str, str, str]]:
    """CPU, time, name and line of each, those that are there twice once."""
    found: list[tuple[str, str, str, str]] = []
    latest: dict[str, str] = {}
    for line in text(name):
        match = _EVENT.fullmatch(line)
        if match is not None and latest.get(match[1]) != line:
            latest[match[1]] = line
            found.append((match[1], match[2], match[3], line))
    return found


def verdict_of(name: str) -> Verdict:
    return replay(read_trace(PERF / f"{name}.txt.zst"))


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_line_is_read_and_every_address_is_right(name: str) -> None:
    profile, findings = RECORDINGS[name]
    verdict, lines = verdict_of(name), text(name)
    account, names = verdict.account, Counter(event for _, _, event, _ in events(name))
    lost = [int(line.split()[-1]) for line in lines if "PERF_RECORD_LOST " in line]
    assert account.rejected == 0
    assert account.lines == len(lines) == account.events + account.passed_over
    assert account.events == names.total() + len(lost)
    assert account.lost == sum(lost)
    assert verdict.profile.name == profile
    assert verdict.wrong == 0
    returns = sum(count for event, count in names.items() if event.endswith("__return"))
    assert verdict.right + verdict.unjudged == returns
    # The first complete call of each CPU, of each kind, and those around the losses.
    assert verdict.unjudged <= 4 + 2 * len(lost)
    assert [finding.rule.name for finding in verdict.findings] == findings
    assert account.release == f"{'5.10.0-32' if name.startswith('5') else '6.1.0-50'}-686"


@pytest.mark.parametrize("name", sorted(RECORDINGS.keys() - {"5.10-686.twice"}))  # its: a clock's
def test_the_first_time_is_the_header_s(name: str) -> None:
    said = next(found for line in text(name) if (found := _FIRST.match(line)))
    first = rows_of(read_trace(PERF / f"{name}.txt.zst"))[0]
    assert first["time"] // 1000 == int(said[1] + said[2])


def test_the_times_are_those_that_a_perf_of_64_bits_prints() -> None:
    rows = rows_of(read_trace(PERF / "6.1-686.ns.txt.zst"))
    # perf 6.1 for amd64, of the same perf.data; this text is that of perf 6.1 for i386.
    assert [rows[at]["time"] for at in (0, 999, 1549, 2399)] == [
        10_443_396_022,
        10_467_028_642,
        10_487_858_567,
        10_505_583_597,
    ]
    assert "10.9033330614" in text("6.1-686.ns")[35]


def test_a_task_that_was_reaped_has_its_number() -> None:
    rows = rows_of(read_trace(PERF / "6.1-686.ns.txt.zst"))
    gone = [line for line in text("6.1-686.ns") if line.lstrip().startswith(":-1 ")]
    ended = [r for r in rows if r["kind"] == Kind.SWITCH and r["state"] == "X"]
    assert len(gone) == len(ended) == 1
    assert f"prev_pid={ended[0]['pid']} " in gone[0]


def test_events_that_perf_wrote_twice_are_taken_once() -> None:
    lines = [line for line in text("5.10-686.twice") if _EVENT.fullmatch(line)]
    twice = len(lines) - len(events("5.10-686.twice"))
    assert twice == 5
    account = verdict_of("5.10-686.twice").account
    assert account.notes[-1].startswith("5 events were in it twice")


def test_callers_are_named_where_the_recording_names_them() -> None:
    rows = rows_of(read_trace(PERF / "6.1-686.callers.txt.zst"))
    named = Counter(row["caller"] for row in rows if row["kind"] == Kind.MAP_RETURN)
    expected = Counter(
        line.split()[-1]
        for line in text("6.1-686.callers")
        if re.search(r"__return: .*vaddr=", line)
    )
    assert named == expected
    assert "__kmap_local_page_prot+0x3d" in named
