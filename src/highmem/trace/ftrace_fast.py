"""The fast reader of ftrace text: the pure reader with a scanner in front of it.

:class:`highmem.trace._text.Scanner` reads what it was taught, byte for byte, and hands back
every other line.  That line the pure reader reads, by the whole grammar, and accounts for;
then the scanner is taught its parts.  So nothing is decided here that the pure reader did
not decide: both give the same events, strings and account on every input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from . import ftrace_line as grammar
from ._text import DONE, ODD, UNTOLD, Scanner
from .columns import Shape
from .ftrace_text import PID_MAX, FtraceText
from .lines import MAX_LINE
from .probes import ProbeTable
from .schema import Batch, Kind
from .source import ByteSource

__all__ = ["FastFtraceText"]

_ROWS: Final = 32768
_KEPT: Final = 1 << 22
# Bytes of odd lines after which the pure reader's own memory is emptied: it keeps parts of
# them, and what repeats is with the scanner by then.
_PATIENCE: Final = 64
# Odd lines in a row that taught nothing; after these only one in as many is looked at.


class FastFtraceText(FtraceText):
    """As :class:`FtraceText`, which see, but faster where it is compiled.

    *scanner* takes the place of the compiled one; tests give the interpreted one.
    """

    def __init__(
        self, source: ByteSource, probes: ProbeTable | None = None, scanner: Scanner | None = None
    ) -> None:
        super().__init__(source, probes)
        self._scanner = Scanner(_ROWS) if scanner is None else scanner
        self._given = 0  # events in batches
        self._kept = 0
        self._futile = 0

    def _batches(self) -> Iterator[Batch]:
        tail = b""
        for chunk in self._source:
            begin = 0
            if tail:
                begin = chunk.find(b"\n") + 1
                if not begin:
                    tail = (tail + chunk)[: MAX_LINE + 1]
                    continue
                # Only the line that two chunks share is copied.
                shared = (tail + chunk[: begin - 1])[: MAX_LINE + 1]
                yield from self._scan(shared + b"\n", 0)
            yield from self._scan(chunk, begin)
            tail = chunk[self._scanner.at :][: MAX_LINE + 1]
        self._settle()
        self._finish(tail)
        yield from self._taken()

    def _scan(self, data: bytes, at: int) -> Iterator[Batch]:
        """Read the whole lines of *data* from *at* on."""
        scanner = self._scanner
        while (stopped := scanner.run(data, at)) != DONE:
            at = scanner.at
            if stopped == ODD:
                self._odd(data[scanner.start : scanner.end])
            else:
                self._settle()
                yield from self._taken()
        self._settle()

    def _taken(self) -> Iterator[Batch]:
        if self._scanner.rows:
            columns, rows = self._scanner.take()
            self._given += rows
            yield Batch(**columns, strings=self.strings).head(rows)

    def _settle(self) -> None:
        """Bring the account up to what the scanner has read by itself."""
        account, scanner = self.account, self._scanner
        account.lines = scanner.line
        account.passed_over += scanner.passed
        self._recognised = self._recognised or scanner.passed > 0
        scanner.passed = 0
        account.events = self._given + scanner.rows

    # -- what the scanner does not know ------------------------------------------------

    def _odd(self, line: bytes) -> None:
        scanner, account, builder = self._scanner, self.account, self._builder
        account.lines = scanner.line
        if len(line) > MAX_LINE:
            self._reject(line[: MAX_LINE + 1], f"longer than {MAX_LINE} bytes")
            return
        self._last_time = scanner.time
        unknown, rejected = scanner.unknown, account.rejected
        self._other(line)
        shape = None
        if len(builder):
            task, shape = builder.tasks[builder.task[0]], builder.shapes[builder.shape[0]]
            scanner.put(
                account.lines, builder.time[0], task, shape, builder.value[0], builder.prot[0]
            )
            builder.clear()
        if unknown and account.rejected == rejected and self._worth_learning():
            self._futile = 0 if self._learn(line.rstrip(b"\r"), shape) else self._futile + 1
        self._kept += len(line)
        if self._kept > _KEPT or builder.crowded:
            self._kept = 0
            self._forget()

    def _worth_learning(self) -> bool:
        return self._futile < _PATIENCE or self.account.lines % _PATIENCE == 0

    def _set_layout(self, layout: tuple[str, ...]) -> None:
        super()._set_layout(layout)
        self._scanner.forget_flags()

    def _learn(self, line: bytes, shape: Shape | None) -> bool:
        """Teach the scanner *line*, which became an event of *shape* or was passed over.

        Whether there was anything new in it.
        """
        match = grammar.LINE.fullmatch(line)
        if match is None:
            return False
        who = grammar.prefix_of(match[1])
        if who.pid > PID_MAX:
            return False
        comm = self._text(who.comm) if shape is not None else UNTOLD
        self._scanner.news = False
        self._scanner.learn_task(match[1][: match[1].rindex(b"[")], comm, who.pid)
        if who.flags:
            self._scanner.learn_flags(who.flags, grammar.flag_bits(who.flags, self._layout))
        rest = match[6]
        if shape is None:
            self._learn_name(rest)
        elif shape.kind is Kind.SWITCH:
            self._learn_switch(rest, shape, who.pid)
        else:
            self._learn_call(rest)
        return bool(self._scanner.news)

    def _learn_name(self, rest: bytes) -> None:
        event = grammar.EVENT.fullmatch(rest)
        if event is None:
            if rest in (b"<stack trace>", b"<user stack trace>"):
                self._scanner.learn("name", rest)
        elif rest.startswith(b" ", event.end(1) + 1):
            self._scanner.learn("name", rest[: event.end(1) + 2])

    def _learn_call(self, rest: bytes) -> None:
        head = grammar.HEAD.match(rest)
        known = self._heads.get(head[0]) if head is not None else None
        if head is not None and known is not None:
            shape = self._builder.shapes[known[0]]
            taught = shape.kind, shape.function, shape.argument, shape.caller, shape.km_type
            self._scanner.learn("call", head[0], taught, known[1])

    def _learn_switch(self, rest: bytes, shape: Shape, pid: int) -> None:
        leaves = shape.prev_comm, pid, shape.state
        comes = shape.next_comm, shape.next_pid
        parts = grammar.SWITCH_PARTS.fullmatch(rest)
        if parts is not None:
            # Only the kernel's own text has these, and has one reading: each part can be
            # taken by itself.
            self._scanner.learn("leave", parts[1], (*leaves, 0, 0))
            self._scanner.learn("come", parts[2], (0, 0, 0, *comes))
        else:
            self._scanner.learn("whole", rest, leaves + comes)
