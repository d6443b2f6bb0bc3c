"""Random page tables, read all at once: each address must end as it does in Unicorn's MMU."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("unicorn", reason="Unicorn is the other implementation compared with")

from highmem.image.tables import MAY_USE, MAY_WRITE, NO_EXECUTE, Mappings, read_mappings
from highmem.machine.paging import pae, two_level
from support.image_memory import FrameSource, source_of
from support.mmu_world import CODE_OFFSET, READ_BYTES, WRITE_OFFSET, World
from support.unicorn_machine import Do, Op, Outcome

pytestmark = pytest.mark.oracle

LINEAR = [0x00000000, 0x00800000, 0x01000000, 0x3FC00000]
"""Where pages are mapped: regions of 4 MiB, away from Unicorn's harness."""
PRESENT_FAULT, RESERVED_FAULT = 1, 8
"""Bits of a page fault's error code (SDM 4.7)."""


@pytest.fixture(scope="module", params=["two-level", "PAE", "PAE without NX"])
def world(request: pytest.FixtureRequest) -> World:
    return World(pae=request.param != "two-level", nx=request.param != "PAE without NX")


def fill(world: World, rng: random.Random) -> list[int]:
    """Random tables; answers the pages worth looking at, most of them in tables."""
    world.reset()
    pages = []
    for region in LINEAR:
        for linear in range(region, region + (4 << 20), 1 << world.large_shift):
            entry = world.random_table(rng, rng.randrange(4))
            if rng.random() < 0.35:
                entry = world.random_large(rng)
            world.write_entry(world.directory_entry(0, linear), entry)
            pages += [linear + (rng.randrange(512) << 12) for _ in range(12)]
            pages += [linear, linear + (1 << world.large_shift) - 4096]
    for table in range(4):
        for page in {page >> 12 & 0x3FF for page in pages}:
            world.write_entry(world.table_entry(table, page << 12), world.random_leaf(rng))
    return [*pages, 0x20000000, 0x20001000]


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=12, deadline=None)
def test_every_address_translates_or_faults_alike(world: World, seed: int) -> None:
    rng = random.Random(seed)
    pages = fill(world, rng)
    # Unicorn's CPU has 40 physical address bits; NX as EFER.NXE is set.
    nx = world.machine.cpus[0].mode.nx_enabled
    mode = pae(nx=nx, phys_bits=40) if world.pae else two_level(phys_bits=40)
    source = source_of(world.machine.memory)
    mappings = read_mappings(source, mode, world.roots[0])
    offset = rng.randrange(READ_BYTES - 4)
    kinds = (Do.READ32, Do.WRITE8, Do.FETCH)
    ops = []
    for page in pages:
        do = rng.choice(kinds)
        place = {Do.READ32: offset, Do.WRITE8: WRITE_OFFSET, Do.FETCH: CODE_OFFSET}[do]
        ops.append(Op(do, page + place, 0, user=rng.random() < 0.5))
    controls = world.start()
    outcomes = world.unicorn.run([*controls, *ops])[len(controls) :]
    translated = mappings.translate([op.address for op in ops]).tolist()
    ends = set()
    for op, physical, theirs in zip(ops, translated, outcomes, strict=True):
        ends.add(check(op, physical, theirs, mappings.index(op.address), mappings, source, nx))
    assert {"read", "absent"} <= ends, "tables that map nothing or everything prove little"


def check(
    op: Op,
    physical: int,
    theirs: Outcome,
    row: int | None,
    mappings: Mappings,
    source: FrameSource,
    nx: bool,
) -> str:
    """Hold one access to what the mappings say of it."""
    if physical < 0:
        assert row is None
        assert not theirs.ok, op
        reserved = bool(theirs.value & RESERVED_FAULT)
        assert reserved == bool(theirs.value & PRESENT_FAULT), "a fault of rights where none are"
        within = [
            start <= op.address < start + (1 << mappings.mode.levels[number].shift)
            for start, number in zip(
                mappings.reserved.address.tolist(), mappings.reserved.level.tolist(), strict=True
            )
        ]
        assert any(within) == reserved, op
        return "absent"
    assert row is not None
    rights = int(mappings.rights[row])
    allowed = not op.user or bool(rights & MAY_USE)
    if op.do is Do.WRITE8:
        allowed = allowed and bool(rights & MAY_WRITE)
    if op.do is Do.FETCH and nx:
        allowed = allowed and not rights & NO_EXECUTE
    assert theirs.ok == allowed, (op, hex(physical), rights)
    if not allowed:
        assert theirs.value & (PRESENT_FAULT | RESERVED_FAULT) == PRESENT_FAULT
        return "refused"
    if op.do is Do.READ32:
        assert theirs.value == int.from_bytes(source.read(physical, 4), "little"), op
    return "read"
