from __future__ import annotations

import random
from collections import Counter
from types import ModuleType
from typing import Any

import pytest

from highmem.compiled import load_source
from highmem.kernel.profile import Era, Profile, load_profile, make_profile
from highmem.replay import _engine
from highmem.replay.mappings import Mappings
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict
from highmem.trace import read_trace
from highmem.trace.schema import Account, Argument, Batch, Function, Kind, Strings
from support.streams import MEM_MAP, RAM, Kmaps, Maker
from support.trace_reading import read_bytes

SAMPLES = [
    "samples/linux-5.10-686.trace.zst",
    "samples/linux-6.1-686.trace.zst",
    "samples/misuse/linux-6.1-686.clean.trace.zst",
    "samples/misuse/linux-6.1-686.leak-local.trace.zst",
    "samples/misuse/linux-6.1-686.sleep-while-atomic.trace.zst",
    "samples/misuse/linux-6.1-686.unmap-order.trace.zst",
]
PROFILES: list[Profile] = [
    load_profile("debian-5.10-686"),
    load_profile("debian-6.1-686"),
    load_profile("debian-5.10-686-pae"),
    make_profile("S1", debug_highmem=True, nr_cpus=4, nx=False),
    make_profile("S4", nr_cpus=4, nx=False, features={"km_types": 13}),
    make_profile("L0", debug_kmap_local=True, nr_cpus=4, nx=False),
    make_profile("L1", debug_highmem=True, nr_cpus=4, nx=False),
]
INTERPRETED = load_source("highmem.replay._engine", "highmem_engine_interpreted")
WAYS = [
    pytest.param(
        _engine,
        marks=pytest.mark.skipif(not _engine.COMPILED, reason="the engine is not compiled here"),
        id="compiled",
    ),
    pytest.param(INTERPRETED, id="interpreted"),
]


JUDGED: Counter[str] = Counter()
"""Events of permanent windows, by who judged them."""


class Rows:
    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []

    def add(self, mappings: Mappings) -> None:
        self.rows += zip(*(column.tolist() for column in mappings.columns.values()), strict=True)


def judge(
    engine: ModuleType | None,
    profile: Profile,
    batches: list[Batch],
    strings: Strings,
    *,
    watched: bool = True,
) -> tuple[dict[str, Any], list[tuple[int, ...]]]:
    verdict = Verdict("stream", "test", profile, "given", Account())
    sink = Rows()
    reference = Reference(profile, RAM, strings, verdict, [sink] if watched else None)
    judging: Any = reference if engine is None else engine.Engine(reference)
    for batch in batches:
        judging.feed(batch)
    judging.finish()
    if engine is not None:
        JUDGED["engine"] += judging.kmaps.judged
        JUDGED["all"] += 2 * verdict.permanent.maps + verdict.permanent.unmaps
    return verdict.to_dict(), sink.rows


def hold_equal(engine: ModuleType, seed: int) -> dict[str, Any]:
    """Both ways say the same of the stream that *seed* makes."""
    rng = random.Random(seed)
    profile = rng.choice(PROFILES)
    maker = Maker(profile, seed, faults=rng.choice((0.0, 0.0, 0.02, 0.1, 0.3)))
    batches = maker.batches(rng.choice((20, 100, 300)), rng.choice((1, 7, 1000)))
    expected, rows = judge(None, profile, batches, maker.stream.strings)
    found, mapped = judge(engine, profile, batches, maker.stream.strings)
    assert found == expected, f"seed {seed}"
    assert mapped == rows, f"seed {seed}"
    # Where nobody wants the mappings, a call with its end is judged in one step.
    found, _ = judge(engine, profile, batches, maker.stream.strings, watched=False)
    assert found == expected, f"seed {seed}, not watched"
    return expected


@pytest.mark.parametrize("engine", WAYS)
@pytest.mark.parametrize("part", range(4))
def test_random_streams_get_the_reference_s_verdict(engine: ModuleType, part: int) -> None:
    for seed in range(part * 100, part * 100 + 60):
        hold_equal(engine, seed)


@pytest.mark.slow
@pytest.mark.parametrize("engine", WAYS)
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_random_streams_get_the_reference_s_verdict(
    engine: ModuleType, part: int
) -> None:
    for seed in range(10_000 + part * 1000, 11_000 + part * 1000):
        hold_equal(engine, seed)


def test_the_random_streams_reach_every_rule_and_every_reason() -> None:
    rules: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    right = 0
    for seed in range(400):
        verdict = hold_equal(_engine if _engine.COMPILED else INTERPRETED, 50_000 + seed)
        rules.update(finding["rule"] for finding in verdict["findings"])
        reasons.update(verdict["predictions"]["not_judged"])
        reasons.update(verdict["unknown"])
        right += verdict["predictions"]["right"]
    assert right > 1000
    assert {
        "leaked-window", "unmap-order", "double-unmap", "page-not-address", "not-a-window",
        "foreign-unmap", "too-deep", "sleep-in-atomic", "mismatched-pair", "window-moved",
        "lost-events",
    } <= set(rules)  # fmt: skip
    assert len(reasons) >= 10


@pytest.mark.parametrize("engine", WAYS)
def test_most_events_of_permanent_windows_are_not_the_reference_s(engine: ModuleType) -> None:
    JUDGED.clear()
    met: Counter[object] = Counter()
    for seed in range(700, 760):
        profile = PROFILES[seed % len(PROFILES)]
        maker = Maker(profile, seed, faults=0.0 if seed % 2 else 0.02)
        batches = maker.batches(300, 100)
        expected = judge(None, profile, batches, maker.stream.strings)
        assert judge(engine, profile, batches, maker.stream.strings) == expected, f"seed {seed}"
        kmaps, stats = maker.kmaps, expected[0]["permanent"]
        if profile.era is Era.TYPED or kmaps is None:
            continue
        met["reused"] += stats["reused"]
        met["flushes"] += stats["flushes"]
        met["held by two"] += max(kmaps.counts) > 2
        met["wrapped"] += kmaps.wrapped
        met["size", stats["size"]] += 1
    assert all(met[name] > 5 for name in ("reused", "flushes", "held by two", "wrapped"))
    assert all(met["size", size] for size in (512, 1024))
    assert JUDGED["engine"] > 0.6 * JUDGED["all"] > 1000, JUDGED


@pytest.mark.parametrize("engine", WAYS)
@pytest.mark.parametrize("sample", SAMPLES)
def test_real_recordings_get_the_reference_s_verdict(engine: ModuleType, sample: str) -> None:
    source = read_trace(sample)
    batches = list(source)
    profile = load_profile("debian-5.10-686" if "5.10" in sample else "debian-6.1-686")
    expected = judge(None, profile, batches, source.strings)
    assert judge(engine, profile, batches, source.strings) == expected
    assert judge(engine, profile, batches, source.strings, watched=False)[0] == expected[0]
    assert expected[0]["predictions"]["right"] > 1000


def of_kmaps() -> tuple[Profile, Maker, Kmaps]:
    """A stream for calls of permanent windows from the first window on, after a complete call."""
    profile = load_profile("debian-5.10-686-pae")
    maker = Maker(profile, 1, faults=0.0)
    kmaps = Kmaps(maker.stream)
    kmaps.last = 0
    maker.map(0, 1, 0)
    maker.close(0, 1, 0)
    return profile, maker, kmaps


@pytest.mark.parametrize("engine", WAYS)
def test_a_kmap_that_finds_all_windows_in_use_is_judged_alike(engine: ModuleType) -> None:
    profile, maker, kmaps = of_kmaps()
    layout = maker.stream.layout
    size = layout.geometry.sizeof_struct_page
    pages = [MEM_MAP + (layout.highstart_pfn + n) * size for n in range(kmaps.size + 1)]
    tasks: list[dict[str, Any]] = [{"cpu": 0, "pid": pid, "flags": 0} for pid in (1, 2)]
    for page in pages[:-1]:
        kmaps.event(tasks[0], Kind.MAP, Function.KMAP_HIGH, Argument.PAGE, page)
        address = layout.pkmap_address(kmaps.window(page))
        kmaps.back(tasks[0], [Function.KMAP_HIGH], address)
    kmaps.event(tasks[1], Kind.MAP, Function.KMAP_HIGH, Argument.PAGE, pages[-1])
    kmaps.counts[kmaps.pages[pages[7]]] -= 1
    kmaps.event(tasks[0], Kind.UNMAP, Function.KUNMAP_HIGH, Argument.PAGE, pages[7])
    address = layout.pkmap_address(kmaps.window(pages[-1]))
    kmaps.back(tasks[1], [Function.KMAP_HIGH], address)
    batches = maker.batches(0, 100)
    JUDGED.clear()
    expected = judge(None, profile, batches, maker.stream.strings)
    assert judge(engine, profile, batches, maker.stream.strings) == expected
    assert [found["rule"] for found in expected[0]["findings"]] == ["pool-exhausted"]
    assert expected[0]["permanent"]["most_in_use"] == kmaps.size == 512
    assert JUDGED["engine"] > 1000


@pytest.mark.parametrize("engine", WAYS)
@pytest.mark.parametrize("unmapped", [False, True])
def test_a_kmap_whose_entry_is_missing_returns_alike(engine: ModuleType, unmapped: bool) -> None:
    profile, maker, kmaps = of_kmaps()
    layout = maker.stream.layout
    size = layout.geometry.sizeof_struct_page
    task: dict[str, Any] = {"cpu": 0, "pid": 1, "flags": 0}
    for n in (0, 1):
        page = MEM_MAP + (layout.highstart_pfn + n) * size
        kmaps.event(task, Kind.MAP, Function.KMAP_HIGH, Argument.PAGE, page)
        address = layout.pkmap_address(kmaps.window(page))
        kmaps.back(task, [Function.KMAP_HIGH], address)
    if unmapped:
        kmaps.event(task, Kind.UNMAP, Function.KUNMAP_HIGH, Argument.PAGE, page)
    kmaps.back(task, [Function.KMAP], address)
    batches = maker.batches(0, 100)
    JUDGED.clear()
    expected = judge(None, profile, batches, maker.stream.strings)
    assert judge(engine, profile, batches, maker.stream.strings) == expected
    assert JUDGED["engine"] >= 2


def test_two_pointers_are_two_pages_of_the_model() -> None:
    profile, strings = load_profile("debian-5.10-686"), Strings()
    verdict = Verdict("none", "test", profile, "given", Account())
    reference = Reference(profile, RAM, strings, verdict, None)
    size = reference.session.layout.geometry.sizeof_struct_page
    early = reference.permanent.page(0xC0001000)  # its frame is not known
    reference.session.memmap.learn(MEM_MAP, 0)
    assert reference.permanent.page(MEM_MAP + early.pfn * size) != early


def lines_of_one_call(number: int, page: int, pfn: int) -> str:
    calls = [
        f"m___kmap_local_page_prot: (f+0x0/0x1) page={page:#x} prot=0x163",
        f"m___kmap_local_pfn_prot: (f+0x0/0x1) pfn={pfn:#x} prot=0x163",
        "r___kmap_local_pfn_prot: (g+0x1/0x2 <- __kmap_local_pfn_prot) vaddr=0xfffbb000",
        "r___kmap_local_page_prot: (h+0x1/0x2 <- __kmap_local_page_prot) vaddr=0xfffbb000",
        "u_kunmap_local_indexed: (f+0x0/0x1) vaddr=0xfffbb000",
    ]
    return "".join(
        f"cat-134 [000] d..1 {number}.00000{n}: {call}\n" for n, call in enumerate(calls)
    )


@pytest.mark.parametrize("engine", WAYS)
@pytest.mark.parametrize("watched", [True, False])
def test_a_page_that_no_mem_map_can_have_is_the_reference_s(
    engine: ModuleType, watched: bool
) -> None:
    good = (0xF38E9068, 0x7F869)
    pairs = [good, (0x1000, 0x7F869), good, (0xF38E9090, 0x7F86A), good]
    for order in (pairs, pairs[1:], pairs[::-1]):
        text = "".join(lines_of_one_call(n, *pair) for n, pair in enumerate(order, 1))
        source = read_bytes(text.encode())
        batches, profile = list(source), load_profile("debian-6.1-686")
        expected = judge(None, profile, batches, source.strings)
        found = judge(engine, profile, batches, source.strings, watched=watched)
        assert found[0] == expected[0]
        assert expected[0]["predictions"]["right"] > 4


def test_windows_that_a_finding_is_about_are_among_the_mappings() -> None:
    for sample, count in (("leak-local", 1), ("unmap-order", 2)):
        source = read_trace(f"samples/misuse/linux-6.1-686.{sample}.trace.zst")
        batches = list(source)
        verdict, rows = judge(None, load_profile("debian-6.1-686"), batches, source.strings)
        line = verdict["findings"][0]["evidence"][0].split(":")[0].removeprefix("line ")
        opened = int(line)
        mine = [row for row in rows if opened <= row[0] <= opened + 3]
        assert len(mine) == count, sample
        assert (mine[0][2] == 0) == (sample == "leak-local")
