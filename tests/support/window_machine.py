"""What the property tests of the three eras share: a booted kernel and checks of its whole state.

The invariants I1 to I25 are those of linux-facts section 13.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import NamedTuple

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from highmem.kernel.kernel import Kernel
from highmem.kernel.pages import Page
from support.kernel_machine import boot, high_pages, low_page, window_entry

__all__ = ["CPUS", "Held", "WindowMachine", "run_machine"]

CPUS = 3
PAGES = 6


class Held(NamedTuple):
    """One map call that was not undone yet."""

    address: int
    pfn: int
    slot: int | None
    """The window's slot, None for the linear address of a low page."""
    atomic: bool = True
    km_type: int = 0


def run_machine(
    machine: type[RuleBasedStateMachine], family: str, wanted: list[str], share: int = 4
) -> None:
    """Run *machine* on *family* with one in *share* of the profile's examples.

    Fails if anything of *wanted* was never reached: a search that starves proves nothing.
    """
    seen: Counter[str] = Counter()
    narrowed = type(machine.__name__, (machine,), {"families": (family,), "seen": seen})
    examples = settings.default.max_examples // share  # type: ignore[union-attr]
    run_state_machine_as_test(narrowed, settings=settings(max_examples=examples))
    assert not [name for name in wanted if not seen[name]], seen


class WindowMachine(RuleBasedStateMachine):
    """A kernel and what must be in every window's entry: ``entries[cpu, slot]`` is a frame."""

    families: tuple[str, ...]
    seen: Counter[str]
    """What the runs of one test reached, so that a test can insist on it."""

    def start(self, family: str, pae: bool, debug: bool) -> None:
        """Boot, and find pages."""
        self.kernel: Kernel = boot(family, pae, debug, cpus=CPUS)
        self.family, self.debug = family, debug
        self.high: list[Page] = high_pages(self.kernel, PAGES)
        self.low: list[Page] = [low_page(self.kernel) for _ in range(2)]
        self.entries: dict[tuple[int, int], int] = {}
        self.seen["pae" if pae else "two-level"] += 1
        self.seen["debug" if debug else "plain"] += 1

    def page(self, number: int) -> Page:
        """One of the pages, low ones last."""
        return (self.high + self.low)[number]

    def check_new_window(self, address: int, pfn: int, slot: int) -> None:
        """I1, I2, I4, I10: the address is this CPU's window *slot* and shows the frame."""
        layout, cpu = self.kernel.layout, self.kernel.context.this.id
        assert address % 4096 == 0
        low, high = (layout.fix_to_virt(x) for x in (layout.FIX_KMAP_END, layout.FIX_KMAP_BEGIN))
        assert low <= address <= high
        assert divmod((high - address) >> 12, self.kernel.profile.windows_per_cpu) == (cpu, slot)
        self.entries[cpu, slot] = pfn
        assert self.kernel.read32(address) == pfn

    def check_entries(self) -> None:
        """I6, I7, I8, I9: every entry of every CPU is what the calls so far make it."""
        kernel = self.kernel
        size = kernel.ptes.entry_size
        per_cpu = kernel.profile.windows_per_cpu
        total = per_cpu * kernel.profile.nr_cpus
        values = [0] * total
        for (cpu, slot), pfn in self.entries.items():
            values[cpu * per_cpu + slot] = window_entry(kernel, pfn)
        first = kernel.temporary.pte_of(total - 1)
        raw = kernel.machine.memory.read(first, total * size)
        assert list(struct.unpack(f"<{total}{'Q' if size == 8 else 'I'}", raw)) == values[::-1]

    def check_tlbs(self) -> None:
        """I22, I23: no CPU's TLB holds a window's translation that the tables do not."""
        kernel = self.kernel
        for percpu in kernel.context.cpus:
            for entry in percpu.cpu.tlb:
                if kernel.layout.is_window(entry.page):
                    assert kernel.walk(entry.page).physical == entry.base
                    owner = kernel.layout.window_of(entry.page)
                    assert owner is not None and owner[0] == percpu.id

    def check_overrun(self, held: Held) -> None:
        """I25: the word after the page's end is another frame's, or no memory at all."""
        above = self.kernel.walk(held.address + 4096).physical
        assert above is None or above >> 12 != held.pfn or held.pfn in self._shown_twice(held)

    def _shown_twice(self, held: Held) -> set[int]:
        cpu = self.kernel.context.this.id
        assert held.slot is not None
        return {self.entries.get((cpu, held.slot - 1), -1)}
