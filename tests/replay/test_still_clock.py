from __future__ import annotations

import random

import pytest

from highmem.kernel.profile import Profile, load_profile, make_profile
from highmem.replay import make_engine
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict
from highmem.trace.schema import Account, Strings
from support.still_clock import RAM, Life, as_read_by_cpu

PROFILES: list[Profile] = [
    load_profile("debian-6.1-686"),
    make_profile("L0", nr_cpus=4, nx=False),
]


def judged(seed: int, still: float) -> Verdict:
    rng, profile = random.Random(seed), PROFILES[seed % len(PROFILES)]
    events = Life(profile.layout(RAM), rng, still).live(rng.choice((20, 60, 200)))
    strings = Strings()
    batch = as_read_by_cpu(events, strings)
    engine_says, reference_says = (Verdict("", "", profile, "given", Account()) for _ in range(2))
    reference = Reference(profile, RAM, strings, reference_says)
    for one in (make_engine(profile, RAM, strings, engine_says), reference):
        one.feed(batch)
        one.finish()
    assert engine_says.to_dict() == reference_says.to_dict(), seed
    return engine_says


@pytest.mark.parametrize("still", [0.5, 0.8, 0.95])
def test_what_cannot_be_put_in_order_is_unknown_and_never_a_finding(still: float) -> None:
    right = not_judged = 0
    for seed in range(120):
        verdict = judged(seed, still)
        assert verdict.findings == [], seed
        right += verdict.right
        not_judged += sum(verdict.not_judged.values())
    assert right > not_judged > 0


def test_where_the_clock_moves_every_address_is_judged() -> None:
    right = not_judged = 0
    for seed in range(60):
        verdict = judged(seed, 0.0)
        assert verdict.findings == [], seed
        right += verdict.right
        not_judged += sum(verdict.not_judged.values())
    # Of each recording nothing is known up to its first return.
    assert right > 1000
    assert not_judged < 4 * 60
