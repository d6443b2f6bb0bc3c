"""What Linux promises about the addresses of its windows, in short.

Written from the facts about the kernels and not from the model, which is held to it: who flushes
what, which entry an unmap clears, which permanent window comes next. The addresses themselves
come from the layout, which has tests of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from highmem.kernel.kernel import Kernel
from highmem.machine.entry import GLOBAL, NX, RW, USER
from highmem.machine.paging import Walk

__all__ = ["PAGE_MASK", "Contract", "Mapping", "Stack"]

PAGE_MASK = 0xFFFFF000
PLAIN = 0x163
"""kmap_prot (linux-facts section 6): PRESENT, RW, ACCESSED, DIRTY, GLOBAL; NX on PAE comes on."""


class Mapping(NamedTuple):
    """What the tables must say about one page: its frame's address and the combined rights."""

    frame: int
    rw: bool = True
    user: bool = False
    nx: bool = False
    is_global: bool = True

    def agrees(self, walked: Walk) -> bool:
        """Whether ``walked`` found this."""
        if walked.physical is None or walked.physical & ~0xFFF != self.frame:
            return False
        return (walked.rw, walked.user, walked.nx, walked.is_global) == self[1:]


@dataclass(slots=True)
class Stack:
    """The windows of a CPU (stack era) or a task (local era), by depth."""

    depth: int = 0
    slots: dict[int, Mapping | None] = field(default_factory=dict)


class Contract:
    """What Linux promises about the windows of one CPU (linux-facts sections 1 to 6).

    ``pages`` maps the address of every page that must be mapped outside the direct map. ``owed``
    are the pages whose translation changed without a flush of their address since, ``flushed`` the
    flushes that Linux does, in order (-1 is one of everything). ``before`` is ``pages`` as it was
    when the latest call began.
    """

    def __init__(self, kernel: Kernel, cpu: int) -> None:
        self.profile = profile = kernel.profile
        self.layout = kernel.layout
        self._cpu = cpu
        self._step = 2 if profile.guard_slots else 1
        self.has_nx = profile.pae and profile.nx
        self.plain = PLAIN if profile.pge and not profile.pti else PLAIN & ~GLOBAL
        self.plain |= NX if profile.pae else 0
        self.pages: dict[int, Mapping] = {}
        self.before: dict[int, Mapping] = {}
        self.owed: set[int] = set()
        self.flushed: list[int] = []
        self.stack = Stack()
        self.users: dict[int, int] = {}  # of permanent windows, by frame number
        self.numbers: dict[int, int] = {}  # of the permanent windows, by frame number
        self.last = 0  # the permanent window handed out last
        self.wraps = self.flushes = 0

    def window(self, depth: int) -> int:
        """The address of the window at ``depth`` (typed era: of the ``km_type``)."""
        slot = depth * self._step + self._step - 1 + self.profile.windows_per_cpu * self._cpu
        return self.layout.FIXADDR_TOP - ((self.layout.FIX_KMAP_BEGIN + slot) << 12)

    def at(self, page: int, pages: dict[int, Mapping] | None = None) -> Mapping | None:
        """What must be mapped at ``page``, the direct map included."""
        layout = self.layout
        if layout.PAGE_OFFSET <= page < layout.high_memory:
            return self.mapping((page - layout.PAGE_OFFSET) >> 12, self.plain)
        return (self.pages if pages is None else pages).get(page)

    def mapping(self, pfn: int, prot: int) -> Mapping | None:
        """What an entry with ``prot`` means; user rights need PAE, whose directories grant them
        (section 7.3: 0x067 there, 0x063 in two-level tables)."""
        if not prot & 1:
            return None
        user = bool(prot & USER) and self.profile.pae
        is_global = bool(prot & GLOBAL)
        return Mapping(pfn << 12, bool(prot & RW), user, self.has_nx and prot >= NX, is_global)

    def put(self, page: int, mapping: Mapping | None) -> None:
        """An entry is written; nothing is flushed."""
        if self.pages.pop(page, None) is not None:
            self.owed.add(page)
        if mapping is not None:
            self.pages[page] = mapping

    def flush(self, page: int) -> None:
        """INVLPG."""
        self.owed.discard(page & PAGE_MASK)
        self.flushed.append(page & PAGE_MASK)

    def flush_all(self) -> None:
        """Everything, global entries too."""
        self.owed.clear()
        self.flushed.append(-1)

    def push(self, mapping: Mapping | None) -> int:
        """A window is mapped: no flush."""
        stack = self.stack
        page = self.window(stack.depth)
        stack.slots[stack.depth] = mapping
        stack.depth += 1
        self.put(page, mapping)
        return page

    def pop(self, address: int) -> None:
        """Unmapping clears the entry of the top window and flushes the address that it is given.

        Nothing at all happens for an address outside the area of all CPUs' windows.
        """
        layout, stack = self.layout, self.stack
        top = layout.FIXADDR_TOP - (layout.FIX_KMAP_BEGIN << 12)
        if not layout.FIXADDR_TOP - (layout.FIX_KMAP_END << 12) <= address & PAGE_MASK <= top:
            return
        stack.depth -= 1
        stack.slots.pop(stack.depth, None)
        self.put(self.window(stack.depth), None)
        self.flush(address)

    def switch(self, to: Stack) -> None:
        """Windows of the task that leaves go, flushed; those of the one that comes appear."""
        for depth in self.stack.slots:
            self.put(self.window(depth), None)
            self.flush(self.window(depth))
        self.stack = to
        for depth, mapping in to.slots.items():
            self.put(self.window(depth), mapping)

    def kmap(self, pfn: int) -> int:
        """Section 5.3: the same window again, or the next with count 0; a wrap flushes first."""
        if pfn not in self.numbers:
            while True:
                self.last = (self.last + 1) % self.layout.LAST_PKMAP
                if self.last == 0:
                    self.wraps += 1
                    self.flush_unused()
                if self.last not in self.numbers.values():
                    break
            self.numbers[pfn] = self.last
            self.put(self.pkmap(self.last), self.mapping(pfn, self.plain))
        self.users[pfn] = self.users.get(pfn, 0) + 1
        return self.pkmap(self.numbers[pfn])

    def pkmap(self, number: int) -> int:
        """The address of permanent window ``number``."""
        return self.layout.PKMAP_BASE + (number << 12)

    def flush_unused(self) -> None:
        """Section 5.5: windows without users go, and if any did, so does every TLB entry."""
        unused = [pfn for pfn in self.numbers if not self.users.get(pfn)]
        for pfn in unused:
            self.put(self.pkmap(self.numbers.pop(pfn)), None)
        if unused or self.profile.features.flush_always:
            self.flushes += 1
            self.flush_all()
