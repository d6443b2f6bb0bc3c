"""What a ``kunmap`` call says that gives back no window: which rule it breaks.

It takes a page, counts its users down under ``kmap_lock``, and hits a BUG where there are
none (mm/highmem.c, ``kunmap_high``).  Whether there are none only a complete recording tells,
so a complaint waits for the end of its task, which that BUG is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, Window
from highmem.trace.schema import Function

__all__ = ["OOPS_NS", "Kunmaps"]

OOPS_NS = 10_000_000
"""An oops turns tracing off (oops_enter(), kernel/panic.c) unless it goes to an instance of its
own; other CPUs go on recording for a moment."""
_DEATH_NS = 1_000_000_000
"""How long a task may take to die of a BUG, whose report goes to a slow console first."""


class _Complaint(NamedTuple):
    """A kunmap at which the model hits a BUG: true if its task shows no further call."""

    line: int
    time: int
    sure: bool
    """The recording shows that the page has no users; else it shows no map of it."""
    report: Callable[[bool], None]


class Kunmaps:
    """The kunmap calls of one recording that are wrong, or seem so."""

    __slots__ = ("_session", "complaints")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.complaints: dict[int, _Complaint] = {}

    def _line(self, event: Event, what: str) -> str:
        name = self._session.recorder.task_name(event)
        return f"line {event.line}: {name} on CPU {event.cpu} calls kunmap() of {what}"

    def address_not_page(self, event: Event, owner: Window | None) -> None:
        """The argument is the address of a window, perhaps of *owner*'s."""
        session = self._session
        words = session.words.kunmap_of_no_page(
            high=event.function in (Function.KUNMAP_HIGH, Function.NONE)
        )
        evidence = [self._line(event, f"{event.value:#010x}")]
        if owner is not None:
            evidence.insert(0, owner.describe())
            session.explained.add(owner.line)
        session.recorder.find(
            "address-not-page",
            session.recorder.where(event, event.value),
            f"kunmap() is given the address {event.value:#010x} instead of the page",
            words,
            tuple(evidence),
        )

    def mismatched(self, event: Event, window: Window, words: str) -> None:
        """The page is in the temporary window *window* of the same task, and in no permanent
        one."""
        session = self._session
        session.explained.add(window.line)
        session.recorder.find(
            "mismatched-pair",
            session.recorder.where(event, window.address),
            f"kunmap() of {window.page}, which is in the temporary window {window.address:#010x} "
            "and in no permanent one",
            words,
            (window.describe(), self._line(event, window.page)),
        )

    def complain(self, event: Event, words: str, *, sure: bool) -> None:
        """The page has no users; or, unless *sure*, none that were recorded."""
        session = self._session
        where = session.recorder.where(event)
        page = session.memmap.describe(event.value, event.argument)
        why = "whose window has no users" if sure else "which has no users that were recorded"
        evidence = (self._line(event, page),)

        def report(certain: bool) -> None:
            session.recorder.find(
                "unmapped-kunmap",
                where,
                f"kunmap() of {page}, {why}" + ("" if sure else "; its task ended at once"),
                words,
                evidence,
                certain=certain and sure,
            )

        self.complaints[task_key(event)] = _Complaint(event.line, event.time, sure, report)

    def alive(self, event: Event) -> None:
        """The task goes on, so it did not hit the BUG: a kmap is missing from the recording."""
        complaint = self.complaints.pop(task_key(event), None)
        if complaint is not None:
            self._missing(complaint)

    def _missing(self, complaint: _Complaint) -> None:
        if complaint.sure:
            self._session.recorder.count("calls not judged: events are missing")
        else:
            self._session.recorder.count("kunmap of pages whose kmap was not recorded")

    def died(self, event: Event) -> None:
        """A task ended: what it hit is certain."""
        complaint = self.complaints.pop(task_key(event), None)
        if complaint is None:
            return
        if complaint.sure or event.time - complaint.time < _DEATH_NS:
            complaint.report(True)
        else:
            self._missing(complaint)

    def lost(self) -> None:
        """Events were lost: maps of anybody may be among them."""
        self.complaints.clear()

    def finish(self, end_ns: int) -> None:
        """The recording is over."""
        for complaint in self.complaints.values():
            last = max(self._session.last_return, self._session.last_unmap)
            ends = complaint.line >= last and end_ns - complaint.time < OOPS_NS
            if complaint.sure and (ends or complaint.line < self._session.last_return):
                complaint.report(False)
            elif complaint.sure:
                self._session.recorder.count("calls not judged: the recording ends")
            else:
                self._missing(complaint)
