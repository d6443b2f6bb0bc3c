"""Permanent mappings: ``kmap``, ``kunmap`` and the page table that they fill.

One page-global-directory entry (on PAE one middle entry), a whole page table: LAST_PKMAP
windows, 1024 or 512 with PAE.  ``pkmap_count[n]`` says of window n

====  =========================================================================
0     free, and no TLB holds a translation of it
1     no users, but the entry is still there and any TLB may hold it
n+1   n users
====  =========================================================================

Source: mm/highmem.c (2.6.36, 5.10, 6.1), arch/x86/mm/highmem_32.c (up to 5.7).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from highmem.errors import UsageError
from highmem.kernel.bug import KernelDeadlock, Severity
from highmem.kernel.context import Context, PerCpu, Task, TaskState
from highmem.kernel.layout import Layout
from highmem.kernel.pages import Page, PageAddresses
from highmem.kernel.pgtable import PageTables
from highmem.kernel.profile import Profile

__all__ = ["PermanentMappings", "WaitQueue"]


@dataclass(slots=True, eq=False)
class WaitQueue:
    """``pkmap_map_wait``: tasks that sleep until a window falls free."""

    tasks: list[Task] = field(default_factory=list)

    def wake_up(self) -> None:
        """All of them can run again."""
        for task in self.tasks:
            task.state = TaskState.RUNNING
        self.tasks.clear()


class PermanentMappings:
    """The pkmap area of one kernel."""

    __slots__ = (
        "_addresses",
        "_context",
        "_features",
        "_flush_all",
        "_layout",
        "_page_at",
        "_tables",
        "last_pkmap_nr",
        "pkmap_count",
        "pkmap_map_wait",
        "pkmap_page_table",
    )

    def __init__(
        self,
        profile: Profile,
        layout: Layout,
        context: Context,
        tables: PageTables,
        addresses: PageAddresses,
        *,
        pkmap_page_table: int,
        pfn_to_page: Callable[[int], Page],
        flush_tlb_all: Callable[[PerCpu], None],
    ) -> None:
        self._features = profile.features
        self._layout = layout
        self._context = context
        self._tables = tables
        self._addresses = addresses
        self._page_at = pfn_to_page
        self._flush_all = flush_tlb_all
        self.pkmap_page_table = pkmap_page_table
        """Physical address of the page table; window n's entry is the n-th."""
        self.pkmap_count = [0] * layout.LAST_PKMAP
        self.last_pkmap_nr = 0
        """The window handed out last; the search for a free one begins after it, so the
        first ever used is 1 and 0 comes only after a wrap."""
        self.pkmap_map_wait = WaitQueue()

    def pte_of(self, nr: int) -> int:
        """Physical address of window *nr*'s entry."""
        return self.pkmap_page_table + nr * self._tables.entry_size

    # kmap

    def kmap(self, page: Page) -> int:
        """The address of *page*, through a permanent window if it is in high memory.

        Raises KernelDeadlock if it would have to sleep: nothing runs that could wake it
        (tasks that can are run with :meth:`kmap_waiting`).
        """
        self._context.might_sleep("kmap")
        if not page.highmem:
            return self._linear(page)
        return self.kmap_high(page)

    def kmap_high(self, page: Page) -> int:
        """A window for a high page, its use count up by one.

        Raises KernelDeadlock where it would have to sleep.
        """
        try:
            next(waiting := self.kmap_waiting(page))
        except StopIteration as done:
            return int(done.value)
        waiting.close()
        task = self._context.this.current
        task.state = TaskState.RUNNING
        self.pkmap_map_wait.tasks.remove(task)
        raise self.deadlock([task])

    def deadlock(self, tasks: list[Task]) -> KernelDeadlock:
        """The exception for *tasks* that wait for a window which nobody will free."""
        return KernelDeadlock(
            self._context.splat(
                Severity.OOPS,
                "map_new_virtual",
                f"all {self._layout.LAST_PKMAP} permanent windows are in use, no task can free one",
                {"waiting": ", ".join(map(str, tasks))},
            )
        )

    def kmap_waiting(self, page: Page) -> Generator[WaitQueue, None, int]:
        """``kmap_high`` as a cooperative task runs it: yields the wait queue each time that it
        sleeps, is resumed when woken, returns the address."""
        vaddr = self._addresses.page_address(page)
        if vaddr is None:
            vaddr = yield from self._map_new_virtual(page)
        nr = self._layout.pkmap_nr(vaddr)
        self.pkmap_count[nr] += 1
        if self.pkmap_count[nr] < 2:
            raise self._context.bug_on("kmap_high", "pkmap_count < 2", nr=nr)
        return vaddr

    def _map_new_virtual(self, page: Page) -> Generator[WaitQueue, None, int]:
        while True:
            nr = self._find_free()
            if nr is not None:
                break
            task = self._context.this.current
            task.state = TaskState.UNINTERRUPTIBLE
            self.pkmap_map_wait.tasks.append(task)
            yield self.pkmap_map_wait
            # Somebody else may have mapped the page while this task slept.
            vaddr = self._addresses.page_address(page)
            if vaddr is not None:
                return vaddr
        vaddr = self._layout.pkmap_address(nr)
        # Neither a busy check nor a TLB flush: a count of 0 says that none is needed.
        entry = self._tables.pfn_pte(page.pfn, self._tables.kmap_prot)
        self._tables.set_pte(self.pte_of(nr), entry)
        self.pkmap_count[nr] = 1
        self._addresses.set_page_address(page, vaddr)
        return vaddr

    def _find_free(self) -> int | None:
        """The next window whose count is 0, or None after LAST_PKMAP tries in a row; each wrap
        to 0 first flushes what nobody uses and starts the count of tries anew."""
        last_pkmap = self._layout.LAST_PKMAP
        tries = last_pkmap
        while True:
            self.last_pkmap_nr = (self.last_pkmap_nr + 1) & (last_pkmap - 1)
            if self.last_pkmap_nr == 0:
                self.flush_all_zero_pkmaps()
                tries = last_pkmap
            if self.pkmap_count[self.last_pkmap_nr] == 0:
                return self.last_pkmap_nr
            tries -= 1
            if tries == 0:
                return None

    # kunmap

    def kunmap(self, page: Page) -> None:
        """One user of *page*'s window less.  The entry, the TLBs and the address stay until the
        next flush."""
        if self._features.kunmap_in_interrupt == "might-sleep":
            self._context.might_sleep("kunmap")
        elif self._context.in_interrupt():
            raise self._context.bug_on("kunmap", "in_interrupt()")
        if page.highmem:
            self.kunmap_high(page)

    def kunmap_high(self, page: Page) -> None:
        """The same for a page known to be in high memory; wakes who waits for a window."""
        vaddr = self._addresses.page_address(page)
        if vaddr is None:
            raise self._context.bug_on("kunmap_high", "!vaddr", pfn=page.pfn)
        nr = self._layout.pkmap_nr(vaddr)
        self.pkmap_count[nr] -= 1
        count = self.pkmap_count[nr]
        if count == 0:
            raise self._context.bug_on("kunmap_high", "!--pkmap_count[nr]", nr=nr)
        if count == 1 and self.pkmap_map_wait.tasks:
            self.pkmap_map_wait.wake_up()

    # Flushing

    def flush_all_zero_pkmaps(self) -> None:
        """Free every window without users and flush the whole area on every CPU.

        Between ``kunmap`` and here the old translation legally stays usable.
        """
        need_flush = self._features.flush_always
        for nr, count in enumerate(self.pkmap_count):
            if count != 1:
                continue
            self.pkmap_count[nr] = 0
            entry = self._tables.read(self.pte_of(nr))
            if self._tables.pte_none(entry):
                raise self._context.bug_on("flush_all_zero_pkmaps", "pte_none(pte)", nr=nr)
            self._tables.pte_clear(self.pte_of(nr))
            self._addresses.set_page_address(self._page_at(self._tables.pte_pfn(entry)), None)
            need_flush = True
        if need_flush:
            for percpu in self._context.cpus:
                self._flush_all(percpu)

    def kmap_flush_unused(self) -> None:
        """The same on demand (2.6.22 on; change_page_attr and Xen call it)."""
        if not self._features.has_kmap_flush_unused:
            raise UsageError("this kernel has no kmap_flush_unused() (it came in 2.6.22)")
        self.flush_all_zero_pkmaps()

    def kmap_high_get(self, page: Page) -> int | None:
        """Pin the window of *page* if it has one, else None.

        Only architectures with ARCH_NEEDS_KMAP_HIGH_GET (some ARM) have this call; it is here
        for code that is written for them.  x86 never calls it.
        """
        vaddr = self._addresses.page_address(page)
        if vaddr is not None and page.highmem:
            nr = self._layout.pkmap_nr(vaddr)
            if self.pkmap_count[nr] < 1:
                raise self._context.bug_on("kmap_high_get", "pkmap_count < 1", nr=nr)
            self.pkmap_count[nr] += 1
        return vaddr

    def _linear(self, page: Page) -> int:
        vaddr = self._addresses.page_address(page)
        assert vaddr is not None
        return vaddr
