"""Reads a "newc" archive as Linux describes it (early-userspace/buffer-format.rst)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A file of the archive."""

    name: str
    mode: int
    content: bytes
    inode: int
    major: int
    minor: int


def read_newc(data: bytes) -> list[Entry]:
    """The files of the archive *data*; AssertionError where it is not as described."""
    found: list[Entry] = []
    at = 0
    while True:
        assert at % 4 == 0
        head = data[at : at + 110]
        assert len(head) == 110 and head[:6] == b"070701"
        fields = [int(head[6 + 8 * n : 14 + 8 * n], 16) for n in range(13)]
        inode, mode, _, _, links, _, size, _, _, major, minor, name_size, check = fields
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0") and b"\0" not in name[:-1] and check == 0
        start = at + -(-(110 + name_size) // 4) * 4
        assert data[start + size :] or size == 0
        content = data[start : start + size]
        assert len(content) == size
        if name == b"TRAILER!!!\0":
            assert size == 0
            return found
        assert links >= 1
        found.append(Entry(name[:-1].decode(), mode, content, inode, major, minor))
        at = start + -(-size // 4) * 4
