"""Map calls for pages in low memory: no window, the linear address.

Which pages those are is known once the recording has shown where mem_map begins: from a
page with its frame, or from the first linear address that a call returned.
"""

from __future__ import annotations

from highmem.replay.session import Session
from highmem.replay.state import Event, InFlight
from highmem.trace.schema import Argument

__all__ = ["judge_low", "low_page"]

PAGE_SHIFT = 12


def low_page(flight: InFlight, actual: int | None, session: Session) -> bool:
    """Whether the call is for a page in low memory; sets its prediction if so.

    Without knowledge of mem_map the recorded address tells, and teaches where mem_map is.
    A call whose return is missing too is taken for one of a low page, which changes nothing;
    not so if its task died in it, which only a call for a high page can make it do.
    """
    layout, memmap = session.layout, session.memmap
    if session.profile.maps_low_pages:
        return False
    linear = actual is not None and layout.is_lowmem(actual)
    pfn = memmap.pfn(flight.value) if flight.argument == Argument.PAGE else None
    if pfn is None:
        if flight.died or (actual is not None and not linear):
            return False
        flight.why_not = "the first page in low memory"
        if linear and flight.argument == Argument.PAGE:
            assert actual is not None
            memmap.learn(flight.value, (actual - layout.PAGE_OFFSET) >> PAGE_SHIFT)
    elif pfn < layout.max_low_pfn:
        flight.predicted = layout.PAGE_OFFSET + (pfn << PAGE_SHIFT)
    else:
        return False
    flight.low = True
    session.verdict.low_maps += 1
    return True


def judge_low(flight: InFlight, event: Event, session: Session) -> None:
    """Compare a linear address with the prediction."""
    if flight.predicted == event.value:
        session.verdict.right += 1
        return
    session.verdict.wrong += 1
    session.recorder.find(
        "window-moved",
        session.recorder.where(event, event.value),
        f"the kernel returned {event.value:#010x} for a page in low memory, whose linear "
        f"address is {flight.predicted:#010x}",
        "not known",
        (f"line {flight.line}: {session.memmap.describe(flight.value, flight.argument)}",),
    )
