"""Random kmap and kunmap over several rounds of the area: I5, I17 to I21, I23."""

from __future__ import annotations

import struct
from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from highmem.kernel.bug import KernelDeadlock, KernelPageFault
from highmem.kernel.pages import Page
from support.kernel_machine import Watch, boot, high_pages, window_entry
from support.window_machine import run_machine

CPUS = 2


class PermanentUse(RuleBasedStateMachine):
    families: tuple[str, ...]
    seen: Counter[str]

    @initialize(data=st.data(), pae=st.booleans(), near_end=st.booleans())
    def boot(self, data: st.DataObject, pae: bool, near_end: bool) -> None:
        self.kernel = boot(data.draw(st.sampled_from(self.families)), pae, cpus=CPUS)
        self.last = 512 if pae else 1024
        self.pages = high_pages(self.kernel, self.last + 8)
        if near_end:  # as the live guest was preset (linux-facts 5.5)
            self.kernel.permanent.last_pkmap_nr = self.last - 8
        self.where: dict[int, int] = {}  # pfn -> window
        self.counts = [0] * self.last
        self.next = self.kernel.permanent.last_pkmap_nr
        self.seen["pae" if pae else "two-level"] += 1

    def find(self) -> tuple[int | None, bool]:
        """I20, I21: the next free window in a circle, and whether the search wrapped."""
        wrapped, tries = False, self.last
        while tries:
            self.next = (self.next + 1) % self.last
            if self.next == 0:
                wrapped = True
                tries = self.last
                self.free_unused()
            if self.counts[self.next] == 0:
                return self.next, wrapped
            tries -= 1
        return None, wrapped

    def free_unused(self) -> None:
        self.seen["flushed"] += 1
        self.where = {pfn: nr for pfn, nr in self.where.items() if self.counts[nr] != 1}
        self.counts = [0 if count == 1 else count for count in self.counts]

    def map(self, page: Page) -> bool:
        kernel = self.kernel
        if page.pfn in self.where:  # I18
            nr = self.where[page.pfn]
            with Watch(kernel) as watch:
                assert kernel.kmap(page) == kernel.layout.PKMAP_BASE + (nr << 12)
            assert watch.steps == []
            self.seen["unused window again" if self.counts[nr] == 1 else "one more user"] += 1
            self.counts[nr] += 1
            return True
        before = self.counts.count(1)
        free, wrapped = self.find()
        with Watch(kernel) as watch:
            if free is None:  # I21
                with pytest.raises(KernelDeadlock):
                    kernel.kmap(page)
                self.seen["all in use"] += 1
                return False
            address = kernel.kmap(page)
        assert address == kernel.layout.PKMAP_BASE + (free << 12)  # I5
        # I19: nothing is cleared except at a wrap, and then all that nobody uses.
        cleared = sum(what == "pkmap clear" for what, _ in watch.brief)
        assert cleared == (before if wrapped else 0)
        assert watch.brief[-1] == ("pkmap set", free)
        self.where[page.pfn] = free
        self.counts[free] = 2
        self.seen["new window"] += 1
        return True

    @rule(cpu=st.integers(0, CPUS - 1), first=st.integers(0, 500), number=st.integers(1, 12))
    def kmap(self, cpu: int, first: int, number: int) -> None:
        with self.kernel.on(cpu):
            for page in self.pages[first : first + number]:
                self.map(page)

    @rule(cpu=st.integers(0, CPUS - 1), data=st.data(), number=st.integers(1, 12))
    def kunmap(self, cpu: int, data: st.DataObject, number: int) -> None:
        used = sorted(pfn for pfn, nr in self.where.items() if self.counts[nr] > 1)
        if not used:
            return
        first = data.draw(st.integers(0, len(used) - 1))
        with self.kernel.on(cpu), Watch(self.kernel) as watch:
            for pfn in used[first : first + number]:
                self.kernel.kunmap(self.kernel.pfn_to_page(pfn))
                self.counts[self.where[pfn]] -= 1
                self.seen["kunmap"] += 1
        assert watch.steps == []  # I18

    @rule(keep=st.integers(0, 40))
    def fill(self, keep: int) -> None:
        """Every window taken, then all but *keep* given back."""
        mapped = [page for page in self.pages if self.map(page)]
        for page in mapped[keep:]:
            nr = self.where[page.pfn]
            self.kernel.kunmap(page)
            self.counts[nr] -= 1
        self.seen["fill"] += 1

    @rule()
    def kmap_flush_unused(self) -> None:
        if not self.kernel.profile.features.has_kmap_flush_unused:
            return
        self.kernel.kmap_flush_unused()
        self.free_unused()

    @rule(cpu=st.integers(0, CPUS - 1), nr=st.integers(0, 511))
    def touch(self, cpu: int, nr: int) -> None:
        """I17, I23: a window shows its page or nothing, whichever CPU looks, used or not."""
        address = self.kernel.layout.PKMAP_BASE + (nr << 12)
        owner = [pfn for pfn, window in self.where.items() if window == nr]
        with self.kernel.on(cpu):
            if owner:
                assert self.kernel.read32(address) == owner[0]
                self.seen["touched"] += 1
            else:
                with pytest.raises(KernelPageFault):
                    self.kernel.read32(address)

    @invariant()
    def state(self) -> None:
        if not hasattr(self, "counts"):
            return
        kernel, permanent = self.kernel, self.kernel.permanent
        assert permanent.pkmap_count == self.counts
        assert permanent.last_pkmap_nr == self.next
        assert permanent.pkmap_map_wait.tasks == []
        expected = [0] * self.last
        for pfn, nr in self.where.items():
            expected[nr] = window_entry(kernel, pfn)
            address = kernel.page_address(kernel.pfn_to_page(pfn))
            assert address == kernel.layout.PKMAP_BASE + (nr << 12)
        # I17, I20: as many hash entries as windows with a count, each page once.
        assert len(kernel.addresses) == len(self.where) == sum(c > 0 for c in self.counts)
        size = kernel.ptes.entry_size
        raw = kernel.machine.memory.read(permanent.pkmap_page_table, self.last * size)
        assert list(struct.unpack(f"<{self.last}{'Q' if size == 8 else 'I'}", raw)) == expected


# One of each kind: hash, pool of entries, flush_all, kmap_flush_unused, kunmap in interrupts.
@pytest.mark.parametrize("family", ["T0", "T6", "S1", "S2", "S4", "L1"])
def test_random_use(family: str) -> None:
    wanted = ["flushed", "unused window again", "one more user", "all in use", "new window"]
    wanted += ["kunmap", "fill", "touched", "pae", "two-level"]
    run_machine(PermanentUse, family, wanted, share=5)
