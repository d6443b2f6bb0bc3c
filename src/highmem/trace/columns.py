"""Building batches: from the readers' events to the columns of the schema.

What repeats from event to event is kept once.  A *task* is who and where (comm, pid, cpu,
flags), a *shape* is everything else but the time, the value and the protection bits.  An
event then is five numbers, and whole columns are filled from the tables at once.
"""

from __future__ import annotations

from typing import NamedTuple

from .schema import Argument, Batch, Function, Kind, Strings

__all__ = ["BatchBuilder", "Shape", "Task"]

_TABLE_LIMIT = 16384
# Tables of more rows than this are forgotten between batches, so that a recording in which
# nothing repeats (a hostile one) cannot make them grow with its length.


class Task(NamedTuple):
    """Who an event happened to: the numbers of four columns."""

    comm: int
    pid: int
    cpu: int
    flags: int


class Shape(NamedTuple):
    """What kind of event it is: the numbers of the columns that the rest leaves."""

    kind: Kind
    function: Function = Function.NONE
    argument: Argument = Argument.NONE
    caller: int = -1
    km_type: int = -1
    next_pid: int = -1
    next_comm: int = -1
    state: int = -1
    prev_comm: int = -1
    """For SWITCH the name of the task that leaves: the event has it first-hand, where the
    line's own is looked up later and may be stale."""


class BatchBuilder:
    """Collects events and makes batches of them.

    The lists ``line``, ``time``, ``task``, ``shape``, ``value`` and ``prot`` are the events
    so far, one number each; readers in a hurry append to them directly.  ``tasks`` and
    ``shapes`` are what the numbers stand for.
    """

    __slots__ = (
        "_shape_numbers",
        "_task_numbers",
        "line",
        "prot",
        "shape",
        "shapes",
        "strings",
        "task",
        "tasks",
        "time",
        "value",
    )

    def __init__(self, strings: Strings) -> None:
        self.strings = strings
        self.tasks: list[Task] = []
        self.shapes: list[Shape] = []
        self._task_numbers: dict[Task, int] = {}
        self._shape_numbers: dict[Shape, int] = {}
        self.line: list[int] = []
        self.time: list[int] = []
        self.task: list[int] = []
        self.shape: list[int] = []
        self.value: list[int] = []
        self.prot: list[int] = []

    def __len__(self) -> int:
        return len(self.line)

    def task_number(self, task: Task) -> int:
        """The number of *task* in this builder's table."""
        number = self._task_numbers.setdefault(task, len(self.tasks))
        if number == len(self.tasks):
            self.tasks.append(task)
        return number

    def shape_number(self, shape: Shape) -> int:
        """The number of *shape* in this builder's table."""
        number = self._shape_numbers.setdefault(shape, len(self.shapes))
        if number == len(self.shapes):
            self.shapes.append(shape)
        return number

    def add(self, line: int, time: int, task: int, shape: int, value: int, prot: int = 0) -> None:
        """Add one event; *task* and *shape* are numbers that this builder gave."""
        self.line.append(line)
        self.time.append(time)
        self.task.append(task)
        self.shape.append(shape)
        self.value.append(value)
        self.prot.append(prot)

    @property
    def crowded(self) -> bool:
        """Whether the tables are so long that they should be forgotten."""
        return max(len(self.tasks), len(self.shapes)) > _TABLE_LIMIT

    def forget(self) -> None:
        """Empty the tables: numbers given before mean nothing any more."""
        for table in (self.tasks, self.shapes, self._task_numbers, self._shape_numbers):
            table.clear()

    def clear(self) -> None:
        """Drop the events so far; the tables stay."""
        for column in (self.line, self.time, self.task, self.shape, self.value, self.prot):
            column.clear()

    def batch(self) -> Batch:
        """The events so far as a batch; the builder is empty afterwards."""
        import numpy as np  # here: the compiled readers do without, see buffers.py

        tasks = np.array(self.tasks, np.int64).reshape(-1, len(Task._fields))
        shapes = np.array(self.shapes, np.int64).reshape(-1, len(Shape._fields))
        task = tasks[np.array(self.task, np.intp)].T
        shape = shapes[np.array(self.shape, np.intp)].T
        batch = Batch.empty(len(self), self.strings)
        batch.line[:] = self.line
        batch.time[:] = self.time
        batch.value[:] = np.array(self.value, np.uint64)
        batch.prot[:] = np.array(self.prot, np.uint64)
        for name, column in zip(Task._fields, task, strict=True):
            getattr(batch, name)[:] = column
        for name, column in zip(Shape._fields, shape, strict=True):
            if name != "prev_comm":
                getattr(batch, name)[:] = column
        prev_comm = shape[Shape._fields.index("prev_comm")]
        np.copyto(batch.comm, prev_comm, where=prev_comm >= 0, casting="same_kind")
        self.clear()
        return batch
