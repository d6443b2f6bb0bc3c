"""The notes of a core or a kdump: registers of the CPUs, and what the kernel says of itself.

A note is three words (length of the name, length of the content, type), then name and content,
each filled up to four bytes (``Elf32_Nhdr``; cores of 64-bit machines use the same).

======== ========== ====================================================================
name     type       content
======== ========== ====================================================================
CORE     1          ``struct elf_prstatus``: general registers of one CPU
QEMU     0          QEMU's ``QEMUCPUState``: the same and the control registers
VMCOREINFO any      text, a ``KEY=VALUE`` a line (kernel/crash_core.c)
======== ========== ====================================================================
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from highmem.image.formats.source import CpuState, counted
from highmem.trace.printable import printable

__all__ = ["MAX_NOTES", "NoteFacts", "read_notes", "read_vmcoreinfo"]

MAX_NOTES = 64 << 20
"""Bytes of notes that a reader should look at; 8192 CPUs need 5 MiB."""

_MAX_CPUS = 8192
_MAX_LINES = 1 << 16
_MAX_TEXT = 1 << 20
_HEADER = struct.Struct("<III")


class _Registers(NamedTuple):
    """Where ``struct elf_prstatus`` of one machine has them."""

    pid: int
    first: int
    word: str
    names: tuple[str, ...]


# struct elf_prstatus by its size; pr_reg is struct user_regs_struct (asm/user_32.h, user_64.h)
_PRSTATUS = {
    144: _Registers(
        24,
        72,
        "I",
        (
            "ebx",
            "ecx",
            "edx",
            "esi",
            "edi",
            "ebp",
            "eax",
            "ds",
            "es",
            "fs",
            "gs",
            "orig_eax",
            "eip",
            "cs",
            "eflags",
            "esp",
            "ss",
        ),
    ),
    336: _Registers(
        32,
        112,
        "Q",
        (
            "r15",
            "r14",
            "r13",
            "r12",
            "rbp",
            "rbx",
            "r11",
            "r10",
            "r9",
            "r8",
            "rax",
            "rcx",
            "rdx",
            "rsi",
            "rdi",
            "orig_rax",
            "rip",
            "cs",
            "eflags",
            "rsp",
            "ss",
            "fs_base",
            "gs_base",
            "ds",
            "es",
            "fs",
            "gs",
        ),
    ),
}  # table

# QEMUCPUState, version 1 (target/i386/arch_dump.c): version, size, 16 general registers, rip,
# rflags, ten segments of 24 bytes, cr0 to cr4.
_QEMU_HEAD = struct.Struct("<II18Q")
_QEMU_CONTROL = struct.Struct("<5Q")
_QEMU_CONTROL_AT = 8 + 18 * 8 + 10 * 24
_QEMU_NAMES = ("ax", "bx", "cx", "dx", "si", "di", "sp", "bp")


@dataclass(frozen=True, slots=True)
class NoteFacts:
    """What notes told; ``problems`` says what in them could not be used."""

    cpus: tuple[CpuState, ...] = ()
    vmcoreinfo: Mapping[str, str] | None = None
    problems: tuple[str, ...] = ()


def read_notes(*blobs: bytes) -> NoteFacts:
    """All that is known of the notes in *blobs*, each a run of its own; never raises."""
    reader = _Reader()
    for blob in blobs:
        reader.read(blob)
    return reader.facts()


def read_vmcoreinfo(text: bytes) -> Mapping[str, str]:
    """The lines of a VMCOREINFO note; what is no ``KEY=VALUE`` is passed over."""
    lines = text[:_MAX_TEXT].rstrip(b"\0").split(b"\n")[:_MAX_LINES]
    pairs = (line.partition(b"=") for line in lines)
    return MappingProxyType(
        {printable(key, 200): printable(value, 1000) for key, equals, value in pairs if equals}
    )


class _Reader:
    def __init__(self) -> None:
        self.status: list[CpuState] = []
        self.qemu: list[CpuState] = []
        self.vmcoreinfo: Mapping[str, str] | None = None
        self.problems: list[str] = []
        self.odd = 0

    def read(self, blob: bytes) -> None:
        for name, kind, content in self._notes(blob):
            if name == b"VMCOREINFO":
                self.vmcoreinfo = self.vmcoreinfo or read_vmcoreinfo(content)
            elif name == b"CORE" and kind == 1:
                self._keep(self.status, _prstatus(len(self.status), content))
            elif name == b"QEMU" and kind == 0:
                self._keep(self.qemu, _qemu_state(len(self.qemu), content))

    def facts(self) -> NoteFacts:
        if self.odd:
            self.problems.append(
                f"{counted(self.odd, 'note')} about CPUs of unknown length, or too many"
            )
        cpus = self.qemu or self.status
        if self.qemu and self.status and len(self.qemu) != len(self.status):
            self.problems.append(
                f"registers of {len(self.status)} CPUs, control registers of {len(self.qemu)}"
            )
        return NoteFacts(tuple(cpus), self.vmcoreinfo, tuple(self.problems))

    def _keep(self, states: list[CpuState], state: CpuState | None) -> None:
        if state is None or len(states) == _MAX_CPUS:
            self.odd += 1
        else:
            states.append(state)

    def _notes(self, blob: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        at = 0
        while at + _HEADER.size <= len(blob):
            name_size, size, kind = _HEADER.unpack_from(blob, at)
            if name_size == size == kind == 0:
                return  # the kernel's buffers of notes end so (arch/x86: crash_notes)
            name_at = at + _HEADER.size
            content_at = name_at + (name_size + 3 & ~3)
            following = content_at + (size + 3 & ~3)
            if content_at + size > len(blob):
                self.problems.append(
                    f"the note at {at:#x} of {len(blob):#x} claims {name_size:#x} bytes of name "
                    f"and {size:#x} of content: it and what follows is not read"
                )
                return
            name = blob[name_at : name_at + min(name_size, 32)].rstrip(b"\0")
            yield name, kind, blob[content_at : content_at + size]
            at = following


def _prstatus(cpu: int, content: bytes) -> CpuState | None:
    layout = _PRSTATUS.get(len(content))
    if layout is None:
        return None
    (pid,) = struct.unpack_from("<i", content, layout.pid)
    values = struct.unpack_from(f"<{len(layout.names)}{layout.word}", content, layout.first)
    registers = MappingProxyType(dict(zip(layout.names, values, strict=True)))
    return CpuState(cpu, "NT_PRSTATUS", pid=pid, registers=registers)


def _qemu_state(cpu: int, content: bytes) -> CpuState | None:
    if len(content) < _QEMU_CONTROL_AT + _QEMU_CONTROL.size:
        return None
    version, size, *values = _QEMU_HEAD.unpack_from(content)
    if version != 1 or size > len(content):
        return None
    cr0, _, cr2, cr3, cr4 = _QEMU_CONTROL.unpack_from(content, _QEMU_CONTROL_AT)
    general, (ip, flags) = values[:16], values[16:]
    wide = any(value >> 32 for value in (*general, ip))
    prefix = "r" if wide else "e"
    names = [f"{prefix}{name}" for name in _QEMU_NAMES]
    names += [f"r{number}" for number in range(8, 16)] if wide else []
    registers = dict(zip(names, general, strict=False))
    registers |= {f"{prefix}ip": ip, "eflags": flags}
    return CpuState(cpu, "QEMU", cr0, cr2, cr3, cr4, registers=MappingProxyType(registers))
