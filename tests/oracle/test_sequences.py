"""Random sequences of entry writes, accesses and invalidations, on the model and on Unicorn.

Stale translations are the point here: a page-table entry changes and nobody invalidates. Then
both the old and the new translation are right, and each side may choose; everywhere else the two
must agree exactly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

pytest.importorskip("unicorn", reason="Unicorn is the other implementation compared with")

from highmem.machine.cpu import CpuFeatures
from highmem.machine.machine import Machine
from support.mmu_sequences import Report, SequenceMismatch, compare
from support.mmu_world import World
from support.unicorn_machine import Do, Op, UnicornMachine

pytestmark = pytest.mark.oracle

SMALL = [0x1000, 0x2000, 0x3000]  # pages mapped one by one
LARGE = 0x00800000  # a region that is a large page, a table or nothing
STEPS = 8


def steps(world: World, rng: random.Random, first: int) -> Iterator[Op]:
    """One random sequence; ``first`` numbers its writes apart from those of all others."""
    pages = [*SMALL, LARGE, LARGE + 0x1000]
    for number in range(STEPS):
        kind = rng.random()
        page = rng.choice(pages)
        if kind < 0.5:
            yield world.random_access(rng, page, first + number)
        elif kind < 0.7:
            yield from world.pokes(world.table_entry(0, page), world.random_leaf(rng))
        elif kind < 0.78:
            large = rng.random() < 0.7
            entry = world.random_large(rng) if large else world.random_table(rng, 0)
            yield from world.pokes(world.directory_entry(rng.randrange(2), LARGE), entry)
        elif kind < 0.88:
            yield Op(Do.INVLPG, page + rng.randrange(4096))
        elif kind < 0.95:
            yield Op(Do.LOAD_CR3, value=rng.choice(world.roots))
        elif kind < 0.98:
            yield Op(Do.SET_CR0, value=world.unicorn.cr0(wp=rng.random() < 0.5))
        else:
            yield Op(Do.SET_CR4, value=world.unicorn.cr4(pge=rng.random() < 0.5))


def populate(world: World, rng: random.Random) -> None:
    """Give both roots a table for the small pages and something for the large region."""
    world.reset()
    for root in range(2):
        world.write_entry(world.directory_entry(root, 0), world.page_tables[root] | 0x67)
        world.write_entry(world.directory_entry(root, LARGE), world.random_large(rng))
    for table in range(2):
        for page in (*SMALL, LARGE, LARGE + 0x1000):
            world.write_entry(world.table_entry(table, page), world.random_leaf(rng))


def run(world: World, seed: int, count: int) -> Report:
    report = Report()
    rng = random.Random(seed)
    for number in range(count):
        populate(world, rng)
        ops = [*world.start(), *steps(world, rng, number * STEPS)]
        try:
            compare(world.unicorn, world.machine, ops, world.tables, report)
        except SequenceMismatch as error:
            raise AssertionError(f"seed {seed}, sequence {number}: {error}") from error
    return report


@pytest.mark.parametrize("pae", [False, True], ids=["two-level", "PAE"])
def test_random_sequences_end_as_the_architecture_allows(pae: bool) -> None:
    report = run(World(pae=pae), seed=1, count=1500)
    assert report.accesses > 4000
    assert report.faults > 400
    assert report.stale_model > 20, "the model never used a stale entry"
    assert report.stale_unicorn > 20, "Unicorn never used a stale entry"
    assert report.ambiguous < report.accesses / 2, "too little was compared exactly"


@pytest.mark.slow
@pytest.mark.parametrize("pae", [False, True], ids=["two-level", "PAE"])
def test_many_random_sequences_end_as_the_architecture_allows(pae: bool) -> None:
    report = run(World(pae=pae), seed=2, count=20000)
    assert report.accesses > 60000


def broken_flush(world: World) -> list[Op]:
    """Map, read, map another frame, INVLPG, read: the second read must see the new frame."""
    entry = world.table_entry(0, 0x1000)
    return [
        *world.start(),
        *world.pokes(entry, 0x400163),
        Op(Do.READ32, 0x1000),
        *world.pokes(entry, 0x401163),
        Op(Do.INVLPG, 0x1000),
        Op(Do.READ32, 0x1000),
    ]


@pytest.mark.parametrize("pae", [False, True], ids=["two-level", "PAE"])
def test_a_model_that_ignores_invlpg_is_caught(pae: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(pae=pae)
    populate(world, random.Random(3))
    compare(world.unicorn, world.machine, broken_flush(world), world.tables)
    populate(world, random.Random(3))
    monkeypatch.setattr("highmem.machine.cpu.Cpu.invlpg", lambda self, address: None)
    with pytest.raises(SequenceMismatch, match="the model answered"):
        compare(world.unicorn, world.machine, broken_flush(world), world.tables)


@pytest.mark.parametrize("pae", [False, True], ids=["two-level", "PAE"])
def test_tables_of_a_machine_can_be_taken_over(pae: bool) -> None:
    machine = Machine(16 << 20, pae=pae, features=CpuFeatures(phys_bits=40))
    memory, cpu = machine.memory, machine.cpus[0]
    window, table, frame = 0xFFFBB000, 0x5000, 0x400000
    if pae:
        memory.write64(0x3000 + 8 * (window >> 30), 0x4001)
        memory.write64(0x4000 + 8 * (window >> 21 & 511), table | 0x63)
        place = table + 8 * (window >> 12 & 511)
    else:
        memory.write32(0x3000 + 4 * (window >> 22), table | 0x63)
        place = table + 4 * (window >> 12 & 1023)
    memory.write(frame, b"\x11" * 4096)
    memory.write(frame + 0x1000, b"\x22" * 4096)
    unicorn = UnicornMachine(16 << 20, pae=pae)
    unicorn.load(memory, 0x3000)
    cpu.load_cr3(0x3000)
    map_first, map_second = Op(Do.POKE, place, frame | 0x163), Op(Do.POKE, place, frame | 0x1163)
    ops = [
        map_first,
        Op(Do.READ32, window),
        map_second,
        Op(Do.READ32, window + 8),
        Op(Do.INVLPG, window),
        Op(Do.READ32, window + 4),
        Op(Do.POKE, place, 0),
        Op(Do.INVLPG, window),
        Op(Do.READ32, window),
    ]
    report = compare(unicorn, machine, ops, [0x3000, 0x4000, table])
    assert report == Report(
        accesses=4, faults=1, ambiguous=1, stale_model=1, stale_unicorn=report.stale_unicorn
    )


def test_tables_that_use_the_place_of_the_harness_are_refused() -> None:
    unicorn = UnicornMachine(1 << 20, pae=False)
    unicorn.memory.write32(0x3000 + 4 * (unicorn.base >> 22), 0x5067)
    with pytest.raises(ValueError, match="the harness's place"):
        unicorn.install(unicorn.memory.write32, 0x3000)
