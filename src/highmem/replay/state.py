"""What a replay keeps about the windows that a recording shows, beside the exact model.

The model knows entries and indexes; these values know which events stand behind them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_KNOWN,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    PREEMPT_SHIFT,
    Function,
)

if TYPE_CHECKING:
    from highmem.findings import Where

__all__ = [
    "Event",
    "InFlight",
    "Knowledge",
    "Stack",
    "Suspicion",
    "Window",
    "level_of",
    "preempt_depth",
]


@dataclass(slots=True, eq=False)
class Event:
    """One row of a batch, unpacked; one object serves for all rows in turn."""

    line: int = 0
    time: int = 0
    cpu: int = 0
    pid: int = 0
    comm: int = 0
    kind: int = 0
    function: int = 0
    argument: int = 0
    flags: int = 0
    value: int = 0
    prot: int = 0
    km_type: int = -1
    caller: int = -1
    next_pid: int = 0
    next_comm: int = -1
    state: int = -1


def level_of(flags: int) -> int:
    """How deep in interrupts an event was: 0 task, 1 soft, 2 hard interrupt, 3 NMI."""
    if flags & FLAG_NMI:
        return 3
    if flags & FLAG_HARDIRQ:
        return 2
    return 1 if flags & FLAG_SOFTIRQ else 0


def preempt_depth(flags: int) -> int | None:
    """The preempt-disable depth of an event, None if the recording has no flags."""
    return flags >> PREEMPT_SHIFT & 0xFF if flags & FLAG_KNOWN else None


class Knowledge(enum.Enum):
    """What is known of a stack of windows."""

    UNKNOWN = 0
    """Nothing: the next address that the kernel chooses tells how many are open."""
    ASSUMED = 1
    """Its owner was not seen before, so it should hold nothing; one address may refute that."""
    KNOWN = 2


@dataclass(slots=True, eq=False)
class Window:
    """An open window and the events behind it."""

    address: int
    page: str
    page_value: int
    """The struct page's address or frame number as recorded, 0 if it was not seen."""
    task_key: int
    task: str
    level: int
    line: int
    time: int
    cpu: int
    pid: int = 0
    comm: int = -1
    argument: int = 0
    depth: int = 0
    caller: str = ""
    caller_number: int = -1
    preempt: int | None = None
    permanent: bool = False
    """Made by kmap(), so it does not nest."""
    switched_line: int = 0
    """The event at which another task ran on the CPU while this atomic window was open."""
    returned: bool = False
    """The map function's return was recorded."""
    confirmed: bool = False
    """After another task ran, an address still showed this window to be open."""
    named: bool = False
    """An unmap named this window while another was on top."""
    renamed: bool = False
    """Later it was unmapped in its turn: the first unmap meant another."""

    def where(self) -> Where:
        """The place where it was opened."""
        from highmem.findings import Where  # here: see recorder.py

        return Where(
            line=self.line, time_ns=self.time, cpu=self.cpu, task=self.task, address=self.address
        )

    def describe(self) -> str:
        """One line of evidence: where and by whom it was opened."""
        by = f" by {self.caller}" if self.caller else ""
        what = f"maps {self.page} at {self.address:#010x}{by}"
        return f"line {self.line}: {self.task} on CPU {self.cpu} {what}"


@dataclass(slots=True, eq=False)
class InFlight:
    """A map call that was entered and has not returned yet, as far as was recorded."""

    function: Function
    line: int
    time: int
    value: int
    argument: int
    prot: int
    km_type: int
    flags: int
    cpu: int
    applied: bool = False
    """The model has done it; ``predicted`` and ``window`` are set."""
    predicted: int | None = None
    """The address that the model predicts; None if it can not be predicted."""
    why_not: str = ""
    caller: int = -1
    """Where it returned to, by its number; of a call around another, the inner one's."""
    answer: int | None = None
    """The address that its latest return showed."""
    window: Window | None = None
    depth: int = 0
    """The nesting depth that it reached; 0 for a low page."""
    low: bool = False
    """The page is in low memory, so the address is linear."""
    high: bool = False
    """It came to a function that is reached by pages without a linear address only."""
    guessed: bool = False
    """That the model has done it follows from the address of a call that interrupted it."""
    unsure: bool = False
    """Events were lost since: it may have returned long ago."""
    died: bool = False
    """Its task ended inside the call."""
    outer: InFlight | None = None
    """The call that this one was made from (``__kmap_local_page_prot`` around
    ``__kmap_local_pfn_prot``)."""


@dataclass(slots=True, eq=False)
class Suspicion:
    """An unmap that is a misuse if the recording is complete, and none if events are missing.

    ``other_depth`` is how many windows are open in the second case; the address of the next
    window that the kernel hands out on this stack decides between the two.
    """

    other_depth: int
    line: int
    time: int
    report: Callable[[bool], None]
    """Makes the finding; the argument says whether it is certain."""
    needs_death: bool = False
    """Nothing but the end of the task at this call makes it one."""


@dataclass(slots=True, eq=False)
class Stack:
    """The windows that nest: of a CPU (stack era), of a task (local era)."""

    key: int
    knowledge: Knowledge
    cpu: int
    touched: int = 0
    """The last event of this stack, to tell whether a loss came after it."""
    windows: list[Window | None] = field(default_factory=list)
    """Bottom first; None for one whose map was not seen."""
    base: int = 0
    """The slot of the lowest window: below 0 after an unmap with nothing left to unmap."""
    suspicions: list[Suspicion] = field(default_factory=list)
    orphans: list[Window] = field(default_factory=list)
    """Windows whose entry an unmap of another window cleared; their own unmap is to come."""
    order_evidence: list[str] = field(default_factory=list)
    """The evidence of the last unmap in the wrong order, to which its other half is added."""
    doomed: bool = False
    """The model says that the kernel hit a BUG here, so its task should do nothing more."""
    doomed_by: int = 0
    """The key of that task: others go on with a CPU's stack, at the index where the BUG left it."""
    disordered: int = 0
    """The time of an event that its task had on another CPU while windows were open, 0 for none."""
    dying: bool = False
    """The task did hit that BUG and still uses windows on its way out, with its index out of
    place: that is nobody's misuse."""

    def all_returned(self) -> bool:
        """Whether the return was recorded of each call behind its windows: where probes were
        switched off one after another, calls without one only seem to nest."""
        return all(window is None or window.returned for window in self.windows)

    def resize(self, depth: int) -> None:
        """Make it that the index is *depth*: drop windows, or add ones that were not seen."""
        if depth < 0:
            self.base = depth
        elif self.base < 0:
            del self.windows[: -self.base]
            self.base = 0
        count = depth - self.base
        del self.windows[count:]
        self.windows.extend([None] * (count - len(self.windows)))
