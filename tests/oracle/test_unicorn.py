"""Random page tables: every access must end as it does in Unicorn's MMU, to the last bit.

The tables stand still and every TLB starts empty, so the architecture leaves no choice: values,
faults, error codes, CR2, and the accessed and dirty bits in the tables must be equal.
"""

from __future__ import annotations

import random

import pytest

pytest.importorskip("unicorn", reason="Unicorn is the other implementation compared with")

from highmem.machine.paging import PSE
from support.mmu_sequences import Report, compare, do_on_model
from support.mmu_world import DATA_FRAMES, World
from support.unicorn_machine import Do, Op

pytestmark = pytest.mark.oracle

LINEAR = [0x00000000, 0x00800000, 0x01000000, 0x3FC00000]
"""Where pages are mapped: regions of 4 MiB, away from the harness."""


@pytest.fixture(scope="module", params=["two-level", "PAE", "PAE without NX"])
def world(request: pytest.FixtureRequest) -> World:
    return World(pae=request.param != "two-level", nx=request.param != "PAE without NX")


def build(world: World, rng: random.Random, *, pse: bool = True) -> list[int]:
    """Fill the tables at random; answer the linear pages worth accessing.

    Without ``pse`` all directory entries of 4 bytes point at tables, whatever their PS bit says.
    """
    world.reset()
    pages = []
    for region in LINEAR:
        for linear in range(region, region + (4 << 20), 1 << world.large_shift):
            entry = world.random_table(rng, rng.randrange(4))
            if rng.random() < 0.4:
                entry = world.random_large(rng) if pse or world.pae else entry | PSE
            world.write_entry(world.directory_entry(0, linear), entry)
            pages += [linear + (rng.randrange(512) << 12) for _ in range(3)]
            pages += [linear + (n << 12) for n in range(4)]
    for table in range(4):
        for n in [*range(4), *(page >> 12 for page in pages)]:
            world.write_entry(world.table_entry(table, n << 12), world.random_leaf(rng))
    return [*pages, 0x20000000]


@pytest.mark.parametrize("seed", range(40))
def test_random_tables_give_the_same_values_and_faults(world: World, seed: int) -> None:
    rng = random.Random(seed)
    pse = rng.random() < 0.8
    pages = build(world, rng, pse=pse)
    controls = world.start(pse=pse, pge=rng.random() < 0.8, wp=rng.random() < 0.7)
    accesses = [world.random_access(rng, rng.choice(pages), seed * 1000 + n) for n in range(400)]
    report = compare(world.unicorn, world.machine, controls + accesses, world.tables, Report())
    assert report.accesses == 400
    assert report.ambiguous == 0
    assert 20 < report.faults < 390, "a world in which nothing or everything faults proves little"


def test_accesses_over_a_page_end_give_the_same_values_and_faults(world: World) -> None:
    rng = random.Random(7)
    kinds = set()
    for _ in range(60):
        pages = build(world, rng)
        ops = world.start()
        for _ in range(30):
            page = rng.choice(pages[:-1]) & ~0x3FFF
            do, reach = rng.choice(((Do.READ16, 1), (Do.READ32, 3)))
            address = page + 0x1000 * rng.randrange(1, 4) - rng.randint(1, reach)
            ops.append(Op(do, address, 0, rng.random() < 0.4))
        theirs = world.unicorn.run(ops)
        for op, their in zip(ops, theirs, strict=True):
            our = do_on_model(world.machine.cpus[0], op)
            if op.do in (Do.READ16, Do.READ32):
                assert our[:2] == their[:2], op
                assert our.ok or our.cr2 == their.cr2, op
                kinds.add((our.ok, our.cr2 & 0xFFF == 0))
    assert {(True, True), (True, False)} & kinds
    assert (False, True) in kinds, "no fault on the second page"
    assert (False, False) in kinds, "no fault on the first page"


def test_a_store_over_a_page_end_that_faults_stores_nothing(world: World) -> None:
    world.reset()
    world.write_entry(world.directory_entry(0, 0), world.page_tables[0] | 7)
    world.write_entry(world.table_entry(0, 0x1000), DATA_FRAMES[0] | 7)
    world.write_entry(world.table_entry(0, 0x2000), DATA_FRAMES[1] | 5)
    ops = [*world.start(), Op(Do.WRITE32, 0x1FFE, 0xFFFFFFFF), Op(Do.READ16, 0x1FFE)]
    theirs = world.unicorn.run(ops)
    ours = [do_on_model(world.machine.cpus[0], op) for op in ops]
    assert [o[:2] for o in ours[-2:]] == [t[:2] for t in theirs[-2:]] == [(False, 3), (True, 0)]
    assert ours[-2].cr2 == theirs[-2].cr2 == 0x2000
