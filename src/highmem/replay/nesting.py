"""Replay of the stack and local eras: windows that nest, judged call by call.

Every recorded map call is done by the exact model as well; the address that the model
chooses is the prediction.  A stack of windows is *known* while nothing contradicts it;
what a recording does not show (its beginning, losses) makes it unknown until an address
that the kernel chose tells again how many windows are open.
"""

from __future__ import annotations

from highmem.kernel.bug import KernelBug
from highmem.replay.driver import Driver, LocalDriver, make_driver
from highmem.replay.kunmaps import OOPS_NS
from highmem.replay.lowmem import judge_low, low_page
from highmem.replay.mapbugs import MapBugs
from highmem.replay.outside import Outside
from highmem.replay.session import Session, task_key
from highmem.replay.state import (
    Event,
    InFlight,
    Knowledge,
    Stack,
    Suspicion,
    Window,
    level_of,
)
from highmem.replay.unmaps import Unmaps
from highmem.trace.schema import Kind

__all__ = ["Nesting"]

PAGE_MASK = 0xFFFFF000
_UNKNOWN = "before the first complete call, or after a loss"


class Nesting:
    """The temporary windows of one recording."""

    __slots__ = (
        "_bugs",
        "_driver",
        "_limit",
        "_local",
        "_outside",
        "_session",
        "_stacks",
        "_unmaps",
    )

    def __init__(self, session: Session) -> None:
        self._session = session
        self._driver: Driver = make_driver(session.kernel)
        self._local = self._driver if isinstance(self._driver, LocalDriver) else None
        self._limit = session.profile.depth_limit
        self._stacks: dict[int, Stack] = {}
        self._unmaps = Unmaps(session, self._driver, self._stacks)
        self._outside = Outside(session, self._driver)
        self._bugs = MapBugs(session, self._driver, self._stacks)
        session.window_of_page = self._unmaps.window_of_page

    # Stacks.

    def stack(self, event: Event) -> Stack:
        """The stack that a call at *event* nests on; the model is switched to it."""
        key = self._driver.key(event.cpu, task_key(event))
        fits = self._driver.enter(event.cpu, task_key(event))
        stack = self._stacks.get(key)
        if stack is None:
            stack = self._stacks[key] = Stack(key, Knowledge.ASSUMED, event.cpu)
            stack.touched = event.line
        lost = self._session.lost_since(event.cpu, stack.touched)
        goes_on = stack.doomed and stack.doomed_by == task_key(event)
        if goes_on and self._below_first(event):
            self._doom(stack, [])
            stack.dying = True
        if not fits or self._disordered(stack, event) or lost or self._session.head or goes_on:
            self._forget(stack, "events lost" if lost else "")
        if not fits:
            stack.disordered = event.time
        stack.touched = event.line
        stack.cpu = event.cpu
        return stack

    @staticmethod
    def _disordered(stack: Stack, event: Event) -> bool:
        """Whether the order of what the task did on this CPU and on the one before is not known.

        A task does not move while it has a window.  If it seems so, its events of that instant
        may stand in the wrong order: the time was the same on both CPUs, and the text of a
        trace has the first CPU's first.  Then so is what follows, up to its next move.
        """
        moved = bool(stack.disordered) and stack.cpu != event.cpu
        if stack.disordered != event.time:
            stack.disordered = 0
        return moved

    def _below_first(self, event: Event) -> bool:
        """Local era: a window is handed out below the CPU's first, as after the BUG of an unmap
        too many, whose index stays at -1 while a user task gives its memory back."""
        first = self._session.layout.window_address(event.cpu, 0)
        map_returned = event.kind == Kind.MAP_RETURN and event.value == first + 0x1000
        return self._local is not None and map_returned

    def _doom(self, stack: Stack, held: list[Window]) -> None:
        """The task is seen to have hit the BUG, while it *held* windows."""
        for suspicion in stack.suspicions:
            suspicion.report(True)
            # What it held when the BUG killed it stays open for that reason.
            if stack.doomed:
                self._session.explained.update(window.line for window in held)
        stack.suspicions.clear()
        stack.doomed = False

    def find_stack(self, key: int) -> Stack | None:
        """The stack of that number, if there is one."""
        return self._stacks.get(key)

    def adopt_stack(self, stack: Stack) -> None:
        """Take over a stack of windows, and bring the model into its state."""
        self._driver.enter(stack.cpu, stack.key)
        self._driver.set_depth(len(stack.windows))
        self._stacks[stack.key] = stack

    def release_stack(self, stack: Stack) -> None:
        """Forget a stack, and empty it in the model."""
        self._driver.enter(stack.cpu, stack.key)
        self._driver.set_depth(0)
        del self._stacks[stack.key]

    def _forget(self, stack: Stack, why: str) -> None:
        """Nothing is known of *stack* any more."""
        recorder = self._session.recorder
        if stack.suspicions:
            # A task that goes on after the BUG the model predicts shows that events are missing.
            recorder.count("calls not judged: events are missing", len(stack.suspicions))
            stack.suspicions.clear()
        open_windows = sum(window is not None for window in stack.windows)
        if open_windows and why:
            recorder.count("windows open when events were lost", open_windows)
        if why or not self._session.head:
            self._driver.set_depth(0)
            stack.resize(0)
            stack.windows.clear()
        stack.doomed = False
        stack.knowledge = Knowledge.UNKNOWN

    def _adopt(self, stack: Stack, depth: int) -> None:
        """The kernel showed that *depth* windows are open."""
        self._driver.set_depth(depth)
        stack.resize(depth)

    def _own_slot(self, event: Event, address: int) -> int | None:
        """How many windows lie below a new one at *address*, None if it is not of this CPU's."""
        return self._session.slot(event.cpu, address, self._driver.depth())

    def ahead(self, event: Event, address: int) -> int | None:
        """How many windows more lie below one at *address* than the model has."""
        stack = self.stack(event)
        slot = self._own_slot(event, address)
        if slot is None or stack.knowledge is Knowledge.UNKNOWN or stack.suspicions:
            return None
        return slot - self._driver.depth()

    # Maps.

    def apply(self, flight: InFlight, event: Event, actual: int | None) -> None:
        """Let the model do the call; *actual* is the recorded address if there is one."""
        flight.applied = True
        self._session.verdict.map_calls += 1
        self._session.recorder.cpu(event.cpu).maps += 1
        if not flight.high and low_page(flight, actual, self._session):
            if actual is None and flight.predicted is None:
                self._perhaps(event)
            return
        if actual is None and self._doomed_again(event):
            return
        stack = self.stack(event)
        if stack.suspicions and actual is not None:
            self._resolve(stack, event, actual)
        if stack.knowledge is Knowledge.UNKNOWN:
            self._apply_unknown(flight, stack, event, actual)
            return
        self._note_other_task(stack, event)
        inferred = actual is not None and self._inferred(stack, event, actual)
        predicted = self._map(flight, stack, event)
        flight.predicted = None if inferred else predicted
        if inferred:
            flight.why_not = "an interrupt within the call had shown its window"
        elif predicted is None:
            flight.why_not = "the model says that the kernel hits a BUG here"
        for suspicion in stack.suspicions:
            suspicion.other_depth += 1

    def _doomed_again(self, event: Event) -> bool:
        """A task that hit a BUG while it was mapping enters another call and does not return: on
        its way out it hits the same BUG, as its index is where it was."""
        key = self._driver.key(event.cpu, task_key(event))
        stack = self._stacks.get(key)
        if stack is None or not stack.doomed or stack.doomed_by != task_key(event):
            return False
        return stack.all_returned()

    def _inferred(self, stack: Stack, event: Event, actual: int) -> bool:
        """Whether the top window, of which nothing but its slot is known, is the one of this call:
        the events between its entry and its return were those of an interrupt."""
        top = self._driver.depth() - 1
        if not stack.windows or stack.windows[-1] or self._own_slot(event, actual) != top:
            return False
        self._adopt(stack, top)
        return True

    def _perhaps(self, event: Event) -> None:
        """A call whose return is missing was for a page in low memory, or it took a window."""
        stack = self.stack(event)
        if stack.knowledge is Knowledge.KNOWN:
            stack.knowledge = Knowledge.ASSUMED

    def _apply_unknown(
        self, flight: InFlight, stack: Stack, event: Event, actual: int | None
    ) -> None:
        flight.why_not = _UNKNOWN
        slot = None if actual is None else self._own_slot(event, actual)
        if slot is None:
            return
        self._adopt(stack, slot)
        # What an interrupt shows may change before the call that it interrupted returns.
        stack.knowledge = Knowledge.ASSUMED if level_of(event.flags) else Knowledge.KNOWN
        self._map(flight, stack, event)

    def _map(self, flight: InFlight, stack: Stack, event: Event) -> int | None:
        session = self._session
        pfn = session.memmap.model_pfn(flight.value, flight.argument)
        try:
            address = self._driver.map(pfn, session.kernel.kmap_prot)
        except KernelBug as error:
            self._bugs.hit(flight, stack, event, error)
            return None
        flight.window = window = session.window(flight, event, address)
        stack.windows.append(window)
        flight.depth = depth = len(stack.windows)
        if depth == self._limit + 1:
            self._bugs.too_deep(stack, event, window, depth)
        return address

    def judge(self, flight: InFlight, event: Event) -> None:
        """Compare the recorded address with the prediction."""
        session = self._session
        actual = event.value
        if flight.predicted is None:
            session.recorder.not_judged(flight.why_not)
            return
        if flight.low:
            judge_low(flight, event, session)
            return
        stack = self.stack(event)
        if stack.knowledge is not Knowledge.UNKNOWN and flight.predicted == actual:
            session.verdict.right += 1
            if not level_of(event.flags):
                stack.knowledge = Knowledge.KNOWN
            self._confirm_switched(stack)
            return
        predicted, flight.predicted = flight.predicted, None
        flight.why_not = "the other return of a call that was not predicted"
        slot = self._own_slot(event, actual)
        if stack.knowledge is Knowledge.UNKNOWN:
            session.recorder.not_judged(_UNKNOWN)
        elif stack.knowledge is Knowledge.ASSUMED:
            session.recorder.not_judged("the windows that were open already were not known")
        else:
            self._moved(event, predicted)
        if slot is None:
            self._forget(stack, "")
            return
        # The model put its window elsewhere: take it off, and put it where the kernel's is.
        mine = bool(stack.windows) and stack.windows[-1] is flight.window
        window = stack.windows.pop() if mine else None
        if window is not None:
            window.address = actual
        # Below its CPU's own slots (stack era) there is room for it only once it is there.
        self._driver.set_depth(slot + 1)
        stack.resize(slot)
        stack.windows.append(window)
        flight.depth = len(stack.windows)
        # If it was this address that is wrong, the next one will not fit it.
        stack.knowledge = Knowledge.ASSUMED

    def _confirm_switched(self, stack: Stack) -> None:
        """A right prediction counts on every window below: they are really open."""
        if not self._local:
            for window in stack.windows[:-1]:
                if window and window.switched_line:
                    window.confirmed = True

    def _moved(self, event: Event, predicted: int) -> None:
        """A wrong prediction, unless no unmap event follows anywhere."""
        session = self._session
        where = session.recorder.where(event, event.value)
        what = f"the kernel returned {event.value:#010x}, the model predicts {predicted:#010x}"
        caller = session.strings[event.caller]

        def confirm() -> None:
            session.verdict.wrong += 1
            session.recorder.find(
                "window-moved", where, what, "not known", (f"line {event_line}: {caller}",)
            )

        event_line = event.line
        session.unmap_doubts.wait(
            confirm, lambda: session.recorder.not_judged("after the last unmap event")
        )

    def _resolve(self, stack: Stack, event: Event, actual: int) -> None:
        """The kernel's next address on a stack with suspicions tells which story is true."""
        slot = self._own_slot(event, actual)
        depth = self._driver.depth()
        others = {suspicion.other_depth for suspicion in stack.suspicions}
        suspicions, stack.suspicions = stack.suspicions, []
        if slot == depth:
            for suspicion in suspicions:
                suspicion.report(slot not in others)
            return
        self._session.recorder.count("calls not judged: events are missing", len(suspicions))
        if slot is not None:
            self._adopt(stack, slot)
        stack.knowledge = Knowledge.KNOWN

    def _note_other_task(self, stack: Stack, event: Event) -> None:
        """Stack era: another task runs while an atomic window is open on this CPU."""
        if self._local or level_of(event.flags):
            return
        here = task_key(event)
        for window in stack.windows:
            if window and window.level == 0 and window.task_key != here:
                window.switched_line = window.switched_line or event.line

    # The rest.

    def unmap(self, event: Event) -> None:
        """An unmap function was entered."""
        self._session.unmap_doubts.seen()
        stack = self.stack(event)
        if stack.dying:
            return
        self._note_other_task(stack, event)
        if self._session.layout.is_window(event.value & PAGE_MASK):
            self._unmaps.window(event, stack)
        else:
            self._outside.unmap(event, stack)

    def switch(self, event: Event, dead: bool) -> None:
        """``sched_switch``: what does the task that leaves, maybe for ever, still hold?"""
        leaving = task_key(event)
        stack = self._stacks.get(self._driver.key(event.cpu, leaving))
        if stack is not None:
            if self._session.lost_since(event.cpu, stack.touched):
                stack = self.stack(event)
            self._leaves(stack, event, leaving, dead)
        # The model switches when the next task's first call shows where it runs.
        if dead and self._local:
            self._local.forget(leaving)
            self._stacks.pop(leaving, None)

    def _leaves(self, stack: Stack, event: Event, leaving: int, dead: bool) -> None:
        held = [w for w in stack.windows if w and w.task_key == leaving]
        if self._local is None:
            for window in held:
                if window.level == 0:
                    window.switched_line = window.switched_line or event.line
        elif not dead and not self._session.strings[event.state].startswith("R"):
            for window in held:
                self._unmaps.slept(window, event)
        if dead:
            if self._local or stack.doomed:
                self._doom(stack, held)
            for window in held:
                self._unmaps.leaked(window, event, "its task ended")
                if self._local is None:
                    stack.windows[stack.windows.index(window)] = None

    def _ends_it(self, suspicion: Suspicion, end_ns: int) -> bool:
        """Whether the recording breaks off at a call at which the model hits a BUG: an oops turns
        tracing off (oops_enter(), kernel/panic.c), unless it goes to an instance of its own."""
        last = max(self._session.last_unmap, self._session.last_return)
        return suspicion.line >= last and end_ns - suspicion.time < OOPS_NS

    def finish(self, end_ns: int) -> None:
        """The recording is over: suspicions, and windows still open."""
        session = self._session
        doomed = sum(bool(stack.suspicions) for stack in self._stacks.values()) == 1
        for stack in self._stacks.values():
            for suspicion in stack.suspicions:
                whole = doomed and stack.doomed and stack.all_returned()
                ends = whole and self._ends_it(suspicion, end_ns)
                seen = suspicion.line < session.last_return and not suspicion.needs_death
                if ends or seen:
                    suspicion.report(False)
                else:
                    session.recorder.count("calls not judged: the recording ends")
        self._unmaps.finish(end_ns)
