"""Map calls between their entry and their return.

One call can show up to four events: ``__kmap_local_page_prot`` enters
``__kmap_local_pfn_prot``, and each may have a probe at entry and at return, or may not.
A call is done by the model when its first return is seen; where all its returns are
missing, when the next event of the same context shows that it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, InFlight, level_of
from highmem.trace.schema import Argument, Function

__all__ = ["Flights", "MapModel"]

_INNER: dict[Function, tuple[Function, ...]] = {
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

_WINDOW_ONLY = {
    Function.KMAP_ATOMIC_HIGH_PROT,
    Function.KMAP_ATOMIC_PFN,
    Function.KMAP_ATOMIC_PROT_PFN,
    Function.IOMAP_ATOMIC_PROT_PFN,
    Function.KMAP_LOCAL_PFN_PROT,
    Function.KMAP_HIGH,
}
"""Functions that always answer with a window."""


@dataclass(slots=True)
class MapModel:
    """What does the calls: the temporary or the permanent windows."""

    apply: Callable[[InFlight, Event, int | None], None]
    judge: Callable[[InFlight, Event], None]


@dataclass(slots=True, eq=False)
class _Context:
    """The calls of one task at one interrupt level."""

    flights: list[InFlight] = field(default_factory=list)
    done: InFlight | None = None
    """The call that returned last, while nothing else happened since: an outer function whose
    entry was not recorded may still return."""


class Flights:
    """The calls under way, by task and interrupt level."""

    __slots__ = ("_contexts", "_model", "_session")

    def __init__(self, session: Session, model: MapModel) -> None:
        self._session = session
        self._model = model
        self._contexts: dict[tuple[int, int], _Context] = {}

    def _context(self, event: Event) -> _Context:
        key = (task_key(event), level_of(event.flags))
        found = self._contexts.get(key)
        if found is None:
            found = self._contexts[key] = _Context()
        return found

    def enter(self, event: Event) -> None:
        """A map function was entered."""
        context = self._context(event)
        context.done = None
        function = Function(event.function)
        outer = context.flights[-1] if context.flights else None
        if outer is not None and (outer.applied or function not in _INNER.get(outer.function, ())):
            self._settle(context, event)
            outer = None
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
            high=function in _WINDOW_ONLY,
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
        function = Function(event.function)
        flight = self._match(context, function, event)
        if flight is None:
            done = context.done
            if (
                done is not None
                and done.answer == event.value
                and (function in self._outers(done.function))
            ):
                # The function around a call that is done; the next return is another call's.
                flight = done
                flight.function = function
            else:
                flight = self._unseen(event, function)
        if not flight.applied:
            self._model.apply(flight, event, event.value)
        self._model.judge(flight, event)
        flight.answer = event.value
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

    @staticmethod
    def _pass_on(flight: InFlight) -> None:
        """The call around shares the result."""
        outer = flight.outer
        if outer is not None:
            outer.applied = True
            outer.predicted, outer.why_not = flight.predicted, flight.why_not
            outer.window, outer.depth, outer.low = flight.window, flight.depth, flight.low

    @staticmethod
    def _outers(function: Function) -> list[Function]:
        return [outer for outer, inner in _INNER.items() if function in inner]

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
            if function in _INNER.get(top.function, ()):
                # The inner function's entry was not recorded: the outer one's page it is.
                return top
            self._settle_top(context, event)
        return None

    @staticmethod
    def _unseen(event: Event, function: Function) -> InFlight:
        """A return whose entry was not recorded."""
        return InFlight(
            function, event.line, event.time, 0, 0, 0, event.km_type, event.flags, event.cpu,
            high=function in _WINDOW_ONLY,
        )  # fmt: skip

    def over(self, event: Event) -> None:
        """Something else happens in this context: whatever was under way has ended."""
        context = self._context(event)
        context.done = None
        if context.flights:
            self._settle(context, event)

    def _settle(self, context: _Context, event: Event) -> None:
        while context.flights:
            self._settle_top(context, event)

    def _settle_top(self, context: _Context, event: Event) -> None:
        """The innermost call has ended without a recorded return; the model does it now."""
        flight = context.flights.pop()
        if flight.applied:
            if flight.window is not None:
                self._session.recorder.called(flight.window.caller, flight.depth)
            return
        self._session.recorder.count("map calls whose return was not recorded")
        self._model.apply(flight, event, None)
        self._pass_on(flight)

    def lost(self, cpu: int) -> None:
        """Events of *cpu* (-1: any) were lost: calls under way there may have ended."""
        for key in list(self._contexts):
            context = self._contexts[key]
            if context.done is not None and cpu in (-1, context.done.cpu):
                context.done = None
            gone = [f for f in context.flights if cpu in (-1, f.cpu)]
            if gone:
                self._session.recorder.count("map calls under way when events were lost", len(gone))
                context.flights = [f for f in context.flights if f not in gone]
            if not context.flights and context.done is None:
                del self._contexts[key]

    def end(self) -> None:
        """The recording ended: calls under way stay so."""
        left = sum(1 for c in self._contexts.values() for f in c.flights if f.outer is None)
        if left:
            self._session.recorder.count("map calls under way when the recording ended", left)
