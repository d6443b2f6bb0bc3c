"""What an unmap call says: the right one, or which rule it breaks.

An unmap that does not name the top window is a misuse if the recording is complete, and an
innocent call if events are missing before it.  The next address that the kernel hands out
on that stack tells: it follows from what the kernel's own index became.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug
from highmem.kernel.profile import Era
from highmem.replay.driver import Driver
from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, Knowledge, Stack, Suspicion, Window, level_of
from highmem.replay.verdict import HeldWindow

__all__ = ["Unmaps"]

PAGE_MASK = 0xFFFFF000
PAGE_SIZE = 0x1000


class Unmaps:
    """Judges the unmap calls of one recording."""

    __slots__ = ("_driver", "_local", "_session", "_stacks")

    def __init__(self, session: Session, driver: Driver, stacks: dict[int, Stack]) -> None:
        self._session = session
        self._driver = driver
        self._stacks = stacks
        self._local = session.profile.era is Era.LOCAL

    def window(self, event: Event, stack: Stack) -> None:
        """An unmap of an address inside the windows."""
        session = self._session
        session.recorder.cpu(event.cpu).unmaps += 1
        depth = self._driver.depth()
        below = session.slot(event.cpu, event.value, depth - 1 if stack.windows else None)
        fresh = stack.knowledge is Knowledge.ASSUMED and depth == 0
        whole = below == depth - 1 and bool(stack.windows) and stack.windows[-1] is not None
        unknown = stack.knowledge is Knowledge.UNKNOWN and not whole
        if unknown or (fresh and below is not None):
            self._adopt(stack, below)
            session.recorder.count("unmaps of windows whose map was not recorded")
            return
        for suspicion in stack.suspicions:
            suspicion.other_depth = below if below is not None else suspicion.other_depth
        if below is not None and below == depth - 1:
            if not level_of(event.flags):
                stack.knowledge = Knowledge.KNOWN
            self._proper(event, stack)
        else:
            self._suspicious(event, stack, below, depth)

    def _adopt(self, stack: Stack, below: int | None) -> None:
        if below is None:
            return
        self._driver.set_depth(below)
        stack.resize(below)
        if stack.knowledge is Knowledge.UNKNOWN and not self._session.head:
            stack.knowledge = Knowledge.ASSUMED

    def _proper(self, event: Event, stack: Stack) -> None:
        """The top window, by its own address."""
        session = self._session
        self._driver.unmap(event.value)
        window = stack.windows.pop() if stack.windows else None
        if window is None:
            return
        session.recorder.closed(window, event)
        if window.returned:
            session.head = False
        if self._local or window.level:
            return
        if window.task_key != task_key(event):
            self._foreign(event, window)
        elif window.switched_line:
            self._slept_stack_era(event, window)

    def _foreign(self, event: Event, window: Window) -> None:
        session = self._session
        session.recorder.find(
            "foreign-unmap",
            session.recorder.where(event, event.value),
            f"{session.recorder.task_name(event)} unmaps the atomic window of {window.task}",
            "nothing: the index is per CPU; preemption and page faults of both are now unbalanced",
            (window.describe(), self._line(event)),
        )

    def _slept_stack_era(self, event: Event, window: Window) -> None:
        session = self._session
        session.recorder.find(
            "sleep-in-atomic",
            window.where(),
            f"{window.task} slept while it held {window.page} in an atomic window",
            session.words.sleep(),
            (
                window.describe(),
                f"line {window.switched_line}: another task runs on CPU {window.cpu}",
                self._line(event),
            ),
        )

    def _line(self, event: Event) -> str:
        name = self._session.recorder.task_name(event)
        return f"line {event.line}: {name} on CPU {event.cpu} unmaps {event.value:#010x}"

    # Addresses that are not the top window.

    def _suspicious(self, event: Event, stack: Stack, below: int | None, depth: int) -> None:
        session = self._session
        address = event.value & PAGE_MASK
        top = stack.windows[-1] if stack.windows else None
        orphan = next((w for w in stack.orphans if w.address == address), None)
        named = self._named(stack, below)
        words = self._let_kernel(event, stack)
        cleared = stack.windows.pop() if stack.windows else None
        if cleared is not None:
            session.recorder.mapping(cleared, event.line, event.time)
        if not stack.windows:
            stack.base = min(0, self._driver.depth())
        if orphan is not None and below is not None and below >= depth:
            # The other half of an unmap in the wrong order: its window went before its turn.
            stack.orphans.remove(orphan)
            stack.order_evidence.append(self._line(event))
            return
        rule, what = self._classify(event, stack, top, named)
        evidence = [w.describe() for w in (named, top) if w] + [self._line(event)]
        if rule == "unmap-order":
            stack.order_evidence = evidence
            assert named is not None
            named.named = True
            if top is not None:
                stack.orphans.append(top)
        where = session.recorder.where(event, event.value)

        def report(certain: bool) -> None:
            session.recorder.find(rule, where, what, words, tuple(evidence), certain=certain)

        other = below if below is not None else depth
        stack.suspicions.append(Suspicion(other, event.line, report))

    @staticmethod
    def _named(stack: Stack, below: int | None) -> Window | None:
        if below is None or not 0 <= below - stack.base < len(stack.windows):
            return None
        return stack.windows[below - stack.base]

    def _let_kernel(self, event: Event, stack: Stack) -> str:
        """What the modelled kernel does about this call, in words."""
        words = self._session.words
        words.mark()
        try:
            self._driver.unmap(event.value)
        except KernelBug as error:
            stack.doomed = True
            self._driver.recover(mapping=False)
            return words.killed(error)
        return words.heard()

    def _classify(
        self, event: Event, stack: Stack, top: Window | None, named: Window | None
    ) -> tuple[str, str]:
        address = event.value & PAGE_MASK
        if named is not None and not named.named:
            on_top = f"{top.page} at {top.address:#010x}" if top else "another window"
            return "unmap-order", (
                f"unmaps {named.page} at {address:#010x} while {on_top} is on top: the entry of "
                f"the top window is cleared, the one at {address:#010x} stays"
            )
        if named is None and top is not None and address == top.address + PAGE_SIZE:
            return "advanced-pointer", (
                f"unmaps {address:#010x}, the page behind the window at {top.address:#010x}: the "
                "pointer was moved past the end"
            )
        owner = self._owner(address, stack)
        if owner is not None:
            return "foreign-unmap", (
                f"unmaps {address:#010x}, a window of {owner.task} on CPU {owner.cpu}; its own "
                "top window is cleared instead"
                if top
                else f"unmaps {address:#010x}, a window of {owner.task} on CPU {owner.cpu}"
            )
        return "double-unmap", (
            f"unmaps {address:#010x}, which is not mapped"
            + (f"; the window of {top.page} is cleared instead" if top else "")
        )

    def _owner(self, address: int, stack: Stack) -> Window | None:
        self._session.gather()
        found = [
            window
            for other in self._stacks.values()
            if other is not stack
            for window in other.windows
            if window and window.address == address
        ]
        return max(found, key=lambda window: window.line, default=None)

    # Addresses outside the windows.

    def outside(self, event: Event, stack: Stack) -> None:
        """An unmap of an address that is no temporary window."""
        session, layout = self._session, self._session.layout
        address = event.value
        windows = [w for w in stack.windows if w]
        if any(w.address == address & PAGE_MASK for w in windows):
            return  # below the CPU's first one, after a double unmap; the kernel ignores it
        passed = next((w for w in reversed(windows) if w.page_value == address), None)
        words = session.words
        words.mark()
        try:
            self._driver.unmap(address)
            heard = words.heard()
        except KernelBug as error:
            heard = words.killed(error)
        if passed is not None and layout.is_lowmem(address):
            what = f"unmaps the struct page {address:#010x} instead of {passed.address:#010x}"
            evidence = (passed.describe(), self._line(event))
            self._outside_finding("page-not-address", event, what, heard, evidence)
        elif layout.is_lowmem(address):
            session.verdict.low_unmaps += 1
        elif layout.is_pkmap(address):
            what = f"unmaps {address:#010x}, a permanent window, with a temporary unmap"
            self._outside_finding("mismatched-pair", event, what, heard, (self._line(event),))
        elif windows and address & PAGE_MASK == windows[-1].address + PAGE_SIZE:
            what = f"unmaps {address:#010x}, the page behind {windows[-1].address:#010x}"
            evidence = (windows[-1].describe(), self._line(event))
            self._outside_finding("advanced-pointer", event, what, heard, evidence)
        else:
            what = f"unmaps {address:#010x}, which is neither a window nor low memory"
            self._outside_finding("not-a-window", event, what, heard, (self._line(event),))

    def _outside_finding(
        self, rule: str, event: Event, what: str, heard: str, evidence: tuple[str, ...]
    ) -> None:
        where = self._session.recorder.where(event, event.value)
        self._session.recorder.find(rule, where, what, heard, evidence)

    # Windows that stay.

    def slept(self, window: Window, event: Event) -> None:
        """Local era: the owner of *window* is switched out without being preempted.

        A window that was opened with preemption on may be held while sleeping; one that was
        opened with it off is atomic, unless its user turned preemption on in between, which
        only the caller's name can rule out.
        """
        session = self._session
        if not window.preempt or window.level or window.switched_line:
            return
        window.switched_line = event.line
        certain = window.caller.startswith("kmap_atomic")
        state = session.strings[event.state]
        what = (
            f"{window.task} sleeps (state {state}) while it holds {window.page} in a window "
            f"that was opened with preemption off (depth {window.preempt})"
        )
        evidence = (window.describe(), f"line {event.line}: it is switched out in state {state}")

        def confirm() -> None:
            session.recorder.find(
                "sleep-in-atomic",
                window.where(),
                what,
                session.words.sleep(),
                evidence,
                certain=certain,
            )

        session.unmap_doubts.wait(
            confirm, lambda: session.recorder.count("windows open after the last unmap event")
        )

    def leaked(self, window: Window, event: Event, why: str) -> None:
        """*window* will not be unmapped any more; final once another unmap is seen."""
        session = self._session
        session.recorder.mapping(window, 0, -1)
        what = f"{window.page} stays mapped at {window.address:#010x}: {why}"
        evidence = (window.describe(), f"line {event.line}: {why} on CPU {event.cpu}")

        def confirm() -> None:
            session.recorder.find(
                "leaked-window", window.where(), what, session.words.leak(), evidence
            )

        session.unmap_doubts.wait(
            confirm, lambda: session.recorder.count("windows open after the last unmap event")
        )

    def finish(self, end_ns: int) -> None:
        """List what is open at the end; report what no later unmap can excuse."""
        session = self._session
        windows = [w for stack in self._stacks.values() for w in stack.windows if w]
        for window in sorted(windows, key=lambda w: w.line):
            session.recorder.mapping(window, 0, -1)
            if window.line > session.last_unmap:
                session.recorder.count("windows opened after the last unmap event")
            elif session.lost_since(window.cpu, window.line) and self._forgotten(window):
                session.recorder.count("windows open when events were lost")
            elif window.switched_line and not self._local:
                self._left_behind(window)
            else:
                session.verdict.held.append(held(window, end_ns))

    def _forgotten(self, window: Window) -> bool:
        """Whether events were lost after the last that showed the stack of *window*."""
        return any(
            window in stack.windows and self._session.lost_since(window.cpu, stack.touched)
            for stack in self._stacks.values()
        )

    def _left_behind(self, window: Window) -> None:
        """Stack era: open at the end although other tasks ran on the CPU since."""
        session = self._session
        session.recorder.find(
            "leaked-window",
            window.where(),
            f"{window.page} stays mapped at {window.address:#010x} to the end of the recording, "
            "though other tasks ran on that CPU since",
            session.words.leak(),
            (
                window.describe(),
                f"line {window.switched_line}: another task runs on CPU {window.cpu}",
            ),
            certain=window.confirmed,
        )


def held(window: Window, end_ns: int) -> HeldWindow:
    """The entry for a window that is open at the end."""
    return HeldWindow(
        window.address,
        window.page,
        window.cpu,
        window.task,
        window.caller,
        window.line,
        max(0, end_ns - window.time),
    )
