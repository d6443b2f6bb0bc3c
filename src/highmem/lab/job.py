"""What a machine of the lab is to do, and what came of it."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from highmem.errors import UsageError

from .kernels import LabKernel
from .vm import MIB

__all__ = ["Ended", "Image", "Job", "Listener", "Result"]

_CPUS = 32
"""NR_CPUS of Debian's i386 kernels."""
_LEAST_RAM = 96 * MIB


@dataclass(frozen=True, slots=True)
class Job:
    """A machine and its work.

    What runs is a *command* (a program and its arguments), a *workload* (a script for ``sh``),
    or a *module*, which is loaded with the words of *command* as its arguments, the script run
    after it where both are given; with none of them the machine starts and gives its facts.
    ``ram`` is in bytes, ``timeout`` in seconds from the start of QEMU to the end of the job.
    """

    kernel: LabKernel
    busybox: Path
    cpus: int = 2
    ram: int = 2 << 30
    command: tuple[str, ...] = ()
    workload: Path | None = None
    module: Path | None = None
    tree: Path | None = None
    """A directory that is laid over the first file system."""
    modprobe: tuple[str, ...] = ()
    """More modules of the kernel to load before the job."""
    record: Path | None = None
    """Where the recording goes, a trace.dat."""
    buffer_kb: int | None = None
    """Each CPU's buffer for events; by default what the machine's low memory allows."""
    image: Path | None = None
    """Where a memory image goes: a core file for ``.elf`` and ``.core``, else raw."""
    timeout: float = 600.0
    grace: float = 60.0
    """Seconds that the guest gets, once its time is over, to save what there is."""
    accel: str = "auto"
    """``kvm``, ``tcg`` (emulation), or ``auto``: KVM where it runs this kernel."""
    kaslr: bool = False
    append: str = ""
    """More words for the kernel's command line."""
    qemu: str = "qemu-system-i386"

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= _CPUS:
            raise UsageError(f"{self.cpus} CPUs: the lab's kernels take 1 to {_CPUS}")
        if self.ram < _LEAST_RAM:
            raise UsageError(f"{self.ram // MIB} MiB of RAM are not enough to start on: 96 or more")
        if self.accel not in ("auto", "kvm", "tcg"):
            raise UsageError(f"{self.accel}: no such acceleration; there are auto, kvm and tcg")
        if self.timeout <= 0:
            raise UsageError("the time-out must be more than 0 seconds")
        if self.command and self.workload and not self.module:
            raise UsageError("a command and a workload exclude each other")
        if self.kernel.bits != 32:
            raise UsageError(
                f"{self.kernel.name}: a kernel for 64 bits, which has no windows: the lab is for "
                "32-bit x86"
            )

    def per_cpu_kb(self) -> int:
        """The buffer of each CPU in KiB: an eighth of low memory for all, at most 32 MiB each."""
        if self.buffer_kb is not None:
            return self.buffer_kb
        low = min(self.ram, 800 * MIB)
        return max(256, min(32 * MIB, low // 8 // self.cpus) // 1024)


class Ended(enum.Enum):
    """How a machine came to its end."""

    DONE = "done"
    """The job ended, and all was brought back."""
    HUNG = "hung"
    """The job was out of time and could not be ended: it waits in the kernel.  What there was
    of it was brought back."""
    TIMEOUT = "timeout"
    """The job was out of time and was ended; all was brought back."""
    LOST = "lost"
    """How the job ended is not known: what watched it was killed, or had no memory to write to.
    What there was of it was brought back."""
    PANIC = "panic"
    """The kernel panicked; only the console is left."""
    DEAD = "dead"
    """The machine no longer answered, or stopped by itself; only the console is left."""


@dataclass(frozen=True, slots=True)
class Image:
    """A memory image and the machine's own view of its page tables at the same instant.

    ``tlb``, ``memory`` have one file for each CPU: QEMU's ``info tlb`` and ``info mem``;
    ``registers`` is ``info registers`` of all CPUs.
    """

    path: Path
    tlb: tuple[Path, ...]
    memory: tuple[Path, ...]
    registers: Path


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job.

    ``facts`` holds what the machine said of itself at the end, as bytes by name: ``dmesg``,
    ``meminfo``, ``iomem``, ``kallsyms``, ``cpuinfo``, ``cmdline``, ``version`` and others; it is
    empty where nothing was brought back.  ``console`` is always there.
    """

    kernel: LabKernel
    ended: Ended
    status: int | None
    """Exit status of the job; None where it did not end by itself."""
    why: str
    """One line: what happened, where it did not end well; else empty."""
    accel: str
    seconds: float
    console: str
    facts: dict[str, bytes]
    recording: Path | None
    notes: tuple[str, ...]
    """What the recorder said: how many events, and what was lost."""
    images: tuple[Image, ...]

    @property
    def dmesg(self) -> str:
        """The kernel's log: its own, or what the console showed where there is none."""
        log = self.facts.get("dmesg")
        return self.console if log is None else log.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom to tell while the machine runs; all default to nobody."""

    progress: Callable[[str], None] = lambda line: None
    stdout: Callable[[bytes], None] = lambda data: None
    stderr: Callable[[bytes], None] = lambda data: None
