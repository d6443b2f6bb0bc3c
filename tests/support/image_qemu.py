"""A machine of QEMU's without a kernel: a few instructions turn paging on and halt.

What it writes of its memory in all its formats, at one stopped instant, is the truth that the
readers of images are held to.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

__all__ = [
    "DIRECTORY",
    "PATTERN",
    "PATTERN_AT",
    "QEMU",
    "QEMU_64",
    "Machine",
    "stopped_machine",
]

QEMU = shutil.which("qemu-system-i386")
QEMU_64 = shutil.which("qemu-system-x86_64")

DIRECTORY = 0x200000
"""Where CR3 points: entry 0 and 0x300 map the first 4 MiB; in long mode entry 0 leads to 2 MiB."""
PATTERN_AT = 0x101000
PATTERN = random.Random(10).randbytes(200_000)

_START = 0x100000
_SIZE = 16 << 20


def _store(address: int, value: int) -> bytes:
    return b"\xc7\x05" + struct.pack("<II", address, value)  # movl $value, address


_SET_CR3 = b"\xb8" + struct.pack("<I", DIRECTORY) + b"\x0f\x22\xd8"  # movl $..., %eax; to %cr3
_PAGING = b"\x0f\x20\xc0\x0d\0\0\0\x80\x0f\x22\xc0"  # orl $0x80000000 (PG), %cr0
_HALT = b"\xf4\xeb\xfd"  # hlt; jmp back to it

_TWO_LEVELS = (
    _store(DIRECTORY, 0x83)
    + _store(DIRECTORY + 4 * 0x300, 0x83)
    + _SET_CR3
    + b"\x0f\x20\xe0\x83\xc8\x10\x0f\x22\xe0"  # orl $0x10 (PSE), %cr4
    + _PAGING
    + _HALT
)
_FOUR_LEVELS = (
    _store(DIRECTORY, DIRECTORY + 0x1003)
    + _store(DIRECTORY + 0x1000, DIRECTORY + 0x2003)
    + _store(DIRECTORY + 0x2000, 0x83)
    + _SET_CR3
    + b"\x0f\x20\xe0\x83\xc8\x20\x0f\x22\xe0"  # orl $0x20 (PAE), %cr4
    + b"\xb9\x80\0\0\xc0\x0f\x32\x0d\0\1\0\0\x0f\x30"  # EFER: orl $0x100 (LME)
    + _PAGING
    + _HALT
)


def _program(code: bytes) -> bytes:
    """A multiboot image (the specification's section 3.1, with load addresses in the header)."""
    flags = 1 << 16
    end = PATTERN_AT + len(PATTERN)
    header = (
        0x1BADB002,
        flags,
        -(0x1BADB002 + flags) & 0xFFFFFFFF,
        _START,
        _START,
        end,
        end,
        _START + 32,
    )  # table
    program = struct.pack("<8I", *header) + code
    return program.ljust(PATTERN_AT - _START, b"\0") + PATTERN


class Machine:
    """QMP commands to a stopped machine."""

    def __init__(self, stream: TextIO) -> None:
        self._file = stream
        self._file.readline()  # the greeting
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: object) -> Any:
        """The answer to *command*; raises RuntimeError with QEMU's words."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise RuntimeError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]
        raise RuntimeError("QEMU is gone")

    def monitor(self, line: str) -> str:
        """What the human monitor prints."""
        return str(self.ask("human-monitor-command", **{"command-line": line}))

    def dump(self, path: Path, kind: str = "elf", *, paging: bool = False) -> Path:
        """The memory in one of QEMU's formats."""
        arguments: dict[str, object] = {} if paging else {"format": kind}
        self.ask("dump-guest-memory", paging=paging, protocol=f"file:{path}", **arguments)
        return path

    def raw(self, path: Path) -> Path:
        """All RAM of the machine as it is."""
        self.ask("pmemsave", val=0, size=_SIZE, filename=str(path))
        return path


@contextlib.contextmanager
def stopped_machine(folder: Path, *, long_mode: bool = False) -> Iterator[Machine]:
    """The machine, halted by its program and stopped; QEMU ends with the context."""
    qemu = QEMU_64 if long_mode else QEMU
    assert qemu is not None
    program, address = folder / "program", folder / "qmp"
    program.write_bytes(_program(_FOUR_LEVELS if long_mode else _TWO_LEVELS))
    command = [qemu, "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "16"]
    command += ["-kernel", str(program), "-qmp", f"unix:{address},server=on,wait=off"]
    with subprocess.Popen(command) as process, socket.socket(socket.AF_UNIX) as connection:
        try:
            _connect(connection, address, process)
            with connection.makefile("rw", encoding="utf-8") as stream:
                machine = Machine(stream)
                _wait_for_halt(machine)
                machine.ask("stop")
                yield machine
        finally:
            process.kill()


def _wait_for_halt(machine: Machine) -> None:
    deadline = time.monotonic() + 60
    while True:
        registers = machine.monitor("info registers")
        if re.search(f"CR3=0*{DIRECTORY:x} ", registers) and "HLT=1" in registers:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the program did not get to its end: {registers}")
        time.sleep(0.05)


def _connect(connection: socket.socket, address: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return connection.connect(str(address))
        time.sleep(0.02)
    raise RuntimeError("QEMU does not answer")
