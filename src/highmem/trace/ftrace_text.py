"""Reading ftrace text: ``trace``, ``trace_pipe`` and what ``trace-cmd report`` prints.

This is the reader to which any faster one is held.  Each line is read by
:meth:`FtraceText._other`, which knows the whole grammar; the loop in ``__iter__`` only
remembers what that method found out for the parts of a line that repeat.
"""

from __future__ import annotations

from collections.abc import Iterator

from highmem.errors import InputError, UsageError

from . import ftrace_line as grammar
from .columns import BatchBuilder, Shape, Task
from .lines import MAX_LINE, Lines
from .printable import printable
from .probes import DEFAULT_PROBES, Probe, ProbeTable
from .schema import BATCH_LENGTH, Account, Argument, Batch, Kind, Rejection, Strings
from .source import ByteSource

__all__ = ["PID_MAX", "FtraceText"]

_REJECTIONS_KEPT = 10
_REJECTION_TEXT = 200
_INT32 = 1 << 31
PID_MAX = _INT32 - 1
"""The greatest pid that a batch can hold."""
_KM_TYPE_LIMIT = 256
_SECOND = 10**9


class _UnreadableError(Exception):
    """A line that has to be rejected; the text says why."""


class FtraceText:
    """The events of *source*, a recording as ftrace text; iterate to get batches, once.

    ``account`` says where every line went; it is whole when the iteration has ended.
    Iterating raises InputError at the end of an input of which nothing could be read.
    """

    format = "ftrace-text"

    def __init__(self, source: ByteSource, probes: ProbeTable | None = None) -> None:
        self.name = source.name
        self.account = Account()
        self.strings = Strings()
        self._source = source
        self._probes = probes if probes is not None else DEFAULT_PROBES
        self._builder = BatchBuilder(self.strings)
        self._begun = False
        self._recognised = False  # anything but comments, blank and rejected lines
        self._last_time = 0
        self._layout: tuple[str, ...] = ()
        self._without_value: set[str] = set()
        # What was found out about the parts of lines that repeat:
        self._tasks: dict[bytes, int] = {}  # prefix -> task
        self._heads: dict[bytes, tuple[int, bytes]] = {}  # head -> shape, name of prot
        self._switches: dict[tuple[int, bytes], int] = {}  # pid, fields -> shape

    def close(self) -> None:
        """Let go of the input; for a reader that is not read to its end."""
        self._source.close()

    def __iter__(self) -> Iterator[Batch]:
        if self._begun:
            raise UsageError(f"{self.name}: a recording can be read only once")
        self._begun = True
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        lines = Lines(self._source)
        for some in lines:
            self._read(some)
            if len(self._builder) >= BATCH_LENGTH:
                yield from self._batch()
        self._finish(lines.tail)
        yield from self._batch()

    def _read(self, lines: list[bytes]) -> None:
        builder, account = self._builder, self.account
        match, tasks, heads = grammar.PROBE.fullmatch, self._tasks, self._heads
        add_line, add_time = builder.line.append, builder.time.append
        add_task, add_shape = builder.task.append, builder.shape.append
        add_value, add_prot = builder.value.append, builder.prot.append
        before, seen = len(builder), account.lines
        if len(lines[0]) > MAX_LINE:
            account.lines = seen = seen + 1
            self._reject(lines[0], f"longer than {MAX_LINE} bytes")
            del lines[0]
        for at, line in enumerate(lines, seen + 1):
            found = match(line)
            if found is not None:
                prefix, second, micro, nano, head, value, other, prot = found.groups()
                task, known = tasks.get(prefix), heads.get(head)
                if task is not None and known is not None and (other is None or other == known[1]):
                    add_line(at)
                    time = int(second) * 1_000_000_000 + int(micro) * 1000
                    add_time(time if nano is None else time + int(nano))
                    add_task(task)
                    add_shape(known[0])
                    add_value(int(value, 16))
                    add_prot(int(prot, 16) if other is not None else 0)
                    continue
            account.lines = at
            self._other(line)
        account.lines = seen + len(lines)
        account.events += len(builder) - before

    def _batch(self) -> Iterator[Batch]:
        if len(self._builder):
            self._last_time = self._builder.time[-1]
            yield self._builder.batch()
        if self._builder.crowded:
            self._forget()

    def _forget(self) -> None:
        """Empty the tables of what repeats."""
        self._builder.forget()
        for cache in (self._tasks, self._heads, self._switches):
            cache.clear()

    def _finish(self, tail: bytes) -> None:
        """Account for the end of the input: *tail* is what followed the last newline."""
        account = self.account
        if tail:
            account.lines += 1
            account.truncated = True
            # A number may have lost digits without looking any different.
            self._reject(tail, "the input ends inside this line")
        if self._source.problem:
            account.truncated = True
            account.notes.append(f"the input breaks off: {self._source.problem}")
        if not self._recognised and not account.events and account.rejected:
            first = account.rejections[0]
            raise InputError(
                self.name,
                f"not ftrace text, no line of it could be read; the first: {first.reason}",
            )

    # -- one line, by the whole grammar ------------------------------------------------

    def _other(self, line: bytes) -> None:
        """Read the line with number ``account.lines`` and account for it, events aside."""
        line = line.rstrip(b"\r")
        try:
            match = grammar.LINE.fullmatch(line) or grammar.LATENCY_LINE.fullmatch(line)
            if match is not None:
                added = self._event_line(*match.groups())
            else:
                added = self._other_line(line)
        except _UnreadableError as error:
            self._reject(line, str(error))
            return
        # Texts of many kinds have lines that begin with #: _header knows those of ftrace.
        self._recognised = self._recognised or (bool(line.strip()) and line[:1] != b"#")
        if not added:
            self.account.passed_over += 1

    def _other_line(self, line: bytes) -> bool:
        """A line without a task and a time; whether it became an event."""
        if line.startswith(b"#"):
            return self._header(line)
        loss = grammar.LOSS.fullmatch(line)
        if loss is not None:
            self._lost(int(loss[1]), int(loss[2] or loss[3] or 0))
            return True
        if not line.strip() or grammar.INTERESTLESS.match(line):
            return False
        if grammar.PLAIN_NUMBER_TIME.match(line):
            raise _UnreadableError("its time is a bare count (trace_clock counter or x86-tsc?)")
        raise _UnreadableError("no task, cpu and time as in: cat-107 [003] .... 9.405284:")

    def _header(self, line: bytes) -> bool:
        if line.startswith(b"# tracer:"):
            self._recognised = True
            self._set_layout(())
        column = grammar.FLAG_COLUMN.match(line)
        self._recognised = self._recognised or column is not None or b"TASK-PID" in line
        if column is not None and column[1] != b"CPU#":
            name = "hardirq" if column[1].startswith(b"hardirq") else column[1].decode("ascii")
            self._set_layout((*self._layout, name)[:16])
        written = grammar.WRITTEN.match(line)
        if written is not None:
            kept, total = (int(n) for n in written.groups() if n is not None)
            if kept < total:
                self._lost(-1, total - kept)
                return True
        return False

    def _set_layout(self, layout: tuple[str, ...]) -> None:
        self._layout = layout
        self._tasks.clear()  # they hold flags as the old layout has them

    def _lost(self, cpu: int, count: int) -> None:
        builder = self._builder
        time = builder.time[-1] if len(builder) else self._last_time
        task = builder.task_number(Task(comm=-1, pid=-1, cpu=cpu, flags=0))
        shape = builder.shape_number(Shape(Kind.LOST, argument=Argument.COUNT))
        builder.add(self.account.lines, time, task, shape, count)
        self.account.lost += count or 1

    def _event_line(
        self,
        prefix: bytes,
        second: bytes | None,
        micro: bytes,
        nano: bytes | None,
        microseconds: bytes,
        rest: bytes,
    ) -> bool:
        """A line with a task and a time; whether it became an event."""
        if second is not None:
            time = int(second) * _SECOND + int(micro) * 1000 + int(nano or 0)
        else:
            time = int(microseconds) * 1000
        event = grammar.EVENT.fullmatch(rest)
        if event is None:
            if grammar.CALL.match(rest):
                return False
            raise _UnreadableError("no event after its time")
        name, place, fields = event[1].decode("ascii"), event[2], event[3]
        probe = self._probes.find(name)
        if probe is None and name.rpartition(":")[2] != "sched_switch":
            return False
        # Nothing is remembered of a line before all of it was found to be good.
        who = grammar.prefix_of(prefix)
        if who.pid > PID_MAX:
            raise _UnreadableError(f"no pid: {who.pid}")
        if probe is not None:
            value, prot, shape = self._call(name, probe, place, fields)
            self._remember_head(rest, probe, place)
        else:
            value, prot, shape = 0, 0, self._switch(rest.partition(b"sched_switch:")[2], who.pid)
        self._builder.add(self.account.lines, time, self._task(prefix, who), shape, value, prot)
        return True

    def _task(self, prefix: bytes, who: grammar.Prefix) -> int:
        task = self._tasks.get(prefix)
        if task is None:
            comm, pid, cpu, flags = who
            bits = grammar.flag_bits(flags, self._layout) if flags else 0
            task = self._builder.task_number(Task(self._text(comm), pid, cpu, bits))
            self._tasks[prefix] = task
        return task

    def _text(self, raw: bytes) -> int:
        return self.strings.number(printable(raw))

    def _call(
        self, name: str, probe: Probe, place: bytes | None, text: bytes
    ) -> tuple[int, int, int]:
        """Value, protection bits and shape of a probe's event."""
        fields: dict[str, bytes] = {}
        for field, raw in grammar.FIELD.findall(text):
            key = field.decode("ascii")
            if key in fields:
                raise _UnreadableError(f"the field {printable(key, 40)} is there twice")
            fields[key] = raw
        argument, value = Argument.NONE, 0
        if probe.kind is not Kind.FLUSH:
            key = next((key for key in fields if key in probe.fields), "")
            if key:
                argument = probe.fields[key]
                value = self._number(fields, key, probe, wide=argument is not Argument.PFN)
            elif name not in self._without_value:
                self._note_without_value(name, probe)
        prot = self._number(fields, probe.prot, probe) if probe.prot in fields else 0
        km_type = self._number(fields, probe.km_type, probe) if probe.km_type in fields else -1
        if km_type >= _KM_TYPE_LIMIT:
            raise _UnreadableError(f"no km_type: {km_type}")
        shape = self._shape(probe, argument, place, km_type)
        return value, prot, self._builder.shape_number(shape)

    def _shape(self, probe: Probe, argument: Argument, place: bytes | None, km_type: int) -> Shape:
        caller = -1
        if place is not None:
            text = grammar.caller_of(place, probe.kind, probe.function)
            if text is None:
                wanted = "a return" if probe.kind is Kind.MAP_RETURN else "an entry"
                raise _UnreadableError(f"its name stands for {wanted}, its place does not")
            caller = self._text(text) if text else -1
        return Shape(probe.kind, probe.function, argument, caller, km_type)

    @staticmethod
    def _number(fields: dict[str, bytes], key: str, probe: Probe, wide: bool = False) -> int:
        value = grammar.number(fields[key], probe.base, wide)
        if value is None:
            shown = printable(fields[key], 40)
            raise _UnreadableError(f"{printable(key, 40)} is not a number: {shown}")
        return value

    def _note_without_value(self, name: str, probe: Probe) -> None:
        self._without_value.add(name)
        wanted = ", ".join(printable(field, 40) for field in probe.fields)
        self.account.notes.append(
            f"event {name} has none of the fields {wanted} (first at line "
            f"{self.account.lines}): that it was called is known, but not with what"
        )

    def _remember_head(self, rest: bytes, probe: Probe, place: bytes | None) -> None:
        """Let the loop read the next line with this head by itself."""
        head = grammar.HEAD.match(rest)
        if head is not None:
            field = head[0].rpartition(b" ")[2][:-1].decode("ascii")
            argument = probe.fields.get(field)
            if argument is not None and probe.kind is not Kind.FLUSH:
                shape = self._builder.shape_number(self._shape(probe, argument, place, -1))
                self._heads[head[0]] = shape, probe.prot.encode()

    def _switch(self, fields: bytes, pid: int) -> int:
        shape = self._switches.get((pid, fields))
        if shape is None:
            readings = grammar.switches(fields)
            if not readings:
                raise _UnreadableError("the tasks of sched_switch cannot be told apart")
            # The event happens in the task that leaves: this decides between two readings.
            fitting = [s for s in readings if s.prev_pid == pid and s.next_pid <= PID_MAX]
            if len(fitting) != 1:
                raise _UnreadableError(f"sched_switch does not fit pid {pid} of its own line")
            switch = fitting[0]
            shape = self._builder.shape_number(
                Shape(
                    Kind.SWITCH,
                    next_pid=switch.next_pid,
                    next_comm=self._text(switch.next_comm),
                    state=self._text(switch.state),
                    prev_comm=self._text(switch.prev_comm),
                )
            )
            self._switches[pid, fields] = shape
        return shape

    def _reject(self, line: bytes, reason: str) -> None:
        account = self.account
        account.rejected += 1
        if len(account.rejections) < _REJECTIONS_KEPT:
            text = printable(line[: _REJECTION_TEXT * 4], _REJECTION_TEXT)
            account.rejections.append(Rejection(account.lines, reason, text))
