"""What a kernel says of itself: ``linux_banner``, and its note for dumps, VMCOREINFO."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from highmem.image.find.roots import low_frames
from highmem.image.formats.source import FRAME_SIZE, ImageSource

__all__ = ["Banner", "find_banner", "find_vmcoreinfo", "has_banner", "vmcoreinfo_symbol"]

_BANNER = re.compile(rb"Linux version ((\d+)\.(\d+)[^ ]*) [^\0]{0,500}\n")
_LONGEST = 600
"""Bytes of a banner at most."""
_KEY = re.compile(r"[A-Za-z0-9_().\-]+")


@dataclass(frozen=True, slots=True)
class Banner:
    """``linux_banner``: where it is, its text, and the release in it (``uname -r``)."""

    address: int
    text: str
    release: str


def find_banner(rodata: npt.NDArray[np.uint8], base: int) -> Banner | None:
    """The first banner in the kernel's read-only part, whose first byte is at *base*."""
    every = list(_BANNER.finditer(rodata.data))
    if not every:
        return None
    # From 6.1 on an early copy without the build's number stands in the image as well.
    found = next((one for one in every if re.search(rb" #\d", one[0])), every[0])
    text = found[0].decode("utf-8", "backslashreplace").rstrip("\n")
    return Banner(base + found.start(), text, found[1].decode("ascii", "backslashreplace"))


def has_banner(source: ImageSource, start: int, end: int) -> bool:
    """Whether whole frames between two physical addresses hold the text of a banner."""
    before = b""
    for _, frames in low_frames(source, start, end):
        text = before + frames.tobytes()
        if _BANNER.search(text):
            return True
        before = text[-_LONGEST:]
    return False


def find_vmcoreinfo(source: ImageSource, limit: int = 1 << 30) -> tuple[int, Mapping[str, str]]:
    """The page that the kernel keeps ready for a dump (``crash_save_vmcoreinfo_init``).

    Its physical address and its lines; (-1, {}) if there is none.  It has a page of its own
    since 4.13, in low memory, and begins with the release.
    """
    first = np.frombuffer(b"OSRE", "<u4")[0]
    for start, frames in low_frames(source, 0, limit):
        for hit in np.flatnonzero(frames.view("<u4")[:, 0] == first).tolist():
            raw = frames[hit].tobytes()
            if not raw.startswith(b"OSRELEASE=") or b"SYMBOL(swapper_pg_dir)=" not in raw:
                continue
            text = raw.split(b"\0", 1)[0].decode("ascii", "backslashreplace")
            lines = (line.partition("=") for line in text.splitlines())
            found = {key: value for key, sign, value in lines if sign and _KEY.fullmatch(key)}
            return (start + hit) * FRAME_SIZE, found
    return -1, {}


def vmcoreinfo_symbol(info: Mapping[str, str], name: str) -> int | None:
    """The address that VMCOREINFO gives for a symbol."""
    try:
        value = int(info[f"SYMBOL({name})"], 16)
    except (KeyError, ValueError):
        return None
    return value if 0 < value < 1 << 32 else None
