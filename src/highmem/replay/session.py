"""What all parts of one replay share."""

from __future__ import annotations

from collections.abc import Callable

from highmem.errors import UsageError
from highmem.kernel.kernel import Kernel
from highmem.kernel.layout import Layout
from highmem.kernel.profile import Era, Profile
from highmem.replay.doubt import Doubts
from highmem.replay.mappings import MappingBuilder, MappingSink
from highmem.replay.recorder import Recorder
from highmem.replay.state import Event, InFlight, Window, level_of, preempt_depth
from highmem.replay.verdict import Verdict
from highmem.replay.words import KernelWords
from highmem.trace.schema import Argument, Strings

__all__ = ["MemMap", "Session", "task_key", "unmap_line"]

_PAGE_MASK = 0xFFFFF000
_PAGE_SHIFT = 12
_MOST_DESCRIBED = 1024
"""Words about pages that are kept, since the same few pages come again and again."""


def task_key(event: Event) -> int:
    """A number for the task of an event: its pid, or for an idle task one per CPU."""
    return event.pid or -1 - event.cpu


class MemMap:
    """``mem_map`` as the recording shows it: which frame a ``struct page *`` describes.

    One pair of a page and its frame gives the array's base; every later pair has to agree.
    """

    __slots__ = ("_described", "_layout", "_struct_size", "base", "disagreements")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._struct_size = layout.geometry.sizeof_struct_page
        self.base: int | None = None
        self.disagreements = 0
        self._described: dict[tuple[int, int, bool], str] = {}

    def learn(self, page: int, pfn: int) -> None:
        """A call showed that *page* describes frame *pfn*."""
        base = page - pfn * self._struct_size
        if self.base is None:
            self.base = base
            self._described.clear()
        elif base != self.base:
            self.disagreements += 1

    def pfn(self, page: int) -> int | None:
        """The frame of *page*, None while the base is not known or nothing fits."""
        if self.base is None:
            return None
        pfn, rest = divmod(page - self.base, self._struct_size)
        return pfn if rest == 0 and 0 <= pfn < 1 << 24 else None

    def model_pfn(self, value: int, argument: int) -> int:
        """A high frame of the model for what was mapped: the very frame where it is known,
        else some frame that stands for it (which one never changes an address)."""
        layout = self._layout
        pfn = value if argument == Argument.PFN else self.pfn(value)
        if pfn is not None and layout.highstart_pfn <= pfn < layout.highend_pfn:
            return pfn
        if layout.highend_pfn <= layout.highstart_pfn:
            raise self.too_small()
        return layout.highstart_pfn + (value >> 3) % (layout.highend_pfn - layout.highstart_pfn)

    def too_small(self) -> UsageError:
        """The model's machine has not the high memory that the recording shows."""
        layout = self._layout
        frames = max(layout.highend_pfn - layout.highstart_pfn, 0)
        return UsageError(
            f"with so little RAM (--ram) there are {frames} frames of high memory, but the "
            "recording has windows for more: give the RAM of the machine that was recorded, or none"
        )

    def describe(self, value: int, argument: int, *, framed: bool = True) -> str:
        """``page 0x… (frame 0x…)``, as far as it is known; without the frame unless *framed*."""
        key = value, argument, framed
        words = self._described.get(key)
        if words is None:
            if len(self._described) >= _MOST_DESCRIBED:
                self._described.clear()
            words = self._described[key] = self._words(*key)
        return words

    def _words(self, value: int, argument: int, framed: bool) -> str:
        if argument == Argument.PFN:
            return f"frame {value:#x}"
        if argument != Argument.PAGE:
            return "a page that was not recorded"
        pfn = self.pfn(value) if framed else None
        return f"page {value:#x}" + (f" (frame {pfn:#x})" if pfn is not None else "")


class Session:
    """One replay: the modelled kernel, the verdict, and what the parts tell each other."""

    __slots__ = (
        "broke_off",
        "explained",
        "gather",
        "head",
        "kernel",
        "last_return",
        "last_unmap",
        "layout",
        "lost_at",
        "memmap",
        "permanent_at",
        "profile",
        "recorder",
        "strings",
        "unmap_doubts",
        "verdict",
        "window_of_page",
        "words",
    )

    def __init__(
        self,
        profile: Profile,
        ram: int,
        strings: Strings,
        verdict: Verdict,
        sinks: list[MappingSink] | None = None,
    ) -> None:
        self.profile = profile
        self.kernel = Kernel.boot(profile, ram=ram, cpus=profile.nr_cpus)
        self.layout = self.kernel.layout
        self.strings = strings
        self.verdict = verdict
        self.recorder = Recorder(verdict, strings, MappingBuilder(sinks or [], strings))
        self.words = KernelWords(profile, self.kernel.log)
        self.memmap = MemMap(self.layout)
        self.head = True
        """No complete call (map, return, unmap) was seen yet: probes may still be off."""
        self.unmap_doubts = Doubts()
        """What rests on an unmap that is missing."""
        self.explained: set[int] = set()
        """Windows, by the event that opened them, of which a finding says why they stay open."""
        self.last_return = 0
        """The last event that was a return of a map function."""
        self.last_unmap = 0
        """The last event that was an unmap of a temporary window's family."""
        self.gather: Callable[[], None] = lambda: None
        """Called before all stacks are searched: an engine gives back those that it has."""
        self.broke_off: Callable[[int, InFlight], None] = lambda _task, _flight: None
        """The recording ended just after a task entered the call, and nothing came after."""
        self.permanent_at: Callable[[int], Window | None] = lambda _address: None
        """Who holds the permanent window at an address."""
        self.window_of_page: Callable[[Event], Window | None] = lambda _event: None
        """The temporary window of the event's task (or CPU) that shows the event's page."""
        self.lost_at: dict[int, int] = {}
        """CPU (-1: any) to the last event before which events were lost there."""

    def window(self, flight: InFlight, event: Event, address: int) -> Window:
        """What *flight* opened at *address*, returning at *event*."""
        return Window(
            address,
            self.memmap.describe(flight.value, flight.argument),
            flight.value,
            task_key(event),
            self.recorder.task_name(event),
            level_of(flight.flags),
            flight.line,
            flight.time,
            event.cpu,
            pid=event.pid,
            comm=event.comm,
            argument=flight.argument,
            preempt=preempt_depth(flight.flags),
        )

    def slot(self, cpu: int, address: int, expected: int | None) -> int | None:
        """How many windows of *cpu*'s stack lie below the one at *address*; None if the address
        is no window of it.

        Nothing keeps the index of the stack era inside the CPU's own windows, so *expected* is
        accepted beyond their ends as well.
        """
        slot = self.layout.window_address(cpu, 0) - (address & _PAGE_MASK) >> _PAGE_SHIFT
        if 0 <= slot < self.profile.windows_per_cpu:
            if self.profile.era is not Era.LOCAL:
                return slot
            if self.profile.guard_slots:
                slot = slot // 2 if slot % 2 else self.profile.depth_limit
            # The push BUGs before it hands out the last slots.
            return slot if slot < self.profile.depth_limit else None
        return slot if slot == expected and self.profile.era is Era.STACK else None

    def lost_since(self, cpu: int, line: int) -> bool:
        """Whether events that may concern *cpu* were lost after event *line*."""
        lost = self.lost_at
        return bool(lost) and max(lost.get(cpu, 0), lost.get(-1, 0)) > line


def unmap_line(session: Session, event: Event) -> str:
    """One line of evidence: who unmapped what, and where."""
    name = session.recorder.task_name(event)
    return f"line {event.line}: {name} on CPU {event.cpu} unmaps {event.value:#010x}"
