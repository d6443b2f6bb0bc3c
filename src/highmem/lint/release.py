"""Which kernel a file is of: the release that the Makefile of its tree tells."""

from __future__ import annotations

import os
import re

from highmem.errors import UsageError

__all__ = ["Release", "Releases", "parse_release", "slots_by_name"]

Release = tuple[int, int, int]

_LINE = re.compile(rb"(?m)^(VERSION|PATCHLEVEL|SUBLEVEL)[ \t]*=[ \t]*([0-9]{1,5})[ \t\r]*$")
_RELEASE = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})(?:\.([0-9]{1,5}))?")
_HEAD = 4096
"""Bytes of a Makefile that are looked at: the release stands in its first lines."""
_STACK = (2, 6, 37)
"""The first release whose kmap_atomic() takes the next slot, whatever name it is given."""


def parse_release(text: str) -> Release:
    """``2.6.32`` or ``6.1`` as numbers; UsageError where it is neither."""
    found = _RELEASE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no release of the kernel: give 2.6.32, or 6.1")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def slots_by_name(release: Release | None) -> bool | None:
    """Whether each name that kmap_atomic() is given is a slot of its own (include/linux/highmem.h
    up to 2.6.36); None where the release is not known."""
    return None if release is None else release < _STACK


class Releases:
    """The releases of trees, each folder looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, Release | None] = {}

    def of(self, path: str) -> Release | None:
        """The release of the innermost tree around a file that tells one."""
        return self._of(os.path.dirname(os.path.abspath(path)))

    def _of(self, folder: str) -> Release | None:
        if folder not in self._known:
            above = os.path.dirname(folder)
            own = _told(os.path.join(folder, "Makefile"))
            self._known[folder] = own or (self._of(above) if above != folder else None)
        return self._known[folder]


def _told(makefile: str) -> Release | None:
    try:
        if not os.path.isfile(makefile):  # a pipe of that name would have no end
            return None
        with open(makefile, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    found = {word: int(number) for word, number in _LINE.findall(head)}
    if b"VERSION" not in found or b"PATCHLEVEL" not in found:
        return None
    return found[b"VERSION"], found[b"PATCHLEVEL"], found.get(b"SUBLEVEL", 0)
