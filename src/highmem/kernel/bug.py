"""What a kernel says when something is wrong: BUG_ON, WARN_ON, oopses, as values.

A failed ``BUG_ON`` raises :class:`KernelBug` and leaves the state exactly as the kernel
would leave it at that instruction; ``WARN_ON`` and ``WARN_ON_ONCE`` append a
:class:`Splat` to the kernel's log and go on.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from highmem.errors import HighmemError
from highmem.machine.paging import PageFault

__all__ = [
    "KernelBug",
    "KernelDeadlock",
    "KernelLog",
    "KernelOops",
    "KernelPageFault",
    "NotAnAddressError",
    "Severity",
    "Splat",
]


class Severity(enum.Enum):
    """How loud the kernel is."""

    WARN = "WARNING"
    BUG = "kernel BUG"
    OOPS = "Oops"
    SCHED = "BUG: scheduling while atomic"
    SLEEP = "BUG: sleeping function called from invalid context"


class Splat(NamedTuple):
    """One complaint of the modelled kernel.

    ``condition`` is the failed check in words, ``state`` the values that it looked at.
    """

    severity: Severity
    function: str
    condition: str
    cpu: int
    task: str
    state: Mapping[str, int | str] = MappingProxyType({})

    def __str__(self) -> str:
        shown = ", ".join(
            f"{name}={value:#x}" if isinstance(value, int) and value > 9 else f"{name}={value}"
            for name, value in self.state.items()
        )
        text = f"{self.severity.value} in {self.function}() on CPU {self.cpu}, task {self.task}: "
        return text + self.condition + (f" [{shown}]" if shown else "")


class KernelLog:
    """The complaints so far, oldest first; what ``dmesg`` would show of them."""

    __slots__ = ("_once", "silent_repeats", "splats")

    def __init__(self) -> None:
        self.splats: list[Splat] = []
        self.silent_repeats = 0
        """How often a WARN_ON_ONCE failed again and the kernel said nothing."""
        self._once: set[str] = set()

    def add(self, splat: Splat) -> None:
        """WARN_ON: say it each time."""
        self.splats.append(splat)

    def add_once(self, site: str, splat: Splat) -> None:
        """WARN_ON_ONCE: say it the first time that *site* fails since boot."""
        if site in self._once:
            self.silent_repeats += 1
            return
        self._once.add(site)
        self.splats.append(splat)

    def __iter__(self) -> Iterator[Splat]:
        return iter(self.splats)

    def __len__(self) -> int:
        return len(self.splats)


class KernelOops(HighmemError):
    """The modelled kernel would not have survived this; ``splat`` says why."""

    def __init__(self, splat: Splat) -> None:
        self.splat = splat
        super().__init__(str(splat))


class KernelBug(KernelOops):
    """A BUG_ON() was hit."""


class KernelDeadlock(KernelOops):
    """A task waits and nothing can wake it."""


class KernelPageFault(KernelOops):
    """Kernel code touched an address that is not mapped (or not mapped so).

    ``fault`` is the hardware's word, ``report`` the lines that the kernel would print.
    """

    def __init__(self, splat: Splat, fault: PageFault, report: str) -> None:
        self.fault = fault
        self.report = report
        super().__init__(splat)

    def __str__(self) -> str:
        return self.report


class NotAnAddressError(HighmemError, TypeError):
    """A ``struct page *`` was handed to an unmap call that takes an address.

    The kernel refuses this at compile time: ``BUILD_BUG_ON(__same_type((addr), struct
    page *))`` in the macros ``kunmap_atomic`` (2.6.36 and later) and ``kunmap_local``.
    """

    def __init__(self, function: str) -> None:
        super().__init__(
            f"{function}() takes the address that the map call returned, not the page: the "
            "kernel's BUILD_BUG_ON(__same_type((addr), struct page *)) stops this at compile time"
        )
