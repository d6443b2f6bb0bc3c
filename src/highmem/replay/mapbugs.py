"""Map calls that the kernel does not survive, and the one too many that it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from highmem.kernel.bug import KernelBug
from highmem.replay.driver import Driver, LocalDriver
from highmem.replay.session import Session, task_key
from highmem.replay.state import Event, InFlight, Knowledge, Stack, Suspicion, Window
from highmem.trace.schema import Function

if TYPE_CHECKING:
    from highmem.findings import Where

__all__ = ["MapBugs"]


class MapBugs:
    """Judges the map calls of one recording at which the model hits a BUG, or should."""

    __slots__ = ("_driver", "_limit", "_session", "_stacks")

    def __init__(self, session: Session, driver: Driver, stacks: dict[int, Stack]) -> None:
        self._session = session
        self._driver = driver
        self._stacks = stacks
        self._limit = session.profile.depth_limit
        session.broke_off = self.broke_off

    def hit(self, flight: InFlight, stack: Stack, event: Event, error: KernelBug) -> None:
        """The model hits a BUG: true if the task shows no further call."""
        where = self._session.recorder.entered(flight, event)
        report = self._bug_report(flight, stack, where, error)
        stack.doomed, stack.doomed_by = True, task_key(event)
        stack.suspicions.append(Suspicion(0, event.line, event.time, report))
        if isinstance(self._driver, LocalDriver):
            self._driver.recover(mapping=True)
        else:
            stack.windows.append(None)  # the index was up already and stays, with no window there

    def _bug_report(
        self, flight: InFlight, stack: Stack, where: Where, error: KernelBug
    ) -> Callable[[bool], None]:
        session = self._session
        rule = "busy-entry" if "pte_none" in error.splat.condition else "too-deep"
        page = session.memmap.describe(flight.value, flight.argument)
        what = f"mapping {page} " + (
            "finds the entry of its slot in use"
            if rule == "busy-entry"
            else f"needs a slot more than the {self._limit} there are"
        )
        evidence = tuple(w.describe() for w in stack.windows[-3:] if w)
        words = session.words.bug(error)

        def report(certain: bool) -> None:
            session.recorder.find(rule, where, what, words, evidence, certain=certain)

        return report

    def broke_off(self, task: int, flight: InFlight) -> None:
        """The recording breaks off inside a map call of *task*: did it hit a BUG there?"""
        stack = self._stacks.get(self._driver.key(flight.cpu, task))
        if stack is None or stack.knowledge is Knowledge.UNKNOWN or not flight.high:
            return
        if flight.function is Function.KMAP_HIGH:
            return
        if not stack.all_returned():
            return
        if stack.doomed or not self._driver.enter(flight.cpu, task):
            return
        pfn = self._session.memmap.model_pfn(flight.value, flight.argument)
        try:
            self._driver.unmap(self._driver.map(pfn, self._session.kernel.kmap_prot))
        except KernelBug as error:
            from highmem.findings import Where  # here: see recorder.py

            names = [w.task for w in stack.windows if w and w.task_key == task]
            name = names[-1] if names else f"pid {max(task, 0)}"
            where = Where(line=flight.line, time_ns=flight.time, cpu=flight.cpu, task=name)
            self._bug_report(flight, stack, where, error)(False)

    def too_deep(self, stack: Stack, event: Event, window: Window, depth: int) -> None:
        """Stack era without DEBUG_HIGHMEM: nothing bounds the index."""
        session = self._session
        where = session.recorder.where(event, window.address)
        evidence = tuple(w.describe() for w in stack.windows[-3:] if w)
        what = (
            f"{depth} windows are open at once on CPU {event.cpu}, which has {self._limit}; this "
            f"one is the first of CPU {event.cpu + 1}"
        )

        def confirm() -> None:
            session.recorder.find(
                "too-deep", where, what, "nothing: this kernel has no bound here", evidence
            )

        session.unmap_doubts.wait(
            confirm, lambda: session.recorder.count("deep nesting after the last unmap event")
        )
