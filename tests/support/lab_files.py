"""Tiny files that the lab takes for kernels, modules and busyboxes, written from their formats."""

from __future__ import annotations

import struct
from pathlib import Path

_SETUP_SECTORS = 4


def bzimage(
    code: bytes = b"\xeb\xfe", *, release: str = "1.2.3-test", flags: int = 0, protocol: int = 0x20F
) -> bytes:
    """A bzImage whose real-mode part is *code*, by default a jump to itself.

    Header fields as in Documentation/x86/boot.rst of Linux; QEMU's loader starts at 0x200.
    """
    setup = bytearray(512 * (_SETUP_SECTORS + 1))
    setup[0x1F1] = _SETUP_SECTORS
    struct.pack_into("<I", setup, 0x1F4, 64)  # syssize, in 16-byte units
    struct.pack_into("<H", setup, 0x1FE, 0xAA55)
    # A jump over the header, to 0x400.
    setup[0x200:0x202] = b"\xeb\x7e"
    setup[0x280:0x283] = b"\xe9" + struct.pack("<H", 0x400 - 0x283)
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<H", setup, 0x20E, 0x600 - 0x200)
    setup[0x211] = 1  # loaded high
    struct.pack_into("<I", setup, 0x214, 0x100000)
    struct.pack_into("<I", setup, 0x22C, 0x37FFFFFF)
    struct.pack_into("<H", setup, 0x236, flags)
    struct.pack_into("<I", setup, 0x238, 255)
    assert len(code) <= 0x200
    setup[0x400 : 0x400 + len(code)] = code
    text = f"{release} (somebody@somewhere) #1".encode() + b"\0"
    setup[0x600 : 0x600 + len(text)] = text
    return bytes(setup) + bytes(1024)


def printing(text: str) -> bytes:
    """Real-mode code that prints *text* on the first serial port, then stops for ever.

    ``call next; pop si; add si, 12; ...``: finds itself, as it may run at any segment.
    """
    head = (
        b"\xe8\x00\x00"  # call the next instruction
        b"\x5e"  # pop si
        b"\x83\xc6\x12"  # add si, distance to the text
        b"\xba\xf8\x03"  # mov dx, 0x3f8
        b"\x2e\xac"  # again: lodsb from cs
        b"\x84\xc0"  # test al, al
        b"\x74\x03"  # jz stop
        b"\xee"  # out dx, al
        b"\xeb\xf7"  # jmp again
        b"\xf4"  # stop: hlt
        b"\xeb\xfd"  # jmp stop
    )
    # The text begins after these; si was the address of the fourth byte.
    assert len(head) == 22
    head = head.replace(b"\x83\xc6\x12", bytes((0x83, 0xC6, len(head) - 3)))
    return head + text.encode() + b"\0"


def busybox() -> bytes:
    """The header of a program that runs without libraries on i386."""
    head = bytearray(256)
    head[:7] = b"\x7fELF\x01\x01\x01"
    struct.pack_into("<HHI", head, 16, 2, 3, 1)
    return bytes(head)


def module(
    depends: str = "", *, magic: str = "1.2.3-test SMP mod_unload 686 ", bits: int = 1
) -> bytes:
    """An ELF object with a section .modinfo, as the System V ABI lays it out."""
    info = b"\0".join((b"license=Dual MIT/GPL", b"depends=" + depends.encode(), b"")) + (
        b"vermagic=" + magic.encode() + b"\0"
    )
    names = b"\0.modinfo\0.shstrtab\0"
    table = 52 + len(info) + len(names)
    ident = b"\x7fELF" + bytes((bits, 1, 1)) + bytes(9)
    head = ident + struct.pack("<HHIIIIIHHHHHH", 1, 3, 1, 0, 0, table, 0, 52, 0, 0, 40, 3, 2)
    sections = (
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (1, 1, 2, 0, 52, len(info), 0, 0, 1, 0),
        (10, 3, 0, 0, 52 + len(info), len(names), 0, 0, 1, 0),
    )
    return head + info + names + b"".join(struct.pack("<10I", *one) for one in sections)


def write(path: Path, content: bytes, mode: int = 0o644) -> Path:
    """*path* with *content*, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)
    return path
