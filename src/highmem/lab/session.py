"""Following one machine from its start until all is brought back, or nothing more will be."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import LabError
from .guest import CONSOLE_WORD
from .job import Ended, Listener
from .vm import CONSOLE, Machine

__all__ = ["Session"]

_LINE_LIMIT = 1 << 16
_PANIC = re.compile(r"Kernel panic - not syncing: .*")
_AFTER_PANIC = 5.0
"""Seconds in which a panicking kernel prints its trace and restarts (``panic=-1``)."""
_SAVING = 300.0
"""Seconds in which a guest that answers has to write what it brings back."""
_STEP = 0.25


class Lines:
    """Cuts what comes in pieces into lines; a line without end is cut off."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> list[str]:
        """The lines that *piece* completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LINE_LIMIT:
            self._rest = b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]


@dataclass(slots=True)
class Session:
    """What *machine* says, and what is done about it.

    ``take_image`` is called while the machine is stopped.  After :meth:`follow`, ``ended``,
    ``status`` and ``why`` say how it went.  ``started`` is whether the guest's first program
    came to speak.
    """

    machine: Machine
    listener: Listener
    take_image: Callable[[], None]
    started: bool = False
    status: int | None = None
    hung: bool = False
    lost: bool = False
    why: str = ""
    images: int = 0
    _saved: bool = False
    _out_of_time: bool = False
    _panic_at: float | None = None
    _saving_since: float | None = None
    _control: Lines = field(default_factory=Lines)
    _printed: Lines = field(default_factory=Lines)

    def follow(self, timeout: float, grace: float, start_limit: float | None = None) -> Ended:
        """Follow the machine to its end.

        After *timeout* seconds the guest is told to end its job; *grace* seconds later it is
        given up, unless it says that it is saving.  Where *start_limit* is given, a guest that
        has not spoken until then is given up too.
        LabError for what is the host's fault: its disk is full, QEMU cannot go on.
        """
        begun = time.monotonic()
        while not self._saved:
            for name, piece in self.machine.poll(_STEP):
                self._take(name, piece)
            self._look_at_qemu()
            now = time.monotonic()
            if self._panic_at is not None and now - self._panic_at > _AFTER_PANIC:
                return self._panicked()
            if not self.machine.alive():
                return self._gone()
            if not self.started and start_limit is not None and now - begun > start_limit:
                self.why = f"the kernel said nothing for {start_limit:g} seconds"
                return Ended.DEAD
            if self._saving_since is not None:
                if now - self._saving_since > _SAVING:
                    self.why = f"it could not save within {_SAVING:g} seconds what there was"
                    return Ended.DEAD
            elif now - begun > timeout and not self._out_of_time:
                self._out_of_time = True
                self.listener.progress(f"{timeout:g} seconds are over: ending the job")
                self.machine.send("control", b"end\n")
            elif now - begun > timeout + grace:
                self.why = f"no answer for {grace:g} seconds after {timeout:g} seconds"
                return Ended.DEAD
        self._drain()
        return self._done(timeout)

    def _done(self, timeout: float) -> Ended:
        if self.hung:
            self.why = f"the job hangs in the kernel: it could not be ended after {timeout:g} s"
            return Ended.HUNG
        if self._out_of_time:
            self.why = f"the job was ended after {timeout:g} s"
            self.status = None
            return Ended.TIMEOUT
        if self.lost:
            self.why = "how the job ended is not known: the machine had no memory left?"
            return Ended.LOST
        return Ended.DONE

    def _drain(self) -> None:
        """Take in what the job printed last, which may come after ``saved``."""
        while came := self.machine.poll(0):
            for name, piece in came:
                self._take(name, piece)

    def _gone(self) -> Ended:
        self.machine.wait(1)
        for name, piece in self.machine.poll(0):
            self._take(name, piece)
        if self._saved:
            return self._done(0)
        if _PANIC.search(self.machine.console.decode(errors="replace")):
            return self._panicked()
        said = self.machine.complaint()
        self.why = self.why or (f"QEMU ended: {said}" if said else "the machine stopped by itself")
        return Ended.DEAD

    def _panicked(self) -> Ended:
        found = _PANIC.search(self.machine.console.decode(errors="replace"))
        self.why = found[0].strip() if found else "Kernel panic"
        return Ended.PANIC

    def _look_at_qemu(self) -> None:
        events = self.machine.monitor.events
        while events:
            event = events.popleft()
            if event["event"] == "BLOCK_IO_ERROR":
                data = event.get("data", {})
                if data.get("nospace"):
                    raise LabError("no space left for the machine's disk (see TMPDIR)")
                raise LabError(f"the machine's disk cannot be written: {data.get('reason')}")

    def _take(self, name: str, piece: bytes) -> None:
        if name == "stdout":
            self.listener.stdout(piece)
        elif name == "stderr":
            self.listener.stderr(piece)
        elif name == "control":
            for line in self._control.feed(piece):
                self._obey(line)
        elif name == CONSOLE:
            for line in self._printed.feed(piece):
                if _PANIC.search(line) and self._panic_at is None:
                    self._panic_at = time.monotonic()
                _, word, rest = line.partition(CONSOLE_WORD)
                if word and rest.split()[:1] == ["image"]:
                    self._image()
                elif word and rest.split()[:1] == ["error"]:
                    raise LabError(rest.strip().partition(" ")[2])

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "hello":
            self.started = True
            self.listener.progress("the kernel is up")
        elif word == "start":
            self.listener.progress("the job runs")
        elif word == "image":
            if rest != "last" or not self.images:
                self._image()
            self.machine.send("control", b"go-on\n")
        elif word == "status":
            self.hung, self.lost = rest == "hung", rest == "lost"
            self.status = int(rest) if rest.isdigit() else None
            self._saving_since = time.monotonic()
            self.listener.progress("bringing back")
        elif word == "saved":
            self._saved = True
        elif word == "error":
            raise LabError(rest)

    def _image(self) -> None:
        self.listener.progress("taking a memory image")
        self.machine.stop()
        try:
            self.take_image()
            self.images += 1
        finally:
            self.machine.cont()
