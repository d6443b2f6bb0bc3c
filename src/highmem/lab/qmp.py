"""Talking to QEMU's monitor: its machine protocol, QMP, over a connected socket.

Each message is one line of JSON.  QEMU greets, takes commands once ``qmp_capabilities`` was
said, and may put events between a command and its answer (``docs/interop/qmp-spec`` of QEMU).
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections import deque
from typing import Any

from .errors import LabError

__all__ = ["Monitor"]

_LINE_LIMIT = 64 << 20
"""The text of ``info tlb`` of a full address space stays far below."""


class Monitor:
    """The monitor of a machine, over *connection*, which it owns."""

    __slots__ = ("_buffer", "_connection", "_serial", "closed", "events")

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._serial = 0
        self.events: deque[dict[str, Any]] = deque(maxlen=1000)
        """What QEMU told unasked, oldest first."""
        self.closed = False

    def fileno(self) -> int:
        """The socket's descriptor, for a selector."""
        return self._connection.fileno()

    def begin(self, timeout: float) -> None:
        """Wait for the greeting and enter command mode."""
        deadline = time.monotonic() + timeout
        while "QMP" not in self._message(deadline):
            pass
        self.execute("qmp_capabilities", timeout=timeout)

    def execute(self, command: str, *, timeout: float = 60.0, **arguments: Any) -> Any:
        """What QEMU returns for *command*; LabError where it refuses or does not answer."""
        self._serial += 1
        request = {"execute": command, "id": self._serial}
        if arguments:
            request["arguments"] = arguments
        deadline = time.monotonic() + timeout
        try:
            self._connection.setblocking(True)
            self._connection.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            self.closed = True
            raise LabError(f"QEMU ended before it did {command}") from None
        while True:
            answer = self._message(deadline)
            if answer.get("id") != self._serial:
                continue
            if "error" in answer:
                why = answer["error"].get("desc", "no reason given")
                raise LabError(f"QEMU refused {command}: {why}")
            return answer["return"]

    def human(self, line: str, *, cpu: int = 0, timeout: float = 120.0) -> str:
        """What the monitor for humans prints for *line*, seen from *cpu*."""
        text = self.execute(
            "human-monitor-command",
            timeout=timeout,
            **{"command-line": line, "cpu-index": cpu},
        )
        assert isinstance(text, str)
        return text.replace("\r\n", "\n")

    def pump(self) -> None:
        """Take in the events that have arrived; for when the selector says there is something."""
        deadline = time.monotonic()
        try:
            while True:
                self._message(deadline)
        except LabError:
            return

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        self.closed = True

    def _message(self, deadline: float) -> dict[str, Any]:
        """The next message; events are kept, too."""
        while b"\n" not in self._buffer:
            left = max(0.0, deadline - time.monotonic())
            if self.closed or not select.select([self._connection], [], [], left)[0]:
                raise LabError("QEMU's monitor does not answer")
            try:
                piece = self._connection.recv(1 << 20)
            except OSError:
                piece = b""
            if not piece:
                self.closed = True
                raise LabError("QEMU ended: its monitor is closed")
            self._buffer += piece
            if len(self._buffer) > _LINE_LIMIT:
                self.closed = True
                raise LabError("QEMU's monitor answers without end")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise LabError("QEMU's monitor does not speak its protocol")
        if "event" in message:
            self.events.append(message)
        return message
