"""What an unmap call says: the right one, or which rule it breaks.

An unmap that does not name the top window is a misuse if the recording is complete, and an
innocent call if events are missing before it.  The next address that the kernel hands out
on that stack tells: it follows from what the kernel's own index became.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug
from highmem.kernel.profile import Era
from highmem.replay.driver import Driver
from highmem.replay.session import Session, task_key, unmap_line
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
            if self._local and not unknown and self._perhaps_foreign(event, stack):
                return
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

    def _perhaps_foreign(self, event: Event, stack: Stack) -> bool:
        """Local era: the first that is seen of a task is that it unmaps an address at which
        another has a window.

        Its own may have been there since before the recording: two tasks can have windows at
        one address.  That the task ends at this call, as by the BUG, tells.
        """
        session = self._session
        address = event.value & PAGE_MASK
        owner = None if session.head else self._owner(address, stack)
        self._driver.enter(event.cpu, task_key(event))  # gathering stacks switches tasks
        if owner is None:
            return False
        words = self._let_kernel(event, stack)
        where = session.recorder.where(event, event.value)
        what = f"unmaps {address:#010x}, a window of {owner.task} on CPU {owner.cpu}"
        evidence = (owner.describe(), unmap_line(self._session, event))

        def report(_certain: bool) -> None:
            session.recorder.find("foreign-unmap", where, what, words, evidence, certain=False)

        stack.suspicions.append(Suspicion(0, event.line, event.time, report, needs_death=True))
        return True

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
        window.renamed = window.named
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
            (window.describe(), unmap_line(self._session, event)),
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
                unmap_line(self._session, event),
            ),
        )

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
            stack.order_evidence.append(unmap_line(self._session, event))
            return
        rule, what, owner = self._classify(event, stack, top, named)
        evidence = [w.describe() for w in (named, owner, top) if w] + [
            unmap_line(self._session, event)
        ]
        if rule == "unmap-order":
            stack.order_evidence = evidence
            assert named is not None
            named.named = True
            if top is not None:
                stack.orphans.append(top)
        where = session.recorder.where(event, event.value)

        moved = self._moved_on(address, top, named)

        def report(certain: bool) -> None:
            name, text = moved if moved and named and named.renamed else (rule, what)
            session.recorder.find(name, where, text, words, tuple(evidence), certain=certain)

        other = below if below is not None else depth
        stack.suspicions.append(Suspicion(other, event.line, event.time, report))

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
            stack.doomed, stack.doomed_by = True, task_key(event)
            self._driver.recover(mapping=False)
            return words.killed(error)
        return words.heard()

    def _classify(
        self, event: Event, stack: Stack, top: Window | None, named: Window | None
    ) -> tuple[str, str, Window | None]:
        """The rule, what happened, and somebody else whose window it is."""
        address = event.value & PAGE_MASK
        if named is not None and not named.named:
            on_top = f"{top.page} at {top.address:#010x}" if top else "another window"
            what = (
                f"unmaps {named.page} at {address:#010x} while {on_top} is on top: the entry of "
                f"the top window is cleared, the one at {address:#010x} stays"
            )
            return "unmap-order", what, None
        if named is None and top is not None and address == top.address + PAGE_SIZE:
            what = (
                f"unmaps {address:#010x}, the page behind the window at {top.address:#010x}: the "
                "pointer was moved past the end"
            )
            return "advanced-pointer", what, None
        owner = self._owner(address, stack)
        if owner is not None:
            what = f"unmaps {address:#010x}, a window of {owner.task} on CPU {owner.cpu}"
            what += "; its own top window is cleared instead" if top else ""
            return "foreign-unmap", what, owner
        what = f"unmaps {address:#010x}, which is not mapped"
        what += f"; the window of {top.page} is cleared instead" if top else ""
        return "double-unmap", what, None

    @staticmethod
    def _moved_on(address: int, top: Window | None, named: Window | None) -> tuple[str, str] | None:
        """What it is if the window that *address* names gets its own unmap later, and the *top*
        one below it, in addresses, none: its pointer was moved on by one page."""
        if top is None or named is None or address != top.address + PAGE_SIZE:
            return None
        return "advanced-pointer", (
            f"unmaps {address:#010x}, the page behind the window at {top.address:#010x}: the "
            f"pointer was moved past the end, to the window of {named.page}"
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

    def window_of_page(self, event: Event) -> Window | None:
        """The window of the event's task (or CPU) that shows the page which is its value."""
        self._session.gather()
        stack = self._stacks.get(self._driver.key(event.cpu, task_key(event)))
        windows = stack.windows if stack is not None else []
        return next((w for w in reversed(windows) if w and w.page_value == event.value), None)

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
        if window.line in session.explained:
            return
        what = f"{window.page} stays mapped at {window.address:#010x}: {why}"
        evidence = (window.describe(), f"line {event.line}: {why} on CPU {event.cpu}")
        words = session.words.leak(preempt_off=bool(window.preempt) and not window.level)

        def confirm() -> None:
            session.recorder.find("leaked-window", window.where(), what, words, evidence)

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
        if window.line in session.explained:
            return
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
