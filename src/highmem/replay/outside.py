"""Unmap calls of addresses that are no temporary window.

Most are of low memory, whose maps give the linear address: they do nothing.  What else comes
here was never given by a temporary map.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug
from highmem.replay.driver import Driver
from highmem.replay.session import Session, unmap_line
from highmem.replay.state import Event, Stack, Window

__all__ = ["Outside"]

PAGE_MASK = 0xFFFFF000
PAGE_SIZE = 0x1000


class Outside:
    """Judges the unmap calls of one recording that name no window."""

    __slots__ = ("_driver", "_session")

    def __init__(self, session: Session, driver: Driver) -> None:
        self._session = session
        self._driver = driver

    def unmap(self, event: Event, stack: Stack) -> None:
        """An unmap of an address that is no temporary window."""
        session = self._session
        below = next((w for w in stack.windows if w and w.address == event.value & PAGE_MASK), None)
        if below is not None:
            self._below_first(event, stack, below)
            return
        words = session.words
        words.mark()
        try:
            self._driver.unmap(event.value)
            heard = words.heard()
        except KernelBug as error:
            heard = words.killed(error)
        wrong = self._classify(event.value, [w for w in stack.windows if w])
        if wrong is None:
            session.verdict.low_unmaps += 1
            return
        rule, what, meant = wrong
        if rule == "mismatched-pair":
            heard = words.unmap_too_many(heard)
        evidence = [unmap_line(session, event)]
        if meant is not None:
            session.explained.add(meant.line)
            evidence.insert(0, meant.describe())
        where = session.recorder.where(event, event.value)
        session.recorder.find(rule, where, what, heard, tuple(evidence))

    def _classify(
        self, address: int, windows: list[Window]
    ) -> tuple[str, str, Window | None] | None:
        """The rule that is broken, in what way, and the window that stays open by it."""
        layout, text = self._session.layout, f"{address:#010x}"
        if layout.is_lowmem(address):
            passed = next((w for w in reversed(windows) if w.page_value == address), None)
            if passed is None:
                return None
            instead = f"instead of the window at {passed.address:#010x}, which stays as it is"
            return "page-not-address", f"unmaps the struct page {text} {instead}", passed
        if layout.is_pkmap(address):
            owner = self._session.permanent_at(address)
            what = f"unmaps {text}, a permanent window, with a temporary unmap"
            return "mismatched-pair", what, owner
        if windows and address & PAGE_MASK == windows[-1].address + PAGE_SIZE:
            behind = f"the page behind the window at {windows[-1].address:#010x}"
            what = f"unmaps {text}, {behind}, which stays as it is"
            return "advanced-pointer", what, windows[-1]
        return "not-a-window", f"unmaps {text}, which is neither a window nor low memory", None

    def _below_first(self, event: Event, stack: Stack, window: Window) -> None:
        """A window below the first of CPU 0, opened after a double unmap: the kernel does not take
        its address for a window's, so the index stays and the entry too."""
        if stack.base < 0 and stack.windows[0] is window:
            del stack.windows[0]
            stack.base += 1
            self._session.recorder.closed(window, event)
