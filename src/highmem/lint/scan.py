"""Looking for names in many files: pieces of work for another process."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from highmem.lint.syntax.source import MAX_BYTES
from highmem.lint.syntax.text import finder

__all__ = ["Hit", "Scan", "Search", "read_file"]

_USUAL = 1 << 16
"""Bytes that most files do not have."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A file that holds what was looked for, or cannot be read."""

    path: str
    digest: bytes = b""
    """Of its content."""
    names: tuple[str, ...] = ()
    """Those that are in it, where they are asked for."""
    chief: bool = True
    """Whether a name is there that makes a file matter by itself."""
    fault: str = ""
    """Why it cannot be read."""


def read_file(path: str, size: int = _USUAL) -> bytes:
    """The file, which is thought to have *size* bytes; more than the limit is never read."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(handle, min(size, MAX_BYTES) + 1)
        if len(data) == size:
            return data
        parts, left = [data], MAX_BYTES + 1 - len(data)
        while left > 0 and (data := os.read(handle, min(left, 1 << 20))):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Scan:
    """Which of some files hold one of the names."""

    chief: tuple[bytes, ...]
    others: tuple[bytes, ...] = ()

    def __call__(self, files: Sequence[tuple[str, int]]) -> tuple[int, list[Hit]]:
        """Of files and their sizes: how many they are, and those that matter."""
        _keep_memory()
        both, chief = _finder(self.chief + self.others), _finder(self.chief)
        found = []
        for path, size in files:
            if not size:
                continue
            try:
                data = read_file(path, size)
            except OSError as error:
                found.append(Hit(path, fault=f"cannot be read: {error.strerror}"))
                continue
            if both(data):
                digest = hashlib.sha256(data).digest()
                found.append(Hit(path, digest, chief=not self.others or chief(data)))
        return len(files), found


@dataclass(frozen=True, slots=True)
class Search:
    """Which of some files call one of the names, that are functions."""

    wanted: tuple[str, ...]
    every: tuple[str, ...]
    """Names that are told of a file where it calls one."""

    def __call__(self, files: Sequence[str]) -> list[Hit]:
        """Those that do; a file that cannot be read does not."""
        _keep_memory()
        names = [name.encode() for name in self.wanted]
        inside = _finder(tuple(names))
        calls = re.compile(rb"\b(?:" + b"|".join(map(re.escape, names)) + rb")\s*\(")
        found = []
        for path in files:
            try:
                data = read_file(path)
            except OSError:
                continue
            if inside(data) and calls.search(data):
                said = tuple(name for name in self.every if name.encode() in data)
                found.append(Hit(path, hashlib.sha256(data).digest(), said))
        return found


@functools.lru_cache(maxsize=8)
def _finder(names: tuple[bytes, ...]) -> Callable[[bytes], bool]:
    return finder(names)


@functools.cache
def _keep_memory() -> None:
    """glibc gives what one file took back to the system, and takes it again for the next,
    until it has seen a block go that was as large as the largest."""
    bytes(MAX_BYTES)
