"""Replay of permanent mappings: which window ``kmap_high`` hands out, and who gives it back.

The model's own search predicts each new window.  What was mapped before the recording is
learned as it shows: a page that comes back in a window never seen was there already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highmem.kernel.bug import KernelBug, KernelDeadlock
from highmem.kernel.pages import Page
from highmem.replay.kunmaps import Kunmaps
from highmem.replay.lowmem import judge_low, low_page
from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, InFlight, Window

if TYPE_CHECKING:
    from highmem.findings import Where

__all__ = ["Permanent"]


class Permanent:
    """The permanent windows of one recording."""

    __slots__ = (
        "_from_before",
        "_holders",
        "_model",
        "_session",
        "_taken",
        "kunmaps",
        "last_sure",
        "last_unmap",
        "owners",
        "pages",
        "seen",
        "sleepers",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._model = session.kernel.permanent
        self.pages: dict[int, Page] = {}
        """Recorded page pointers to pages of the model; different ones stay different."""
        self._taken: set[int] = set()
        """The frames of those pages."""
        self.seen: set[int] = set()
        """Windows whose state is known, because the recording showed them handed out."""
        self._from_before: set[int] = set()
        """Windows that had been mapped before the recording: their use count is not known."""
        self.last_sure = False
        self.last_unmap = 0
        """The last kunmap event: after it the probe may be off."""
        self.owners: dict[int, list[Window]] = {}
        """Who holds each window that somebody holds, by its number."""
        self._holders: dict[int, int] = {}
        """How many each task holds, of those that hold any."""
        self.kunmaps = Kunmaps(session)
        session.permanent_at = self._owner_at
        self.sleepers: dict[int, tuple[Where, str]] = {}
        """Tasks that entered kmap() while all windows had users: where, and for which page."""
        session.verdict.permanent.size = session.layout.LAST_PKMAP

    def page(self, value: int) -> Page:
        """The page of the model that stands for a recorded pointer."""
        page = self.pages.get(value)
        if page is None:
            layout = self._session.layout
            if len(self.pages) >= 8 * layout.LAST_PKMAP:
                self._drop_unmapped()
            pfn = self._session.memmap.pfn(value)
            if pfn is None or pfn in self._taken or not self._is_high(pfn):
                pfn = self._free_pfn()
            page = self._session.kernel.pfn_to_page(pfn)
            self.pages[value] = page
            self._taken.add(pfn)
        return page

    def _is_high(self, pfn: int) -> bool:
        return self._session.layout.highstart_pfn <= pfn < self._session.layout.highend_pfn

    def _free_pfn(self) -> int:
        layout = self._session.layout
        for pfn in range(layout.highstart_pfn, layout.highend_pfn):
            if pfn not in self._taken:
                return pfn
        raise self._session.memmap.too_small()

    def _drop_unmapped(self) -> None:
        address = self._session.kernel.page_address
        self.pages = {v: page for v, page in self.pages.items() if address(page) is not None}
        self._taken = {page.pfn for page in self.pages.values()}

    # Maps.

    def enter(self, event: Event) -> None:
        """``kmap`` or ``kmap_high`` is entered: does it find a window?

        If all have users it sleeps; that is certain once somebody gives one back before it
        returns.
        """
        layout, page = self._session.layout, self.pages.get(event.value)
        if len(self.owners) < layout.LAST_PKMAP:
            return
        if page is not None and self._session.kernel.page_address(page) is not None:
            return
        self.sleepers[task_key(event)] = (
            self._session.recorder.where(event),
            self._session.memmap.describe(event.value, event.argument),
        )

    def _woken(self) -> None:
        """A window is given back: who waited for one did sleep."""
        sleepers = list(self.sleepers.values())
        self.sleepers.clear()
        for where, page in sleepers:
            self._exhausted(where, page, certain=True)

    def apply(self, flight: InFlight, event: Event, actual: int | None) -> None:
        """Let the model do the call; *actual* is the recorded address if there is one."""
        session = self._session
        flight.applied = True
        session.verdict.map_calls += 1
        self.kunmaps.alive(event)
        if self.sleepers.pop(task_key(event), None) is not None:
            session.recorder.count("calls not judged: events are missing")
        if not flight.high and low_page(flight, actual, session):
            return
        page = self.page(flight.value)
        known = session.kernel.page_address(page)
        flight.depth = 1
        session.verdict.permanent.maps += 1
        session.verdict.permanent.reused += known is not None
        if known is not None and actual is not None and self._flushed_unseen(known, actual):
            flight.why_not = "kmap_flush_unused() was not recorded"
            session.recorder.count("flushes of permanent windows that were not recorded")
            self._model.kmap_flush_unused()
            known = None
        if known is None and actual is not None and not self._expected(actual):
            flight.why_not = "permanent windows from before the recording"
            self._place(page, actual)
        try:
            self._session.kernel.context.this = session.kernel.context.cpus[event.cpu]
            address = self._model.kmap_high(page)
        except KernelDeadlock:
            # The kernel found one, so a kunmap is missing from the recording.
            session.recorder.count("calls not judged: events are missing")
            flight.why_not = "all permanent windows are in use"
            return
        if not flight.why_not:
            flight.predicted = address
            self.last_sure = self.last_sure or known is None
        self._opened(flight, event, address)

    def _opened(self, flight: InFlight, event: Event, address: int) -> None:
        session = self._session
        nr = session.layout.pkmap_nr(address)
        self.seen.add(nr)
        flight.window = window = session.window(flight, event, address)
        window.permanent = True
        self.adopt(nr, window)
        stats = session.verdict.permanent
        stats.windows = len(self.seen)
        stats.most_in_use = max(stats.most_in_use, len(self.owners))

    def adopt(self, nr: int, window: Window) -> None:
        """One more user of window *nr*."""
        self.owners.setdefault(nr, []).append(window)
        self._holders[window.task_key] = self._holders.get(window.task_key, 0) + 1

    def _expected(self, actual: int) -> bool:
        """Whether a new window at *actual* is one that the model can be held to."""
        layout = self._session.layout
        if not layout.is_pkmap(actual):
            return True
        nr = layout.pkmap_nr(actual)
        if not self.seen:
            return False
        return nr in self.seen or nr == self._peek()

    def _peek(self, *, flushed: bool = False) -> int:
        """The window that the model's search would hand out now, or after unused ones are
        *flushed*."""
        count, size = self._model.pkmap_count, self._session.layout.LAST_PKMAP
        wrapped = int(flushed)
        for step in range(1, 2 * size):
            nr = (self._model.last_pkmap_nr + step) % size
            wrapped = wrapped or nr == 0
            if count[nr] == 0 or (wrapped and count[nr] == 1):
                return nr
        return -1

    def _flushed_unseen(self, known: int, actual: int) -> bool:
        """Whether a page left the window *known* for *actual* because unused windows were flushed,
        as module loading does (change_page_attr): without a probe on it that does not show."""
        layout = self._session.layout
        if (
            self._session.verdict.permanent.flushes
            or actual == known
            or not layout.is_pkmap(actual)
        ):
            return False
        if not self._session.profile.features.has_kmap_flush_unused:
            return False
        unused = self._model.pkmap_count[layout.pkmap_nr(known)] == 1
        return unused and layout.pkmap_nr(actual) == self._peek(flushed=True)

    def _place(self, page: Page, actual: int) -> None:
        """*page* had window *actual* before the recording, or took it past windows that were in
        use then: either way it is there now."""
        session, model = self._session, self._model
        nr = session.layout.pkmap_nr(actual)
        ptes = session.kernel.ptes
        ptes.set_pte(model.pte_of(nr), ptes.pfn_pte(page.pfn, ptes.kmap_prot))
        model.pkmap_count[nr] = 1
        session.kernel.addresses.set_page_address(page, actual)
        self._from_before.add(nr)
        if not self.last_sure:
            model.last_pkmap_nr = max(nr, model.last_pkmap_nr if self.seen else 0)

    def _exhausted(self, where: Where, page: str, *, certain: bool) -> None:
        size = self._session.layout.LAST_PKMAP
        self._session.recorder.find(
            "pool-exhausted",
            where,
            f"kmap() of {page} finds all {size} permanent windows in use",
            "the task sleeps until a window is given back",
            (f"line {where.line}: {where.task} calls kmap()",),
            certain=certain,
        )

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
            self._moved(flight, event)

    def _moved(self, flight: InFlight, event: Event) -> None:
        session = self._session
        session.verdict.wrong += 1
        session.recorder.find(
            "window-moved",
            session.recorder.where(event, event.value),
            f"kmap() returned {event.value:#010x}, the model predicts {flight.predicted:#010x}",
            "not known",
            (f"line {flight.line}: {session.memmap.describe(flight.value, flight.argument)}",),
        )
        self.last_sure = False

    # Unmaps.

    def unmap(self, event: Event) -> None:
        """``kunmap`` or ``kunmap_high`` was entered; ``value`` is the page."""
        session = self._session
        session.verdict.permanent.unmaps += 1
        self.last_unmap = event.line
        self.kunmaps.alive(event)
        if self.sleepers:
            self._woken()
        if session.layout.is_pkmap(event.value) or session.layout.is_window(event.value):
            self.kunmaps.address_not_page(event, self._owner_at(event.value))
            return
        page = self.pages.get(event.value)
        address = session.kernel.page_address(page) if page is not None else None
        if page is None or address is None:
            self._unmapped(event)
            return
        nr = session.layout.pkmap_nr(address)
        owners = self.owners.get(nr, [])
        mine = next((w for w in reversed(owners) if w.task_key == task_key(event)), None)
        window = mine or (owners[-1] if owners else None)
        if window is not None:
            owners.remove(window)
            if not owners:
                del self.owners[nr]
            self._released(window)
            session.recorder.closed(window, event)
        try:
            self._model.kunmap_high(page)
        except KernelBug as error:
            self._model.pkmap_count[nr] = 1
            words = session.words.bug(error)
            # What was mapped before the recording may have more users than were recorded.
            self.kunmaps.complain(event, words, sure=nr not in self._from_before)

    def _released(self, window: Window) -> None:
        left = self._holders[window.task_key] - 1
        if left:
            self._holders[window.task_key] = left
        else:
            del self._holders[window.task_key]

    def _unmapped(self, event: Event) -> None:
        """kunmap of a page that is in no permanent window, as far as was recorded."""
        session = self._session
        try:
            self._model.kunmap_high(self.page(event.value))
            return
        except KernelBug as error:
            words = session.words.bug(error)
        window = session.window_of_page(event)
        if window is not None:
            self.kunmaps.mismatched(event, window, words)
        elif session.head:
            session.recorder.count("kunmap of pages whose kmap was not recorded")
        else:
            self.kunmaps.complain(event, words, sure=False)

    def _owner_at(self, address: int) -> Window | None:
        """Who mapped the permanent window at *address* last, of those who still hold it."""
        layout = self._session.layout
        if not layout.is_pkmap(address):
            return None
        owners = self.owners.get(layout.pkmap_nr(address))
        return owners[-1] if owners else None

    def flush(self, event: Event) -> None:
        """``kmap_flush_unused`` was entered."""
        self._session.verdict.permanent.flushes += 1
        if self._session.profile.features.has_kmap_flush_unused:
            self._model.kmap_flush_unused()

    def lost(self) -> None:
        """Events were lost: maps and unmaps of anybody may be among them."""
        self.kunmaps.lost()
        self.sleepers.clear()
        self.seen.clear()
        self._from_before.clear()
        self.owners.clear()
        self._holders.clear()
        self.last_sure = False
        for page in self.pages.values():
            if self._session.kernel.page_address(page) is not None:
                self._session.kernel.addresses.set_page_address(page, None)
        self.pages.clear()
        self._taken.clear()
        self._model.pkmap_count[:] = [0] * len(self._model.pkmap_count)

    def died(self, event: Event) -> None:
        """A task ended: what it hit is certain, what it still holds is likely leaked."""
        key = task_key(event)
        self.kunmaps.died(event)
        if key not in self._holders:
            return
        for owners in self.owners.values():
            for window in owners:
                if window.task_key == key:
                    window.switched_line = event.line

    def finish(self) -> None:
        """The recording is over."""
        session = self._session
        self.kunmaps.finish(session.verdict.last_ns)
        for where, page in self.sleepers.values():
            if session.verdict.permanent.unmaps:
                self._exhausted(where, page, certain=False)
            else:
                session.recorder.count("calls not judged: no kunmap was recorded")
        later = max(self.last_unmap, session.last_unmap)
        for owners in self.owners.values():
            for window in owners:
                session.recorder.mapping(window, 0, -1)
                if not window.switched_line or window.line in session.explained:
                    continue
                if window.page_value and self.last_unmap and window.switched_line < later:
                    self._leaked(window)
                else:
                    session.recorder.count("permanent windows whose kunmap may not be recorded")
        in_use = sum(count > 1 for count in self._model.pkmap_count)
        session.verdict.permanent.in_use_at_end = in_use

    def _leaked(self, window: Window) -> None:
        session = self._session
        session.recorder.find(
            "leaked-window",
            window.where(),
            f"{window.page} keeps the permanent window {window.address:#010x}: the task that "
            "mapped it ended and nobody unmapped it",
            f"nothing, until all {session.layout.LAST_PKMAP} are used up; then kmap() sleeps",
            (window.describe(), f"line {window.switched_line}: {window.task} ends"),
            certain=False,
        )
