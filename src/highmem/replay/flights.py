"""Map calls between their entry and their return.

One call can show up to four events: ``__kmap_local_page_prot`` enters
``__kmap_local_pfn_prot``, and each may have a probe at entry and at return, or may not.
A call is done by the model when its first return is seen; where all its returns are
missing, when the next event of the same context shows that it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from highmem.replay.kunmaps import OOPS_NS
from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, InFlight, level_of
from highmem.trace.schema import FLAG_KNOWN, Argument, Function, Kind

__all__ = ["INNER", "WINDOW_ONLY", "Flights", "MapModel"]

INNER: dict[Function, tuple[Function, ...]] = {
    Function.KMAP_ATOMIC: (
        Function.KMAP_ATOMIC_PROT,
        Function.KMAP_ATOMIC_HIGH_PROT,
        Function.KMAP_LOCAL_PAGE_PROT,
        Function.KMAP_LOCAL_PFN_PROT,
    ),
    Function.KMAP_ATOMIC_PROT: (
        Function.KMAP_ATOMIC_HIGH_PROT,
        Function.KMAP_LOCAL_PAGE_PROT,
        Function.KMAP_LOCAL_PFN_PROT,
    ),
    Function.KMAP_ATOMIC_PFN: (Function.KMAP_ATOMIC_PROT_PFN, Function.KMAP_LOCAL_PFN_PROT),
    Function.IOMAP_ATOMIC_PROT_PFN: (
        Function.KMAP_ATOMIC_PROT_PFN,
        Function.KMAP_LOCAL_PFN_PROT,
    ),
    Function.KMAP_LOCAL_PAGE_PROT: (Function.KMAP_LOCAL_PFN_PROT,),
    Function.KMAP: (Function.KMAP_HIGH,),
}
"""Which functions one calls to do its work."""

WINDOW_ONLY = {
    Function.KMAP_ATOMIC_HIGH_PROT,
    Function.KMAP_ATOMIC_PFN,
    Function.KMAP_ATOMIC_PROT_PFN,
    Function.IOMAP_ATOMIC_PROT_PFN,
    Function.KMAP_LOCAL_PFN_PROT,
    Function.KMAP_HIGH,
}
"""Functions that always answer with a window."""

_FUNCTIONS = {int(function): function for function in Function}
_MOST_WAITING = 8
"""Calls of one task that may wait at once where no flags tell interrupts."""


class MapModel(NamedTuple):
    """What does the calls: the temporary or the permanent windows."""

    apply: Callable[[InFlight, Event, int | None], None]
    judge: Callable[[InFlight, Event], None]
    ahead: Callable[[Event, int], int | None] = lambda _event, _address: None
    """How many windows more lie below one at the address than the model has; None if that
    can not be known."""


@dataclass(slots=True, eq=False)
class _Context:
    """The calls of one task at one interrupt level."""

    flights: list[InFlight] = field(default_factory=list)
    done: InFlight | None = None
    """The call that returned last, while nothing else happened since: an outer function whose
    entry was not recorded may still return."""


class Flights:
    """The calls under way, by task and interrupt level."""

    __slots__ = ("_model", "_session", "contexts")

    def __init__(self, session: Session, model: MapModel) -> None:
        self._session = session
        self._model = model
        self.contexts: dict[tuple[int, int], _Context] = {}

    def _context(self, event: Event) -> _Context:
        key = (event.pid or -1 - event.cpu, level_of(event.flags))
        found = self.contexts.get(key)
        if found is None:
            found = self.contexts[key] = _Context()
        return found

    def enter(self, event: Event) -> None:
        """A map function was entered."""
        context = self._context(event)
        context.done = None
        function = _FUNCTIONS[event.function]
        outer = context.flights[-1] if context.flights else None
        if outer is not None and (outer.applied or function not in INNER.get(outer.function, ())):
            outer = None
            alone = event.flags & FLAG_KNOWN and not self._waiting(context, event)
            if alone or len(context.flights) >= _MOST_WAITING:
                self._settle(context, event)
        flight = InFlight(
            function,
            event.line,
            event.time,
            event.value,
            event.argument,
            event.prot,
            event.km_type,
            event.flags,
            event.cpu,
            outer=outer,
            high=function in WINDOW_ONLY,
        )
        if outer is not None:
            self._learn(outer, flight)
            flight.line, flight.time, flight.flags = outer.line, outer.time, outer.flags
            if flight.argument == Argument.PFN and outer.argument == Argument.PAGE:
                # Findings name the page that the caller passed.
                flight.value, flight.argument = outer.value, outer.argument
        context.flights.append(flight)

    def _learn(self, outer: InFlight, inner: InFlight) -> None:
        if outer.argument == Argument.PAGE and inner.argument == Argument.PFN:
            self._session.memmap.learn(outer.value, inner.value)

    def leave(self, event: Event) -> None:
        """A map function returned."""
        context = self._context(event)
        function = _FUNCTIONS[event.function]
        done = context.done
        if (
            done is not None
            and done.answer == event.value
            and function in self._outers(done.function)
            and (not context.flights or context.flights[-1].unsure)
        ):
            # The function around a call that is done, whose entry was not recorded or lost; the
            # next return is another call's.
            flight = done
            flight.function = function
        else:
            flight = self._match(context, function, event) or self._unseen(event, function)
        if not flight.applied:
            under_way = self._under_way(context, event)
            if not under_way or not self._guessed(flight, under_way, event):
                self._interrupted(self._not_done(under_way), event)
                self._model.apply(flight, event, event.value)
        self._model.judge(flight, event)
        flight.answer, flight.caller = event.value, event.caller
        if flight.window is not None:
            flight.window.caller = self._session.strings[event.caller]
            flight.window.caller_number = event.caller
            flight.window.depth = flight.depth
            if not flight.window.returned:
                flight.window.returned = True
                self._session.recorder.opened(flight.window, flight.depth)
        self._pass_on(flight)
        if flight.outer is None:
            self._session.recorder.called(self._session.strings[event.caller], flight.depth)
        context.done = flight

    def _waiting(self, context: _Context, event: Event) -> list[InFlight]:
        """Calls under way that *event* may have interrupted, outermost first.

        An interrupt shows in the flags; without flags any call under way may be interrupted.
        """
        return self._not_done(self._under_way(context, event))

    @staticmethod
    def _not_done(flights: list[InFlight]) -> list[InFlight]:
        outer = {id(flight.outer) for flight in flights}
        return [f for f in flights if not f.applied and id(f) not in outer]

    def _interrupted(self, waiting: list[InFlight], event: Event) -> None:
        """Let the model do those of the *waiting* calls that had their window when *event*
        interrupted them: its address lies that much deeper."""
        ahead = self._model.ahead(event, event.value) if waiting else None
        for flight in waiting[: max(0, ahead or 0)]:
            flight.high = flight.guessed = True
            self._model.apply(flight, event, None)
            self._pass_on(flight)

    def _under_way(self, context: _Context, event: Event) -> list[InFlight]:
        flights: list[InFlight] = []
        for level in range(level_of(event.flags)):
            lower = self.contexts.get((task_key(event), level))
            if lower is not None:
                flights += lower.flights
        if flights or not event.flags & FLAG_KNOWN:
            flights += context.flights
        return flights

    def _guessed(self, flight: InFlight, under_way: list[InFlight], event: Event) -> bool:
        """Whether the window that *flight* returns was taken for that of a call around it, of
        those that are *under_way*.

        Where several calls were under way, the address of an interrupt tells how many had their
        window and not which; now this one shows that it was the one.
        """
        for other in under_way:
            window = other.window
            if window and other.guessed and not window.returned and other.predicted == event.value:
                break
        else:
            return False
        flight.applied, flight.predicted, flight.depth = True, other.predicted, other.depth
        flight.window = window
        mine = self._session.window(flight, event, event.value)
        for known in fields(mine):
            setattr(window, known.name, getattr(mine, known.name))
        around: InFlight | None = other
        while around is not None:
            around.applied, around.predicted, around.window, around.depth = False, None, None, 0
            around = around.outer
        return True

    @staticmethod
    def _pass_on(flight: InFlight) -> None:
        """The call around shares the result."""
        outer = flight.outer
        if outer is not None:
            outer.applied = True
            outer.predicted, outer.why_not = flight.predicted, flight.why_not
            outer.window, outer.depth, outer.low = flight.window, flight.depth, flight.low
            outer.caller = flight.caller

    @staticmethod
    def _outers(function: Function) -> list[Function]:
        return [outer for outer, inner in INNER.items() if function in inner]

    def _match(self, context: _Context, function: Function, event: Event) -> InFlight | None:
        """Take the call that returns off the list, settling calls whose return is missing."""
        flights = context.flights
        while flights:
            top = flights[-1]
            if top.function == function:
                return flights.pop()
            outer = top.outer
            if outer is not None and outer.function == function:
                # The inner function's return has no probe.
                flights.pop()
                flights.pop()
                if outer.applied:
                    return outer
                top.function, top.outer = function, outer.outer
                return top
            if outer is None and function in self._outers(top.function):
                return flights.pop()
            if function in INNER.get(top.function, ()):
                # The inner function's entry was not recorded: the outer one's page it is.
                return top
            self._settle_top(context, event)
        return None

    @staticmethod
    def _unseen(event: Event, function: Function) -> InFlight:
        """A return whose entry was not recorded."""
        return InFlight(
            function, event.line, event.time, 0, 0, 0, event.km_type, event.flags, event.cpu,
            high=function in WINDOW_ONLY,
        )  # fmt: skip

    def over(self, event: Event) -> None:
        """Something else happens in this context: whatever was under way has ended."""
        context = self._context(event)
        context.done = None
        if not context.flights:
            return
        unmap = event.kind == Kind.UNMAP
        ahead = self._model.ahead(event, event.value) if unmap else None
        waiting = self._waiting(context, event) if unmap else []
        if ahead is not None and ahead >= 0 and (waiting or ahead == 0):
            # The window that is unmapped is that of the innermost call.
            self._interrupted(waiting[:-1], event)
            context.flights[-1].high = True
            self._settle_top(context, event)
        elif event.flags & FLAG_KNOWN:
            self._settle(context, event)

    def died(self, event: Event) -> None:
        """A task ended: the call under way, if any, ended it."""
        context = self.contexts.pop((task_key(event), 0), None)
        if context is not None:
            for flight in context.flights:
                flight.died = True
            self._settle(context, event)

    def _settle(self, context: _Context, event: Event) -> None:
        while context.flights:
            self._settle_top(context, event)

    def _settle_top(self, context: _Context, event: Event) -> None:
        """The innermost call has ended without a recorded return; the model does it now."""
        flight = context.flights.pop()
        if flight.unsure:
            return
        if flight.applied:
            if flight.depth:
                caller = self._session.strings[flight.caller]
                self._session.recorder.called(caller, flight.depth)
            return
        self._session.recorder.count("map calls whose return was not recorded")
        self._model.apply(flight, event, None)
        self._pass_on(flight)

    def lost(self, cpu: int) -> None:
        """Events of *cpu* (-1: any) were lost: calls under way there may have ended."""
        for key in list(self.contexts):
            context = self.contexts[key]
            if context.done is not None and cpu in (-1, context.done.cpu):
                context.done = None
            unsure = [f for f in context.flights if cpu in (-1, f.cpu) and not f.unsure]
            for flight in unsure:
                flight.unsure = True
                # Its return that comes may be a later call's.
                flight.value, flight.argument = 0, Argument.NONE
                self._session.recorder.count("map calls under way when events were lost")
            if not context.flights and context.done is None:
                del self.contexts[key]

    def adopt_context(
        self, task: int, level: int, flights: list[InFlight], done: InFlight | None
    ) -> None:
        """Take over the calls of a task at an interrupt level, outermost first."""
        self.contexts[task, level] = _Context(flights, done)

    def release_context(self, task: int, level: int) -> bool:
        """Forget a context if nothing is under way or just done in it; whether that is so."""
        context = self.contexts.get((task, level))
        if context is not None and (context.flights or context.done is not None):
            return False
        self.contexts.pop((task, level), None)
        return True

    def rests(self, task: int, level: int) -> bool:
        """Whether no call is under way there; one that returned last is forgotten then."""
        context = self.contexts.get((task, level))
        if context is not None and not context.flights:
            del self.contexts[task, level]
        return context is None or not context.flights

    def end(self) -> None:
        """The recording ended: calls under way stay so."""
        session = self._session
        last = max(session.last_return, session.last_unmap)
        for (task, _), context in self.contexts.items():
            flight = context.flights[-1] if context.flights else None
            if flight is None or flight.applied or flight.unsure or flight.line < last:
                continue
            if session.verdict.last_ns - flight.time < OOPS_NS:
                session.broke_off(task, flight)
        calls = [f for c in self.contexts.values() for f in c.flights]
        left = sum(1 for f in calls if f.outer is None and not f.unsure)
        if left:
            session.recorder.count("map calls under way when the recording ended", left)
