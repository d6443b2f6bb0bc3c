"""The reference replay: every recorded call is done by the exact model, one at a time.

Slow and obviously right.  It is the meaning that a faster engine has to reproduce.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highmem.kernel.profile import Era, Profile
from highmem.replay.flights import Flights, MapModel
from highmem.replay.mappings import MappingSink
from highmem.replay.nesting import Nesting
from highmem.replay.permanent import Permanent
from highmem.replay.session import Session
from highmem.replay.state import Event
from highmem.replay.typed import Typed
from highmem.replay.verdict import Verdict
from highmem.trace.schema import COLUMNS, Batch, Function, Kind, Strings

if TYPE_CHECKING:
    from highmem.findings import Where

__all__ = ["FIELDS", "PERMANENT", "Reference"]

PERMANENT = {Function.KMAP, Function.KMAP_HIGH, Function.KUNMAP, Function.KUNMAP_HIGH}
FIELDS = tuple(COLUMNS)


class Reference:
    """Feed it the batches of one recording, then :meth:`finish`.

    ``session``, ``temporary``, ``flights``, ``permanent`` and ``kmaps`` are what an engine shares
    with it.
    """

    def __init__(
        self,
        profile: Profile,
        ram: int,
        strings: Strings,
        verdict: Verdict,
        sinks: list[MappingSink] | None = None,
    ) -> None:
        self.session = session = Session(profile, ram, strings, verdict, sinks)
        self.temporary: Nesting | Typed = (
            Typed(session) if profile.era is Era.TYPED else Nesting(session)
        )
        self.permanent = Permanent(session)
        windows, permanent = self.temporary, self.permanent
        self.flights = Flights(session, MapModel(windows.apply, windows.judge, windows.ahead))
        self.kmaps = Flights(session, MapModel(permanent.apply, permanent.judge))
        self._first_loss: Where | None = None
        self._verdict = verdict
        self._max_cpu = profile.nr_cpus - 1

    def feed(self, batch: Batch) -> None:
        """Judge the events of *batch*."""
        event = Event()
        rows = zip(*(batch.buffer(name).tolist() for name in FIELDS), strict=True)
        for row in rows:
            (
                event.line,
                event.time,
                event.cpu,
                event.pid,
                event.comm,
                event.kind,
                event.function,
                event.argument,
                event.flags,
                event.value,
                event.prot,
                event.km_type,
                event.caller,
                event.next_pid,
                event.next_comm,
                event.state,
            ) = row
            self.event(event)

    def event(self, event: Event) -> None:
        """Judge one event."""
        verdict = self._verdict
        kind = event.kind
        if kind == Kind.LOST:
            self._lost(event)
            return
        if not 0 <= event.cpu <= self._max_cpu:
            self.session.recorder.count("events of a CPU that this kernel cannot have")
            return
        verdict.first_ns = verdict.first_ns or event.time
        verdict.last_ns = max(verdict.last_ns, event.time)
        if kind == Kind.MAP:
            if event.function in PERMANENT:
                self.permanent.enter(event)
                self.kmaps.enter(event)
            else:
                self.flights.enter(event)
        elif kind == Kind.MAP_RETURN:
            self.session.last_return = event.line
            (self.kmaps if event.function in PERMANENT else self.flights).leave(event)
        elif kind == Kind.UNMAP:
            self._unmap(event)
        elif kind == Kind.SWITCH:
            self._switch(event)
        elif kind == Kind.FLUSH:
            self.permanent.flush(event)

    def _unmap(self, event: Event) -> None:
        if event.function in PERMANENT:
            self.kmaps.over(event)
            self.permanent.unmap(event)
        else:
            self._verdict.unmap_calls += 1
            self.session.last_unmap = event.line
            self.flights.over(event)
            self.temporary.unmap(event)

    def _switch(self, event: Event) -> None:
        self._verdict.switches += 1
        # An idle task never ends, whatever a recording says.
        dead = event.pid != 0 and self.session.strings[event.state][:1] in ("X", "Z")
        if dead:
            self.flights.died(event)
            self.kmaps.died(event)
        self.temporary.switch(event, dead)
        if dead:
            self.permanent.died(event)

    def _lost(self, event: Event) -> None:
        session = self.session
        session.lost_at[event.cpu] = event.line
        self.flights.lost(event.cpu)
        self.kmaps.lost(event.cpu)
        self.permanent.lost()
        if isinstance(self.temporary, Typed):
            self.temporary.lost(event.cpu)
        if self._first_loss is None:
            from highmem.findings import Where  # here: see recorder.py

            cpu = event.cpu if event.cpu >= 0 else None
            self._first_loss = Where(line=event.line, time_ns=event.time or None, cpu=cpu)

    def finish(self) -> Verdict:
        """The verdict, once all batches are in."""
        session, verdict = self.session, self._verdict
        self.flights.end()
        self.kmaps.end()
        self.temporary.finish(verdict.last_ns)
        self.permanent.finish()
        session.unmap_doubts.end()
        if session.memmap.disagreements:
            session.recorder.count(
                "page and frame pairs that do not fit one mem_map", session.memmap.disagreements
            )
        if self._first_loss is not None:
            self._report_loss(self._first_loss)
        session.recorder.mappings.flush()
        verdict.findings.sort(key=lambda found: (found.where.line or 0, found.rule.name))
        return verdict

    def _report_loss(self, where: Where) -> None:
        lost = self._verdict.account.lost
        self.session.recorder.find(
            "lost-events",
            where,
            f"the recording lost {lost} event{'s' if lost != 1 else ''}, first here",
            "does not concern it: only the recording is incomplete",
            (),
        )
