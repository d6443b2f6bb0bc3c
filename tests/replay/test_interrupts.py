"""Interrupts within a map call: before it takes its slot, or after and before it returns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from highmem.kernel.profile import make_profile
from support.ftrace_writer import Style
from support.recordings import Recorder, judge, rule_names

FAMILIES = ("S0", "S1", "S2", "S3", "S4", "L0", "L1")


def recorder(family: str, flags: bool, outer: bool) -> Recorder:
    style = None if flags else Style(flags=0)
    rec = Recorder(make_profile(family, nr_cpus=4), outer=outer, style=style)
    rec.warm_up()
    return rec


def in_interrupt(rec: Recorder, kind: str, depth: int) -> Callable[[], None]:
    def interrupt() -> None:
        with rec.hardirq() if kind == "hard" else rec.softirq():
            windows = [rec.kmap_atomic(rec.page(), caller="handler") for _ in range(depth)]
            for window in reversed(windows):
                rec.kunmap_atomic(window)

    return interrupt


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize("when", ["before", "after", "both"])
@pytest.mark.parametrize("depth", [1, 2])
def test_an_interrupt_inside_a_map_call(
    family: str, flags: bool, outer: bool, kind: str, when: str, depth: int
) -> None:
    rec = recorder(family, flags, outer)
    rec.run(0, "worker")
    interrupt = in_interrupt(rec, kind, depth)
    before = interrupt if when in ("before", "both") else None
    after = interrupt if when in ("after", "both") else None
    first = rec.map(rec.page(), before=before, after=after)
    second = rec.map(rec.page(), before=before, after=after)
    assert first == second + 0x1000
    rec.unmap(second)
    rec.unmap(first)
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict) == [], [(f.rule.name, f.what) for f in verdict.findings]
    assert verdict.wrong == 0
    # All but the very first call are judged: that one's returns are two if both are probed.
    returns = rec.text().count(b" r_")
    assert verdict.right == returns - (2 if outer and family != "S4" else 1)
    assert verdict.unknown == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_soft_interrupt_that_is_interrupted_itself(family: str) -> None:
    rec = recorder(family, True, True)
    rec.run(0, "worker")

    def soft() -> None:
        with rec.softirq():
            hard = in_interrupt(rec, "hard", 1)
            window = rec.kmap_atomic(rec.page(), before=hard, after=hard)
            rec.kunmap_atomic(window)

    window = rec.map(rec.page(), before=soft, after=soft)
    rec.unmap(window)
    rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert rule_names(verdict) == [] and verdict.wrong == 0 and verdict.unknown == {}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flags", [True, False])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_interrupt_s_return_is_missing(family: str, flags: bool, when: str) -> None:
    rec = recorder(family, flags, False)
    rec.run(0, "worker")
    interrupt = in_interrupt(rec, "hard", 1)
    before, after = (interrupt, None) if when == "before" else (None, interrupt)
    window = rec.map(rec.page(), before=before, after=after)
    rec.unmap(window)
    rec.unmap(rec.map(rec.page()))
    rec.exit()
    rec.go_on()
    text = b"".join(line for line in rec.text().splitlines(keepends=True) if b"handler" not in line)
    whole = rec.verdict()
    verdict = judge(text, rec.profile, rec.ram)
    assert rule_names(verdict) == [] and verdict.wrong == 0
    assert verdict.right < whole.right
