"""Programs that use windows as they should, in any order, on several CPUs: for property tests.

A program is a list of steps, each three small numbers, so that Hypothesis can make and shrink
them; :class:`Programs` gives every step a meaning that is allowed in the state it meets.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from highmem.kernel.profile import KM_TYPES, Era

from .recordings import Recorder

__all__ = ["STEPS", "Programs", "Step"]

Step = tuple[int, int, int]
STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 3), st.integers(0, 7)), min_size=1, max_size=60
)
_DEEPEST = 8
_TASK_TYPES = tuple(KM_TYPES.index(f"KM_{name}") for name in ("USER0", "USER1", "PTE0", "PTE1"))
_HARD_TYPES = tuple(KM_TYPES.index(f"KM_IRQ{n}") for n in (0, 1))
_SOFT_TYPES = tuple(KM_TYPES.index(f"KM_SOFTIRQ{n}") for n in (0, 1))


class Programs:
    """Runs steps on a recorder.  ``held`` has what to undo, innermost last, by stack: the CPU,
    or from 5.11 on the task."""

    def __init__(self, rec: Recorder, *, quiet_interrupts: bool = False) -> None:
        self.rec = rec
        self.local = rec.profile.era is Era.LOCAL
        self.typed = rec.profile.era is Era.TYPED
        self.held: dict[object, list[Callable[[], None]]] = {}
        self._inside = not quiet_interrupts
        self._permanent: list[Callable[[], None]] = []

    @property
    def mine(self) -> list[Callable[[], None]]:
        """What is held on the stack in use."""
        context = self.rec.kernel.context
        key = context.this.current.pid or -1 - context.this.id if self.local else context.this.id
        return self.held.setdefault(key, [])

    def run(self, steps: list[Step]) -> None:
        """Run *steps*."""
        for what, where, how in steps:
            if what == 0:
                self._change_cpu(where)
            elif what == 1:
                self._change_task(how)
            elif what in (2, 3, 4):
                self._map(_TASK_TYPES, how, where if self._inside else 0)
            elif what in (5, 6):
                if self.mine:
                    self.mine.pop()()
            elif what == 7:
                self.interrupt(hard=bool(where & 1), maps=1 + how % 3)
            elif what == 8:
                self._kmap()
            elif self._permanent:
                self._permanent.pop(how % len(self._permanent))()

    def _change_cpu(self, where: int) -> None:
        self.rec.kernel.run_on(where % len(self.rec.kernel.context.cpus))

    def _change_task(self, how: int) -> None:
        context = self.rec.kernel.context
        if self.mine and not self.local:
            return  # preemption is off
        task = self.rec.task(f"task{how}")
        if task.migrate_disabled and task.cpu != context.this.id:
            return
        if not any(cpu.current is task for cpu in context.cpus):
            self.rec.switch(task, "R" if how & 1 else "S")

    def _map(self, types: tuple[int, ...], how: int, inside: int = 0) -> None:
        mine, rec = self.mine, self.rec
        base = len(mine)
        if base >= _DEEPEST + 3 or (types == _TASK_TYPES and base >= _DEEPEST):
            return
        page = rec.page(highmem=how != 0)
        before, after = (
            partial(self.interrupt, hard=bool(how & 2), maps=1) if inside & 1 else None,
            partial(self.interrupt, hard=bool(how & 4), maps=2) if inside & 2 else None,
        )
        if self.typed:
            if base >= len(types) and types == _TASK_TYPES:
                return
            km_type = types[base] if types == _TASK_TYPES else types[inside]
            if types != _TASK_TYPES:
                before = after = None
            window = rec.kmap_atomic(page, km_type, before=before, after=after)
            mine.append(lambda: rec.kunmap_atomic(window + how * 8, km_type))
        elif self.local and how % 2 and types == _TASK_TYPES:
            window = rec.kmap_local(page, before=before, after=after)
            mine.append(lambda: rec.kunmap_local(window + how * 8))
        elif self.local and types == _TASK_TYPES:
            # Held by a task that may be switched out, so not kmap_atomic() here.
            window = rec.kmap_local(page)
            mine.append(lambda: rec.kunmap_local(window))
        else:
            window = rec.kmap_atomic(page, before=before, after=after)
            mine.append(lambda: rec.kunmap_atomic(window + how * 8))

    def interrupt(self, *, hard: bool, maps: int) -> None:
        """An interrupt that maps *maps* pages at once and unmaps them."""
        types = _HARD_TYPES if hard else _SOFT_TYPES
        this = self.rec.kernel.context.this
        if this.hardirq_count or (this.softirq_count and not hard):
            return  # nothing interrupts its own kind
        before = len(self.mine)
        with self.rec.hardirq() if hard else self.rec.softirq():
            for number in range(min(maps, len(types)) if self.typed else maps):
                self._map(types, 1 + number, number)
            while len(self.mine) > before:
                self.mine.pop()()

    def _kmap(self) -> None:
        if self.mine or not self.rec.kernel.current.pid:
            return  # may sleep
        page = self.rec.page()
        self.rec.kmap(page)
        self._permanent.append(lambda: self.rec.kunmap(page))

    def unwind(self) -> None:
        """Undo all that is held, each on its own CPU and by its own task."""
        rec = self.rec
        for cpu in rec.kernel.context.cpus:
            rec.kernel.run_on(cpu.id)
            while self.mine:
                self.mine.pop()()
            if cpu.current is not cpu.idle:
                rec.switch(cpu.idle, "S")
            while self.mine:
                self.mine.pop()()
        for task in [*rec.tasks()]:
            if self.held.get(task.pid):
                rec.kernel.run_on(task.cpu)
                rec.switch(task)
                while self.mine:
                    self.mine.pop()()
                rec.switch(rec.kernel.context.this.idle, "S")
        while self._permanent:
            self._permanent.pop()()
