"""Our kernel on Unicorn's MMU: random programs over kmap in all its forms, every access judged.

The tables are those that our kernel booted with, and from then on it writes and flushes them.
Every access through a window, a stale address, a permanent window or the direct map must end on
Unicorn as it does on our machine; where Linux owes a flush, and only there, as either the old or
the new translation says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

pytest.importorskip("unicorn", reason="Unicorn is the other implementation compared with")

from highmem.kernel.pgtable import PageTables
from highmem.kernel.profile import Era, Profile, load_profile, make_profile
from support.kernel_oracle import Tally
from support.kernel_sequences import Driver
from support.mmu_sequences import SequenceMismatch

pytestmark = pytest.mark.oracle

SEQUENCES = 2400
"""Of each world; all worlds together must do 20 000."""


class World(NamedTuple):
    """A kernel, and the CPU that it is looked at on."""

    profile: Profile
    cpu: int


WORLDS = {
    "5.10": World(load_profile("debian-5.10-686"), 0),
    "5.10 PAE": World(load_profile("debian-5.10-686-pae"), 1),
    "6.1": World(load_profile("debian-6.1-686"), 1),
    "6.1 PAE": World(load_profile("debian-6.1-686-pae"), 0),
    "text-41": World(load_profile("text-41"), 1),
    "5.10 PAE with PTI": World(make_profile("S4", pae=True, pti=True, nr_cpus=4), 0),
    "6.1 without PGE": World(make_profile("L1", pge=False, nr_cpus=4), 1),
    "6.1 PAE with FORCE_MAP": World(make_profile("L1", pae=True, debug_highmem=True), 1),
    "2.6.36": World(make_profile("T10", nr_cpus=4), 1),
    "2.6.36 PAE": World(make_profile("T10", pae=True, nr_cpus=4), 0),
    "2.6.12": World(make_profile("T0", nr_cpus=4), 1),
}
# Read, write, fetch (with NX) of a page that is absent or present, by supervisor or user. Nothing
# forbids the supervisor to read what is there, so there is no code 1.
CODES = {0, 2, 3, 4, 5, 6, 7}
CODES_OF_NX = CODES | {0x10, 0x11, 0x14, 0x15}


def test_the_worlds_do_20000_sequences_in_both_paging_modes() -> None:
    count = {pae: sum(w.profile.pae is pae for w in WORLDS.values()) for pae in (False, True)}
    assert sum(count.values()) * SEQUENCES >= 20_000
    assert min(count.values()) * SEQUENCES >= 10_000


@pytest.mark.parametrize("name", WORLDS)
def test_random_programs_end_alike_on_our_machine_and_on_unicorn(name: str) -> None:
    profile, cpu = WORLDS[name]
    seed = 1000 + list(WORLDS).index(name)
    print(f"seed {seed}")  # shown when it fails
    tally = Driver(profile, cpu=cpu, seed=seed).run(SEQUENCES)
    assert tally.sequences == SEQUENCES
    assert tally.exact > 5 * SEQUENCES, "too little was compared exactly"
    assert set(tally.faults) == (CODES_OF_NX if profile.pae else CODES)
    assert min(tally.faults.values()) > 20, tally.faults
    assert tally.crossing > 200
    assert tally.reloads > 200
    assert tally.wraps > 20, "the search for a permanent window never came round"
    assert tally.flushes > 200, "hardly a permanent window was flushed"
    if profile.features.map_flushes_tlb:
        # 2.6.12 to 2.6.18 flush whenever they map, and leave entries where they are: only an
        # interrupt before a flush that is just coming can meet a stale translation.
        assert tally.either == tally.either_between
    else:
        check_what_can_go_wrong(profile, tally)


def check_what_can_go_wrong(profile: Profile, tally: Tally) -> None:
    assert tally.stale_model > 50, "the model hardly used a stale entry"
    assert tally.stale_unicorn > 50, "Unicorn hardly used a stale entry"
    assert tally.either - tally.either_between > 60, "hardly a stale translation outlived a call"
    assert tally.in_order > 1000
    assert tally.out_of_order > 100
    assert tally.interrupts > 400, "hardly an access fell between two operations of the kernel"
    assert (tally.switches > 400) is (profile.era is Era.LOCAL)
    assert (tally.overwritten > 200) is (profile.era is Era.TYPED)
    # With DEBUG_HIGHMEM one unmap too many is a BUG; the local era always says so.
    unnoticed = profile.era is Era.STACK and not profile.debug_highmem
    assert (tally.underflows > 30) is unnoticed


def swapped_halves(self: Any, where: int, entry: int) -> None:
    """Low half first when setting: for a moment the entry is present with a wrong upper half."""
    write = self._context.this.cpu.write_entry32
    write(where, entry & 0xFFFFFFFF)
    if self.pae:
        write(where + 4, entry >> 32)


def forgotten_flush(self: Any, vaddr: int) -> None:
    """Unmapping leaves the TLB as it is."""


def flush_of_the_neighbour(self: Any, vaddr: int) -> None:
    """Unmapping flushes the page before the right one."""
    self._context.this.cpu.invlpg(vaddr - 4096)


FLAWS: dict[str, tuple[str, Callable[..., None]]] = {
    "swapped halves": ("_write", swapped_halves),
    "forgotten flush": ("flush_tlb_one_kernel", forgotten_flush),
    "flush of the neighbour": ("flush_tlb_one_kernel", flush_of_the_neighbour),
}


@pytest.mark.parametrize("name", ["5.10 PAE", "6.1 PAE"])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flawed_kernel_is_caught(flaw: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, replacement = FLAWS[flaw]
    profile, cpu = WORLDS[name]
    driver = Driver(profile, cpu=cpu, seed=1)
    monkeypatch.setattr(PageTables, method, replacement)
    with pytest.raises(SequenceMismatch, match=r"amid a change|Linux would flush"):
        driver.run(200)
