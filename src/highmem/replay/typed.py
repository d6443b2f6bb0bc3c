"""Replay of the typed era: one window per CPU and ``km_type``, named by the caller.

The address follows from the type alone, so it is predicted from the first event on.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug
from highmem.kernel.profile import KM_TYPES
from highmem.kernel.typed import TypedWindows
from highmem.replay.lowmem import judge_low, low_page
from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, InFlight, Window
from highmem.replay.unmaps import held

__all__ = ["Typed"]

PAGE_MASK = 0xFFFFF000


class Typed:
    """The temporary windows of one recording of the typed era."""

    __slots__ = ("_open", "_session", "_types", "_windows")

    def __init__(self, session: Session) -> None:
        windows = session.kernel.temporary
        assert isinstance(windows, TypedWindows)
        self._session = session
        self._windows = windows
        self._types = session.profile.features.km_types
        self._open: dict[tuple[int, int], Window] = {}

    def apply(self, flight: InFlight, event: Event, actual: int | None) -> None:
        """Let the model do the call."""
        session = self._session
        flight.applied = True
        session.verdict.map_calls += 1
        session.recorder.cpu(event.cpu).maps += 1
        if not flight.high and low_page(flight, actual, session):
            return
        if not 0 <= flight.km_type < self._types:
            flight.why_not = "the recording does not show the km_type"
            return
        session.kernel.context.this = session.kernel.context.cpus[event.cpu]
        pfn = session.memmap.model_pfn(flight.value, flight.argument)
        page, prot = session.kernel.pfn_to_page(pfn), session.kernel.kmap_prot
        try:
            if flight.high:
                address = self._windows.kmap_atomic_prot_pfn(pfn, prot, flight.km_type)
            else:
                address = self._windows.kmap_atomic_prot(page, prot, flight.km_type)
        except KernelBug as error:
            if flight.died:
                self._busy(flight, event, error)
            else:
                # The kernel got through, so an unmap is missing from the recording.
                session.recorder.count("calls not judged: events are missing")
            slot = self._windows.slot_of(flight.km_type)
            address = session.layout.window_address(event.cpu, slot)
        flight.predicted = address
        self._opened(flight, event, address)

    def _opened(self, flight: InFlight, event: Event, address: int) -> None:
        session = self._session
        flight.window = window = session.window(flight, event, address)
        self._open[event.cpu, flight.km_type] = window
        flight.depth = sum(1 for cpu, _ in self._open if cpu == event.cpu)

    def _busy(self, flight: InFlight, event: Event, error: KernelBug) -> None:
        session = self._session
        before = self._open.get((event.cpu, flight.km_type))
        name = KM_TYPES[flight.km_type]
        where = session.recorder.entered(flight, event)
        page = session.memmap.describe(flight.value, flight.argument)
        evidence = (before.describe(),) if before else ()
        words = session.words.bug(error)

        def confirm() -> None:
            what = f"mapping {page} finds the window of {name} on CPU {event_cpu} in use"
            session.recorder.find("busy-entry", where, what, words, evidence)

        event_cpu = event.cpu
        session.unmap_doubts.wait(
            confirm, lambda: session.recorder.count("calls not judged: the recording ends")
        )

    def ahead(self, event: Event, address: int) -> int | None:
        """Nothing nests."""
        return None

    def judge(self, flight: InFlight, event: Event) -> None:
        """Compare the recorded address with the prediction."""
        session = self._session
        if flight.predicted is None:
            session.recorder.not_judged(flight.why_not)
        elif flight.low:
            judge_low(flight, event, session)
        elif flight.predicted == event.value:
            session.verdict.right += 1
        else:
            session.verdict.wrong += 1
            what = f"the kernel returned {event.value:#010x}, not {flight.predicted:#010x}"
            where = session.recorder.where(event, event.value)
            session.recorder.find("window-moved", where, what, "not known", ())

    def unmap(self, event: Event) -> None:
        """An unmap function was entered."""
        session = self._session
        session.unmap_doubts.seen()
        address = event.value & PAGE_MASK
        if not 0 <= event.km_type < self._types:
            session.recorder.count("unmaps without a km_type")
            return
        if not session.layout.is_window(address):
            session.verdict.low_unmaps += session.layout.is_lowmem(address)
        else:
            session.recorder.cpu(event.cpu).unmaps += 1
        self._judge_unmap(event, address)

    def _judge_unmap(self, event: Event, address: int) -> None:
        session, words = self._session, self._session.words
        session.kernel.context.this = session.kernel.context.cpus[event.cpu]
        window = self._open.get((event.cpu, event.km_type))
        own = session.layout.window_address(event.cpu, self._windows.slot_of(event.km_type))
        words.mark()
        try:
            self._windows.kunmap_atomic(event.value, event.km_type)
            heard = words.heard()
        except KernelBug as error:
            heard = words.killed(error)
        if address == own:
            if window is not None:
                del self._open[event.cpu, event.km_type]
                session.recorder.closed(window, event)
            session.head = False
        elif not session.layout.is_lowmem(address):
            self._wrong_window(event, window, own, heard)

    def _wrong_window(self, event: Event, window: Window | None, own: int, heard: str) -> None:
        session = self._session
        inside = session.layout.is_window(event.value & PAGE_MASK)
        rule = "foreign-unmap" if inside else "not-a-window"
        what = (
            f"unmaps {event.value:#010x} as {KM_TYPES[event.km_type]}, whose window on CPU "
            f"{event.cpu} is {own:#010x}"
        )
        evidence = (window.describe(),) if window else ()
        session.recorder.find(
            rule, session.recorder.where(event, event.value), what, heard, evidence
        )

    def switch(self, event: Event, dead: bool) -> None:
        """``sched_switch``: an atomic window must not be open."""
        for (cpu, _), window in self._open.items():
            if cpu == event.cpu and window.task_key == task_key(event) and not window.level:
                window.switched_line = window.switched_line or event.line

    def finish(self, end_ns: int) -> None:
        """List what is open at the end."""
        session = self._session
        for window in self._open.values():
            session.recorder.mapping(window, 0, -1)
            session.verdict.held.append(held(window, end_ns))

    def lost(self, cpu: int) -> None:
        """Events were lost: what is open there is not known."""
        for key in [key for key in self._open if cpu in (-1, key[0])]:
            del self._open[key]
