"""Moves stacks and calls between the engine's arrays and the reference's objects.

The engine hands over whatever it does not judge itself: the stack and the context of that
event become objects of the reference, with the exact model in the same state; once they are
plain again, they go back.  A *plain* stack is known (or assumed) and holds only windows
whose map was seen and which nothing odd has happened to.
"""

from __future__ import annotations

from collections.abc import Sequence

from highmem.replay.nesting import Nesting
from highmem.replay.reference import Reference
from highmem.replay.state import Event, InFlight, Knowledge, Stack, Window, level_of, preempt_depth
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_KNOWN,
    FLAG_NMI,
    FLAG_SOFTIRQ,
    PREEMPT_SHIFT,
    Function,
)

__all__ = ["NUMBERS", "OUTCOMES", "Bridge"]

MOST_PLAIN = 40
"""Windows that a stack of the engine can hold."""
HIGH, FRAMED, RETURNED = 1 << 16, 1 << 8, 1 << 9
NUMBERS = MOST_PLAIN, HIGH, FRAMED, RETURNED
"""What the engine has to agree on."""
KMAPPED = 10
"""The bit of a window's *what* that says that it is a permanent one."""
OUTCOMES = 2, 3, 4, 5, KMAPPED
"""What the engine and its part for permanent windows have to agree on: what became of an event
(called, called with a low page, closed, the reference's alone), and KMAPPED."""

WindowRow = tuple[int, ...]
"""address, page, what (its argument, FRAMED: described with its frame, RETURNED), task key, flags,
line, time, cpu, pid, comm, depth, caller"""
FlightRow = tuple[int, ...]
"""what (its function, its argument << 8, HIGH), line, time, value, flags, cpu, predicted (-1: the
model has not done it, and what follows means nothing), depth, index of its window in the stack
(-1: none), caller"""
_LEVELS = (0, FLAG_SOFTIRQ, FLAG_HARDIRQ, FLAG_NMI)


class Bridge:
    """One engine's way to its reference."""

    __slots__ = ("_flights", "_kept", "_nesting", "_session", "reference")

    def __init__(self, reference: Reference) -> None:
        assert isinstance(reference.temporary, Nesting)
        self.reference = reference
        self._session = reference.session
        self._nesting = reference.temporary
        self._flights = reference.flights
        self._kept: dict[int, list[Window]] = {}
        """The reference's own windows of stacks that the engine has: calls that are still with
        the reference may refer to them, so they come back as the same objects."""

    def event(self, event: Event) -> None:
        """Let the reference judge *event*."""
        self.reference.event(event)

    # Stacks.

    def give_stack(
        self, key: int, known: bool, cpu: int, touched: int, rows: Sequence[WindowRow]
    ) -> None:
        """The engine's stack becomes the reference's."""
        knowledge = Knowledge.KNOWN if known else Knowledge.ASSUMED
        stack = Stack(key, knowledge, cpu, touched)
        kept = {window.line: window for window in self._kept.pop(key, ())}
        stack.windows.extend(self._window(row, kept.get(row[5])) for row in rows)
        self._nesting.adopt_stack(stack)

    def _window(self, row: WindowRow, kept: Window | None) -> Window:
        address, page, what, task_key, flags, line, time, cpu, pid, comm, depth, caller = row
        argument, returned = what & 0xFF, bool(what & RETURNED)
        session = self._session
        if kept is not None and kept.address == address:
            kept.caller, kept.caller_number = session.strings[caller], caller
            kept.depth, kept.returned = depth, returned
            return kept
        return Window(
            address,
            session.memmap.describe(page, argument, framed=bool(what & FRAMED)),
            page,
            task_key,
            f"{session.strings[comm]}-{pid}",
            level_of(flags),
            line,
            time,
            cpu,
            pid=pid,
            comm=comm,
            argument=argument,
            depth=depth,
            caller=session.strings[caller],
            caller_number=caller,
            preempt=preempt_depth(flags),
            returned=returned,
        )

    def take_stack(self, key: int) -> tuple[bool, int, int, list[WindowRow]] | None:
        """The reference's stack for the engine: known, cpu, touched and its windows; None if
        it is not plain, or not there."""
        stack = self._nesting.find_stack(key)
        if stack is None or not self._plain(stack):
            return None
        kept = [window for window in stack.windows if window is not None]
        if kept:
            self._kept[key] = kept
        rows = [self._row(window) for window in kept]
        self._nesting.release_stack(stack)
        return stack.knowledge is Knowledge.KNOWN, stack.cpu, stack.touched, rows

    @staticmethod
    def _row(window: Window) -> WindowRow:
        what = window.argument
        what |= FRAMED if "(frame" in window.page else 0
        what |= RETURNED if window.returned else 0
        flags = _LEVELS[window.level]
        if window.preempt is not None:
            flags |= FLAG_KNOWN | window.preempt << PREEMPT_SHIFT
        return (
            window.address,
            window.page_value,
            what,
            window.task_key,
            flags,
            window.line,
            window.time,
            window.cpu,
            window.pid,
            window.comm,
            window.depth,
            window.caller_number,
        )

    @staticmethod
    def _plain(stack: Stack) -> bool:
        if stack.knowledge is Knowledge.UNKNOWN or stack.suspicions or stack.orphans:
            return False
        if stack.disordered or stack.doomed or stack.base or len(stack.windows) > MOST_PLAIN:
            return False
        return all(
            w and not w.switched_line and not w.named and w.page_value >> 63 == 0
            for w in stack.windows
        )

    def has_stack(self, key: int) -> bool:
        """Whether the reference knows a stack of that number."""
        return self._nesting.find_stack(key) is not None

    def at_the_edge(self, key: int) -> bool:
        """Whether a CPU's next window, or its next unmap, leaves its own slots."""
        stack = self._nesting.find_stack(key)
        limit = self._session.profile.depth_limit
        return stack is not None and (stack.base < 0 or len(stack.windows) >= limit)

    def leaves_own_slots(self, key: int) -> bool:
        """Whether the index of a CPU is below 0 or past its last slot (stack era)."""
        stack = self._nesting.find_stack(key)
        limit = self._session.profile.depth_limit
        return stack is not None and (stack.base < 0 or len(stack.windows) > limit)

    # Calls under way.

    def give_context(
        self, task_key: int, level: int, stack_key: int, flights: list[FlightRow], done: FlightRow
    ) -> None:
        """The engine's calls of a task at an interrupt level become the reference's; *done* is
        empty if none returned last."""
        stack = self._nesting.find_stack(stack_key)
        made: list[InFlight] = []
        for row in flights:
            made.append(self._flight(row, stack, made[-1] if made else None))
        last = self._flight(done, stack, None) if done else None
        if last is not None:
            last.answer = last.predicted
        self._flights.adopt_context(task_key, level, made, last)

    @staticmethod
    def _flight(row: FlightRow, stack: Stack | None, outer: InFlight | None) -> InFlight:
        what, line, time, value, flags, cpu, predicted, depth, index, caller = row
        flight = InFlight(
            Function(what & 0xFF),
            line,
            time,
            value,
            what >> 8 & 0xFF,
            0,
            -1,
            flags,
            cpu,
            high=what >= HIGH,
            outer=outer,
        )
        if predicted < 0:
            return flight
        flight.applied, flight.predicted = True, predicted
        flight.depth, flight.low, flight.caller = depth, index < 0, caller
        if stack is not None and 0 <= index < len(stack.windows):
            window = stack.windows[index]
            # Its own may be closed by now, and another in its place.
            flight.window = window if window is not None and window.line == line else None
        return flight

    def take_context(self, task_key: int, level: int) -> bool:
        """Whether nothing is under way there, so that the engine can have it back."""
        return self._flights.release_context(task_key, level)

    # Permanent windows.

    def give_permanent(self, nr: int, row: WindowRow) -> Window:
        """A window of the engine, numbered *nr*, becomes the reference's."""
        window = self._window(row, None)
        window.permanent = True
        self.reference.permanent.adopt(nr, window)
        return window

    def give_kmaps(
        self,
        task_key: int,
        level: int,
        flights: list[tuple[FlightRow, Window | None]],
        done: tuple[FlightRow, Window | None] | None,
    ) -> None:
        """As :meth:`give_context`, of kmap(): each call with its window."""
        made: list[InFlight] = []
        for row, window in flights:
            made.append(self._flight(row, None, made[-1] if made else None))
            made[-1].window = window
        last = self._flight(done[0], None, None) if done else None
        if done and last:
            last.answer, last.window = last.predicted, done[1]
        self.reference.kmaps.adopt_context(task_key, level, made, last)

    def rests(self, task_key: int, level: int) -> bool:
        """Whether no call of kmap() is under way there; one that returned last is forgotten
        then."""
        return self.reference.kmaps.rests(task_key, level)

    def is_address(self, value: int) -> bool:
        """Whether a page's number is the address of a window instead."""
        layout = self._session.layout
        return layout.is_pkmap(value) or layout.is_window(value)
