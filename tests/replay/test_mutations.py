"""Real recordings, damaged as recordings get damaged: whatever is missing, nobody is accused.

And damaged as no recording gets damaged: what contradicts the kernel is told.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from highmem.kernel.profile import load_profile
from highmem.replay.verdict import Verdict
from support.recordings import body_of, header_of, judge, real_findings, rule_names, sample

SLICE = 2500
SAMPLES = {
    "linux-5.10-686": "debian-5.10-686",
    "linux-6.1-686": "debian-6.1-686",
    "misuse/linux-6.1-686.clean": "debian-6.1-686",
}
every_sample = pytest.mark.parametrize("name", SAMPLES)
FEW = settings(max_examples=12, deadline=None, phases=[Phase.generate])
starts = st.integers(0, 400_000)


def piece(name: str, start: int, length: int = SLICE) -> list[bytes]:
    body = body_of(sample(name))
    start %= max(1, len(body) - length)
    return body[start : start + length]


def verdict_of(name: str, lines: list[bytes]) -> Verdict:
    return judge(header_of(sample(name)) + lines, load_profile(SAMPLES[name]))


def accuses_nobody(name: str, lines: list[bytes]) -> Verdict:
    verdict = verdict_of(name, lines)
    assert rule_names(verdict) == [], [(f.rule.name, f.what) for f in verdict.findings]
    assert verdict.wrong == 0
    judged = verdict.right + verdict.unjudged
    assert judged == sum(b" r_" in line for line in lines)
    return verdict


def cpu_of(line: bytes) -> bytes:
    found = re.search(rb"\[(\d{3})\]", line)
    assert found is not None
    return found[1]


# Cut.


@every_sample
@pytest.mark.parametrize("where", ["begin", "end"])
def test_cut_at_every_few_lines(name: str, where: str) -> None:
    lines = piece(name, 0, 700)
    for cut in range(0, 700, 19):
        accuses_nobody(name, lines[cut:] if where == "begin" else lines[: len(lines) - cut])


@every_sample
@FEW
@given(start=starts, first=st.integers(0, SLICE), last=st.integers(0, SLICE))
def test_cut_at_both_ends(name: str, start: int, first: int, last: int) -> None:
    accuses_nobody(name, piece(name, start)[min(first, last) : max(first, last)])


# Missing events.


@every_sample
@FEW
@given(start=starts, every=st.integers(2, 60), offset=st.integers(0, 59))
def test_every_nth_return_missing(name: str, start: int, every: int, offset: int) -> None:
    kept, seen = [], 0
    for line in piece(name, start):
        seen += b" r_" in line
        if b" r_" not in line or seen % every != offset % every:
            kept.append(line)
    accuses_nobody(name, kept)


@every_sample
@pytest.mark.parametrize("letter", ["m", "r"])
@pytest.mark.parametrize(
    "symbol", ["kmap_atomic_high_prot", "__kmap_local_page_prot", "__kmap_local_pfn_prot"]
)
def test_a_function_without_that_probe(name: str, letter: str, symbol: str) -> None:
    for start in (0, 1234, 100_000, 250_000):
        event = f" {letter}_{symbol}:".encode()
        accuses_nobody(name, [line for line in piece(name, start) if event not in line])


@every_sample
def test_no_unmap_probe_at_all(name: str) -> None:
    lines = [line for line in piece(name, 1000) if b" u_" not in line]
    verdict = verdict_of(name, lines)
    # Without a single unmap nothing can be called leaked, deep or moved.
    assert rule_names(verdict) == [] and verdict.wrong == 0


# Losses that the recording tells.


@every_sample
@FEW
@given(
    start=starts,
    losses=st.lists(
        st.tuples(st.integers(0, SLICE - 1), st.integers(1, 80), st.booleans()), max_size=5
    ),
)
def test_lost_events(name: str, start: int, losses: list[tuple[int, int, bool]]) -> None:
    lines = piece(name, start)
    for at, count, told in losses:
        at %= len(lines)
        if lines[at].startswith(b"CPU:"):
            continue
        cpu = cpu_of(lines[at])
        mine = [n for n in range(at, len(lines)) if b"[" + cpu + b"]" in lines[n]][:count]
        number = b"%d " % len(mine) if told else b""
        gone = set(mine)
        lines = [line for n, line in enumerate(lines) if n not in gone]
        lines.insert(at, b"CPU:%d [LOST %bEVENTS]\n" % (int(cpu), number))
    verdict = accuses_nobody(name, lines)
    told_of = any(line.startswith(b"CPU:") for line in lines)
    assert verdict.exit_code == (3 if told_of else 0)
    assert [f.rule.name for f in verdict.findings] == (["lost-events"] if told_of else [])


@every_sample
@FEW
@given(start=starts, at=st.lists(st.integers(0, SLICE), max_size=9), cpu=st.integers(0, 1))
def test_a_loss_told_where_nothing_is_missing(
    name: str, start: int, at: list[int], cpu: int
) -> None:
    lines = piece(name, start)
    for place in at:
        lines.insert(place % len(lines), b"CPU:%d [LOST EVENTS]\n" % cpu)
    accuses_nobody(name, lines)


def test_an_overwritten_buffer_is_a_loss_before_the_first_event() -> None:
    name = "linux-5.10-686"
    head = [b"# entries-in-buffer/entries-written: 3000/9000   #P:4\n"]
    verdict = accuses_nobody(name, head + piece(name, 5000))
    assert verdict.account.lost == 6000 and verdict.exit_code == 3


# What no kernel does.


def nested_pair(lines: list[bytes], after: int) -> tuple[int, int]:
    """Two unmaps of one task with nothing of it between them, inner window first."""
    last: dict[bytes, int] = {}
    for n in range(after, len(lines)):
        task = lines[n].partition(b"]")[0]
        before = last.get(task)
        last[task] = n
        if before is not None and b" u_" in lines[before] and b" u_" in lines[n]:
            inner, outer = (
                int(lines[at].rpartition(b"vaddr=0x")[2], 16) & ~0xFFF for at in (before, n)
            )
            if outer == inner + 0x1000 and inner >= 0xFF000000:
                return before, n
    raise AssertionError("no nested pair")


@pytest.mark.parametrize("name", ["linux-5.10-686", "linux-6.1-686"])
@pytest.mark.parametrize("after", [5_000, 50_000, 200_000])
def test_two_nested_unmaps_swapped_are_found(name: str, after: int) -> None:
    body = body_of(sample(name))
    start = nested_pair(body, after)[0] - 600
    lines = body[start : start + 1500]
    first, second = nested_pair(lines, 600)
    prefix = [line.partition(b" u_")[0] for line in (lines[first], lines[second])]
    calls = [line.partition(b" u_")[2] for line in (lines[first], lines[second])]
    lines[first] = prefix[0] + b" u_" + calls[1]
    lines[second] = prefix[1] + b" u_" + calls[0]
    verdict = verdict_of(name, lines)
    (found,) = real_findings(verdict)
    assert found.rule.name == "unmap-order"
    assert found.where.line == len(header_of(sample(name))) + first + 1
    assert verdict.wrong == 0


@every_sample
@FEW
@given(start=starts, at=st.integers(500, SLICE - 1))
def test_a_second_unmap_that_the_kernel_does_not_confirm(name: str, start: int, at: int) -> None:
    # The addresses that follow are those of a kernel that never saw it.
    lines = piece(name, start)
    unmaps = [n for n in range(at, len(lines)) if b" u_k" in lines[n] and b"vaddr=0xff" in lines[n]]
    if unmaps:
        lines.insert(unmaps[0] + 1, lines[unmaps[0]])
        verdict = verdict_of(name, lines)
        certain = [f for f in real_findings(verdict) if f.confidence.value == "certain"]
        assert certain == [], [(f.rule.name, f.what) for f in certain]


@pytest.mark.parametrize("name", ["linux-5.10-686", "linux-6.1-686"])
@pytest.mark.parametrize("after", [700, 1100, 2000])
def test_one_other_address_is_a_window_moved(name: str, after: int) -> None:
    lines = piece(name, 20_000)
    last = b"r___kmap_local_page_prot" if "6.1" in name else b"r_kmap_atomic_high_prot"
    at = next(n for n in range(after, SLICE) if last in lines[n] and b"=0xff" in lines[n])
    head, _, address = lines[at].rpartition(b"vaddr=")
    moved = int(address, 16) - 0x5000
    lines[at] = head + b"vaddr=%#x\n" % moved
    verdict = verdict_of(name, lines)
    assert verdict.wrong == 1
    found = next(f for f in verdict.findings if f.rule.name == "window-moved")
    assert found.where.line == len(header_of(sample(name))) + at + 1
    assert f"{moved:#x}" in found.what
    assert {f.rule.name for f in verdict.findings} == {"window-moved"}


@pytest.mark.parametrize("after", [700, 1100, 2000])
def test_the_page_in_place_of_the_address(after: int) -> None:
    name = "linux-5.10-686"
    lines = piece(name, 20_000)
    for at in range(after, SLICE - 3):
        some = lines[at : at + 3]
        kinds = [line.partition(b": ")[2].split()[0][:2] for line in some]
        if kinds == [b"m_", b"r_", b"u_"] and len({cpu_of(line) for line in some}) == 1:
            break
    page = re.search(rb"page=(0x[0-9a-f]+)", lines[at])
    assert page is not None
    head, _, _ = lines[at + 2].rpartition(b"vaddr=")
    lines[at + 2] = head + b"vaddr=" + page[1] + b"\n"
    verdict = verdict_of(name, lines)
    names = rule_names(verdict)
    found = verdict.findings[names.index("page-not-address")]
    assert found.where.line == len(header_of(sample(name))) + at + 3
    assert page[1].decode() in found.what
    # The kernel that was recorded did unmap, so what follows contradicts: one move at most.
    assert set(names) <= {"page-not-address", "window-moved"} and names.count("window-moved") <= 1
