"""Property: programs that use windows properly give no finding and no wrong prediction, and one
misuse among them gives exactly its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from highmem.findings import Level
from highmem.kernel.profile import Era, make_profile
from highmem.replay.verdict import Verdict
from support.ftrace_writer import STYLES, Event, State, Style
from support.programs import STEPS, Programs, Step
from support.recordings import Recorder, rule_names

FAMILIES = ("T10", "S0", "S1", "S2", "S3", "S4", "L0", "L1")
# Without shrinking: a failing program is short enough, and a minute is not.
FEW = settings(max_examples=12, deadline=None, phases=[Phase.generate])

# What a recording cannot show at its start: the first call's two returns, the first low page's
# two, and a permanent window that may have been there before.
HEAD = {
    "before the first complete call, or after a loss": 2,
    "the first page in low memory": 2,
    "permanent windows from before the recording": 1,
}


def check_clean(verdict: Verdict) -> None:
    assert rule_names(verdict) == [], [(f.rule.name, f.what) for f in verdict.findings]
    assert verdict.wrong == 0
    for reason, count in verdict.not_judged.items():
        assert count <= HEAD[reason], verdict.not_judged
    assert verdict.exit_code == 0
    assert not verdict.account.rejected


@pytest.mark.parametrize("pae", [False, True])
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(steps=STEPS, outer=st.booleans())
def test_a_well_behaved_program_is_clean(
    family: str, pae: bool, debug: bool, steps: list[Step], outer: bool
) -> None:
    profile = make_profile(family, nr_cpus=4, pae=pae, nx=pae, debug_highmem=debug)
    rec = Recorder(profile, cpus=3, outer=outer)
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(steps)
    program.unwind()
    verdict = rec.verdict()
    check_clean(verdict)
    assert verdict.held == []
    assert verdict.permanent.in_use_at_end == 0


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(steps=STEPS, style=st.sampled_from(STYLES))
def test_the_layout_of_the_recording_changes_nothing(
    family: str, steps: list[Step], style: Style
) -> None:
    # Without probes around the inner function the call of another one shows nothing inside.
    rec = Recorder(make_profile(family, nr_cpus=4), cpus=3, style=style, outer=family != "T10")
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(steps)
    program.unwind()
    check_clean(rec.verdict())


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(steps=STEPS)
def test_without_sched_switch_it_is_clean_as_well(family: str, steps: list[Step]) -> None:
    rec = Recorder(make_profile(family, nr_cpus=4), cpus=3, switches=False)
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(steps)
    program.unwind()
    verdict = rec.verdict()
    assert rule_names(verdict) == [] and verdict.wrong == 0


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(steps=STEPS)
def test_a_recording_that_stops_in_the_middle_is_clean(family: str, steps: list[Step]) -> None:
    rec = Recorder(make_profile(family, nr_cpus=4), cpus=3)
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(steps)
    held = sum(map(len, program.held.values()))
    verdict = rec.verdict()
    assert rule_names(verdict) == [] and verdict.wrong == 0
    unknown = verdict.unknown.get("windows opened after the last unmap event", 0)
    # Low pages take no window, so the program may hold more than there are windows.
    assert len(verdict.held) + unknown <= held


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(data=st.data(), steps=STEPS)
def test_cut_or_holed_recordings_never_accuse(
    family: str, data: st.DataObject, steps: list[Step]
) -> None:
    rec = Recorder(make_profile(family, nr_cpus=4), cpus=3)
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(steps)
    program.unwind()
    rec.go_on((0, 1, 2))
    events = rec.events
    first = data.draw(st.integers(0, len(events)), label="first")
    last = data.draw(st.integers(first, len(events)), label="last")
    cut = events[first:last]
    holes = data.draw(st.sets(st.integers(0, max(0, len(cut) - 1)), max_size=4), label="holes")
    kept: list[tuple[State, Event]] = []
    for number, (state, event) in enumerate(cut):
        if number in holes:
            rec.events = kept
            rec.lost(state.cpu, 1)
        else:
            kept.append((state, event))
    rec.events = kept
    verdict = rec.verdict()
    assert rule_names(verdict) == [], [(f.rule.name, f.what) for f in verdict.findings]
    assert verdict.wrong == 0


@pytest.mark.parametrize("family", FAMILIES)
@FEW
@given(data=st.data(), steps=STEPS)
def test_returns_that_a_probe_missed_never_accuse(
    family: str, data: st.DataObject, steps: list[Step]
) -> None:
    rec = Recorder(make_profile(family, nr_cpus=4), cpus=3)
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(steps)
    program.unwind()
    returns = [n for n, (_, e) in enumerate(rec.events) if getattr(e, "name", "").startswith("r_")]
    missed = data.draw(st.sets(st.sampled_from(returns), max_size=6), label="missed")
    rec.events = [pair for n, pair in enumerate(rec.events) if n not in missed]
    verdict = rec.verdict()
    assert rule_names(verdict) == [], [(f.rule.name, f.what) for f in verdict.findings]
    assert verdict.wrong == 0


# One misuse in the middle of it.


def _order(rec: Recorder) -> int:
    outer, inner = rec.map(rec.page()), rec.map(rec.page())
    rec.unmap(outer)
    line = rec.line
    rec.unmap(inner)
    return line


def _double(rec: Recorder) -> int:
    rec.map(rec.page())
    window = rec.map(rec.page())
    rec.unmap(window)
    rec.unmap(window)
    return rec.line


def _leak(rec: Recorder) -> int:
    line = rec.line + 1
    rec.map(rec.page())
    return line


def _page(rec: Recorder) -> int:
    page = rec.page()
    window = rec.map(page)
    rec.unmap(page.address)
    line = rec.line
    rec.unmap(window)
    return line


def _nowhere(rec: Recorder) -> int:
    window = rec.map(rec.page())
    rec.unmap(0xF8123000)
    line = rec.line
    rec.unmap(window)
    return line


def _foreign(rec: Recorder) -> int:
    here = rec.kernel.context.this.id
    there = (here + 1) % 3
    rec.run(there, "owner")
    window = rec.map(rec.page())
    rec.run(here)
    rec.map(rec.page())
    rec.unmap(window)
    line = rec.line
    rec.run(there)
    rec.unmap(window)
    rec.exit()
    rec.run(here)
    return line


MISUSES: dict[str, Callable[[Recorder], int]] = {
    "unmap-order": _order,
    "double-unmap": _double,
    "leaked-window": _leak,
    "page-not-address": _page,
    "not-a-window": _nowhere,
    "foreign-unmap": _foreign,
}


@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "T10"])
@pytest.mark.parametrize("rule", MISUSES)
@settings(max_examples=5, deadline=None, phases=[Phase.generate])
@given(before=STEPS, after=STEPS, cpu=st.integers(0, 2))
def test_one_misuse_among_proper_calls_is_the_one_finding(
    family: str, rule: str, before: list[Step], after: list[Step], cpu: int
) -> None:
    rec = Recorder(make_profile(family, nr_cpus=4), cpus=3)
    rec.warm_up((0, 1, 2))
    program = Programs(rec)
    program.run(before)
    # From 5.11 on tasks share the addresses of a CPU: what is unmapped twice may look like another
    # task's window while that one holds it.
    if rec.profile.era is not Era.LOCAL or rule in ("foreign-unmap", "double-unmap"):
        program.unwind()
    rec.run(cpu, "rogue")
    line = MISUSES[rule](rec)
    # What it does properly afterwards shows which index the kernel has.
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    program.run(after)
    program.unwind()
    rec.go_on((0, 1, 2))
    verdict = rec.verdict()
    errors = [f for f in verdict.findings if f.rule.level is Level.ERROR]
    assert [f.rule.name for f in errors] == [rule], [(f.rule.name, f.what) for f in errors]
    assert errors[0].where.line == line
    assert verdict.wrong == 0
