"""Kernels to test on, and a watcher that sees in which order one touches its hardware.

The tables of families are facts of the kernels themselves (which release behaves how), written
down a second time and independently of ``highmem.kernel.profile``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

from highmem.kernel.kernel import Kernel
from highmem.kernel.pages import Page
from highmem.kernel.profile import KM_TYPES, Profile, make_profile
from highmem.machine.bus import HardwareOp, OpKind

__all__ = [
    "ALL",
    "KMAP_PROT",
    "LOCAL",
    "STACK",
    "TYPED",
    "Step",
    "Watch",
    "boot",
    "high_pages",
    "km_type",
    "lazy_mmu_mode",
    "low_page",
    "variants",
    "window_entry",
]

TYPED = tuple(f"T{number}" for number in range(11))
STACK = tuple(f"S{number}" for number in range(5))
LOCAL = ("L0", "L1")
ALL = TYPED + STACK + LOCAL
KMAP_PROT = 0x163
"""PRESENT, RW, ACCESSED, DIRTY, GLOBAL: what every recorded window of two-level tables has."""
NX = 1 << 63


def variants(families: Iterable[str]) -> list[tuple[str, bool, bool]]:
    """Every (family, pae, debug) of *families*, for ``pytest.mark.parametrize``."""
    return [(f, pae, debug) for f in families for pae in (False, True) for debug in (False, True)]


@cache
def _profile(family: str, options: tuple[tuple[str, Any], ...]) -> Profile:
    return make_profile(family, **dict(options))


def boot(
    family: str,
    pae: bool = False,
    debug: bool = False,
    *,
    cpus: int = 2,
    ram: int = 2 << 30,
    tlb_capacity: int = 64,
    features: dict[str, Any] | None = None,
    **options: Any,
) -> Kernel:
    """A kernel of *family*, compiled for four CPUs unless the options say otherwise."""
    options = {"nr_cpus": 4, "pae": pae, "debug_highmem": debug} | options
    if features is not None:
        profile = make_profile(family, features=features, **options)
    else:
        profile = _profile(family, tuple(sorted(options.items())))
    return Kernel.boot(profile, ram=ram, cpus=cpus, tlb_capacity=tlb_capacity)


def km_type(name: str) -> int:
    """The number of a ``km_type``, without fences."""
    return KM_TYPES.index(name)


def high_pages(kernel: Kernel, count: int) -> list[Page]:
    """*count* pages of high memory, each with its frame number in its first word."""
    pages = [kernel.alloc_page() for _ in range(count)]
    for page in pages:
        assert page.highmem
        kernel.machine.memory.write32(page.pfn << 12, page.pfn)
    return pages


def low_page(kernel: Kernel) -> Page:
    """A page of low memory, with its frame number in its first word."""
    page = kernel.alloc_page(highmem=False)
    assert not page.highmem
    kernel.machine.memory.write32(page.pfn << 12, page.pfn)
    return page


def window_entry(kernel: Kernel, pfn: int) -> int:
    """What the entry of a window of *pfn* must be (linux-facts section 6: 0x163, NX on PAE)."""
    return pfn << 12 | KMAP_PROT | (NX if kernel.profile.pae else 0)


@contextmanager
def lazy_mmu_mode(kernel: Kernel) -> Iterator[None]:
    """Run the block in lazy MMU mode."""
    kernel.ptes.arch_enter_lazy_mmu_mode()
    try:
        yield
    finally:
        kernel.ptes.arch_leave_lazy_mmu_mode()


class Step(NamedTuple):
    """One thing that a call did to the hardware, and the kernel's counts at that moment.

    ``what`` is ``set`` or ``clear`` (``where``: the window's index from FIX_KMAP_BEGIN),
    ``pkmap set`` or ``pkmap clear`` (``where``: the number of the permanent window),
    ``other`` (an entry elsewhere), ``flush`` (``where``: the address) or ``flush all``.
    """

    what: str
    where: int
    value: int = 0
    cpu: int = 0
    preempt_count: int = 0
    pagefault_disabled: int = 0
    depth: int = 0
    complaints: int = 0

    @property
    def brief(self) -> tuple[str, int]:
        """What and where, without the counts."""
        return self.what, self.where


_FLUSHES = {
    OpKind.TLB_FLUSH_ONE: "flush",
    OpKind.TLB_FLUSH_ALL: "flush all",
    OpKind.TLB_FLUSH_NONGLOBAL: "flush non-global",
}


class Watch:
    """Sees, inside its ``with`` block, every entry written and every TLB flush.

    ``words`` are the raw 32-bit writes of page-table entries; ``steps`` has one step an entry:
    on PAE the write of the low half, which is the one that makes it present or not.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.words: list[tuple[int, int]] = []
        self.steps: list[Step] = []

    def __enter__(self) -> Watch:
        assert self.kernel.machine.bus.observer is None
        self.kernel.machine.bus.observer = self._see
        return self

    def __exit__(self, *_: object) -> None:
        self.kernel.machine.bus.observer = None

    @property
    def brief(self) -> list[tuple[str, int]]:
        """The steps without their counts."""
        return [step.brief for step in self.steps]

    def _see(self, op: HardwareOp) -> None:
        if op.kind in _FLUSHES:
            self._add(_FLUSHES[op.kind], op.address, op)
        elif op.kind is OpKind.ENTRY_WRITE:
            self.words.append((op.address, op.value))
            size = self.kernel.ptes.entry_size
            if op.address % size == 0:
                self._entry(op, size)

    def _entry(self, op: HardwareOp, size: int) -> None:
        kernel = self.kernel
        action = "set" if op.value & 1 else "clear"
        pkmap = (op.address - kernel.tables.pkmap_page_table) // size
        # Two entries more on either side: where a depth gone wrong ends up.
        index = (kernel.kmap_pte - kernel.layout.PAGE_OFFSET - op.address) // size
        total = kernel.profile.windows_per_cpu * kernel.profile.nr_cpus
        value = kernel.ptes.read(op.address)
        if 0 <= pkmap < kernel.layout.LAST_PKMAP:
            self._add(f"pkmap {action}", pkmap, op, value)
        elif -2 <= index < total + 2:
            self._add(action, index, op, value)
        else:
            self._add("other", op.address, op, value)

    def _add(self, what: str, where: int, op: HardwareOp, value: int = 0) -> None:
        kernel = self.kernel
        assert op.cpu is not None
        this = kernel.context.cpus[op.cpu]
        # What a map pushed and an unmap popped so far; the typed era counts nothing.
        depth = this.kmap_atomic_idx or this.current.kmap_ctrl.idx
        self.steps.append(
            Step(
                what, where, value, op.cpu, this.preempt_count,
                this.current.pagefault_disabled, depth, len(kernel.log),
            )
        )  # fmt: skip
