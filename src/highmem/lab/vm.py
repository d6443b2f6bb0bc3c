"""One machine under QEMU: started, listened to, asked, and always ended.

The machine's serial console, its channels (virtio serial ports) and QEMU's monitor are socket
pairs that QEMU inherits: nothing of them has a name in a file system, so nothing of them can
be left behind.  QEMU runs in a process group of its own, which is killed when the machine is
closed, and dies with this process where the system has ``setpriv``.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from .children import dying_with_us
from .errors import LabError
from .qmp import Monitor

__all__ = ["CONSOLE", "MIB", "Machine", "MachineConfig", "find_qemu"]

CONSOLE = "console"
"""The name under which :meth:`Machine.poll` gives what comes from the serial console."""

MIB = 1 << 20
_CONSOLE_LIMIT = 16 * MIB
_MONITOR_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """What to start.

    ``ram`` is in bytes.  ``disks`` are raw files, in the guest ``/dev/vda`` and on.
    ``channels`` are names of virtio serial ports, in the guest ``/dev/vport0p1`` and on.
    ``accel`` is ``kvm`` or ``tcg`` (emulation).
    """

    vmlinuz: Path
    initramfs: Path | None
    append: str
    cpus: int
    ram: int
    accel: str
    disks: tuple[Path, ...] = ()
    channels: tuple[str, ...] = ()
    qemu: str = "qemu-system-i386"


def find_qemu(name: str = "qemu-system-i386") -> str:
    """The path of QEMU; LabError that says what to install."""
    found = shutil.which(name)
    if found is None:
        raise LabError(f"{name} is not installed (Debian's package: qemu-system-x86)")
    return found


class Machine:
    """The machine that *config* says; a context manager that starts and ends it."""

    def __init__(self, config: MachineConfig) -> None:
        self.config = config
        self.console = bytearray()
        """What the serial console has printed, up to 16 MiB."""
        self._ends: dict[str, socket.socket] = {}
        self._monitor: Monitor | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None

    def __enter__(self) -> Machine:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- starting and ending ------------------------------------------------------------

    def _start(self) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        theirs: list[socket.socket] = []
        try:
            inherited = {}
            for name in ("monitor", CONSOLE, *self.config.channels):
                ours, other = socket.socketpair()
                self._ends[name] = ours
                theirs.append(other)
                inherited[name] = other.fileno()
            self._process = subprocess.Popen(
                dying_with_us(qemu_arguments(self.config, inherited)),
                stdin=subprocess.DEVNULL,
                stdout=self._complaints,
                stderr=self._complaints,
                pass_fds=list(inherited.values()),
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(f"{self.config.qemu} cannot be started: {error.strerror}") from None
        finally:
            for other in theirs:
                other.close()
        self._monitor = Monitor(self._ends.pop("monitor"))
        try:
            self._monitor.begin(_MONITOR_TIMEOUT)
        except LabError as error:
            raise LabError(f"{error}{self._because()}") from None

    def close(self) -> None:
        """End QEMU, and all it started; calling it again does nothing."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._monitor is not None:
            self._monitor.close()
        for end in self._ends.values():
            end.close()
        self._ends.clear()
        if self._complaints is not None:
            self._complaints.close()

    @property
    def monitor(self) -> Monitor:
        """QEMU's monitor."""
        assert self._monitor is not None, "the machine is not started"
        return self._monitor

    @property
    def pid(self) -> int:
        """QEMU's process id, which is that of its group."""
        assert self._process is not None, "the machine is not started"
        return self._process.pid

    def alive(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def complaint(self) -> str:
        """The last line that QEMU itself printed, or nothing."""
        if self._complaints is None or self._complaints.closed:
            return ""
        self._complaints.seek(0)
        lines = self._complaints.read(1 << 16).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _because(self) -> str:
        if self._process is not None:
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                return ""
        said = self.complaint()
        return f" ({said})" if said else ""

    # -- listening and talking ----------------------------------------------------------

    def poll(self, timeout: float) -> list[tuple[str, bytes]]:
        """What came within *timeout* seconds: names of channels (or CONSOLE) with bytes.

        An empty list may mean that nothing came, or that QEMU has ended (see ``alive``).
        """
        waiting: dict[int, str] = {end.fileno(): name for name, end in self._ends.items()}
        if not self.monitor.closed:
            waiting[self.monitor.fileno()] = ""
        if not waiting:
            return []
        ready, _, _ = select.select(list(waiting), [], [], max(0.0, timeout))
        if not self.monitor.closed:
            # Always: an event may have come with an earlier answer.
            self.monitor.pump()
        came = []
        for descriptor in ready:
            name = waiting[descriptor]
            if not name:
                continue
            piece = self._receive(name)
            if name == CONSOLE:
                self.console += piece[: max(0, _CONSOLE_LIMIT - len(self.console))]
            if piece:
                came.append((name, piece))
        return came

    def _receive(self, name: str) -> bytes:
        try:
            piece = self._ends[name].recv(1 << 18)
        except OSError:
            piece = b""
        if not piece:
            self._ends.pop(name).close()
        return piece

    def send(self, channel: str, data: bytes) -> None:
        """Give *data* to the guest's end of *channel*; lost where QEMU has ended."""
        end = self._ends.get(channel)
        if end is not None:
            with contextlib.suppress(OSError):
                end.sendall(data)

    def stop(self) -> None:
        """Stop all CPUs."""
        self.monitor.execute("stop")

    def cont(self) -> None:
        """Let them go on."""
        self.monitor.execute("cont")

    def wait(self, timeout: float) -> bool:
        """Wait for QEMU to end by itself; False where it does not."""
        deadline = time.monotonic() + timeout
        while self.alive():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if not self._ends and self.monitor.closed:
                time.sleep(min(left, 0.05))
            self.poll(min(left, 0.2))
        while self.poll(0):
            pass
        return True


def qemu_arguments(config: MachineConfig, inherited: dict[str, int]) -> list[str]:
    """The command line of QEMU; *inherited* says which descriptor each end has."""
    arguments = [config.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    arguments += ["-accel", config.accel, "-smp", str(config.cpus), "-m", f"{config.ram // MIB}M"]
    # arch-capabilities names registers that a nested KVM may not let QEMU set.
    arguments += ["-cpu", "max" if config.accel == "tcg" else "max,-arch-capabilities"]
    arguments += ["-kernel", str(config.vmlinuz), "-append", config.append]
    if config.initramfs is not None:
        arguments += ["-initrd", str(config.initramfs)]
    for name, descriptor in inherited.items():
        arguments += ["-chardev", f"socket,id={name},fd={descriptor}"]
    arguments += ["-mon", "chardev=monitor,mode=control", "-serial", f"chardev:{CONSOLE}"]
    if config.channels:
        arguments += ["-device", "virtio-serial-pci,max_ports=8"]
    for number, name in enumerate(config.channels, 1):
        arguments += ["-device", f"virtserialport,chardev={name},nr={number},name=highmem.{name}"]
    for number, disk in enumerate(config.disks):
        # A comma would end the name; QEMU reads two as one.  A host's disk that is full stops
        # the machine and is told as an event.
        name = str(disk).replace(",", ",,")
        drive = f"file={name},format=raw,if=none,id=disk{number},cache=unsafe,werror=stop"
        arguments += ["-drive", drive, "-device", f"virtio-blk-pci,drive=disk{number}"]
    return arguments
