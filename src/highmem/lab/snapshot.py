"""A stopped machine's memory, and its own view of its page tables at that instant."""

from __future__ import annotations

import os
from pathlib import Path

from highmem.errors import UsageError

from .errors import LabError
from .job import Image
from .vm import Machine

__all__ = ["HOLE", "check_image_name", "image_path", "take_image"]

_CORES = (".elf", ".core")
HOLE = 0xE000_0000
"""From this much RAM on, QEMU's PC has a part of it above 4 GiB (hw/i386/pc_piix.c,
``max-ram-below-4g``), and one raw file of all addresses would be mostly hole."""
_SAVE_TIMEOUT = 600.0


def check_image_name(path: Path, ram: int) -> None:
    """UsageError where an image of a machine with *ram* bytes cannot be had under *path*."""
    if path.suffix not in _CORES and ram >= HOLE:
        raise UsageError(
            f"{path}: from 3.5 GiB on, RAM is in two pieces, which a raw image cannot say: "
            "give the image a name that ends in .elf"
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path}: cannot be written: no such directory")


def image_path(path: Path, number: int) -> Path:
    """Where image *number* goes, counted from 0: *path*, then ``NAME.1.raw`` and on."""
    return path if number == 0 else path.with_name(f"{path.stem}.{number}{path.suffix}")


def take_image(machine: Machine, path: Path) -> Image:
    """Write the memory of *machine*, which is stopped, to *path*; the rest beside it.

    The others are ``PATH.registers`` and for each CPU ``PATH.tlb`` and ``PATH.mem``, from the
    second on ``PATH.cpu1.tlb``.  What is under a final name is whole.
    """
    monitor = machine.monitor
    registers = monitor.human("info registers -a")
    cpus = range(machine.config.cpus)
    tlb = tuple(_view(machine, path, cpu, "tlb") for cpu in cpus)
    memory = tuple(_view(machine, path, cpu, "mem") for cpu in cpus)
    beside = Path(f"{path}.registers")
    _write(beside, registers)
    partial = path.with_name(f".{path.name}.partial")
    where = os.path.abspath(partial)
    try:
        if path.suffix in _CORES:
            monitor.execute(
                "dump-guest-memory", timeout=_SAVE_TIMEOUT, paging=False, protocol=f"file:{where}"
            )
        else:
            size = machine.config.ram
            monitor.execute("pmemsave", timeout=_SAVE_TIMEOUT, val=0, size=size, filename=where)
            if partial.stat().st_size != size:
                raise LabError(f"{path}: the image is cut off: is the disk full?")
        # QEMU makes a core file for its owner to read only.
        umask = os.umask(0)
        os.umask(umask)
        partial.chmod(0o666 & ~umask)
        os.replace(partial, path)
    except OSError as error:
        raise LabError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return Image(path, tlb, memory, beside)


def _view(machine: Machine, path: Path, cpu: int, what: str) -> Path:
    beside = Path(f"{path}.{what}" if cpu == 0 else f"{path}.cpu{cpu}.{what}")
    _write(beside, machine.monitor.human(f"info {what}", cpu=cpu))
    return beside


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"{path}: cannot be written: {error.strerror}") from None
