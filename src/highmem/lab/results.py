"""What a machine brought back: the tar archive at the start of its disk."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

from .errors import LabError
from .tarball import place

__all__ = ["new_disk", "unpack"]

_LEAST = 64 << 20
_FACT_LIMIT = 64 << 20
_END = "zz-end"
"""The last file of the archive: behind the end of a cut one there are zeros, which look like
its end."""


def new_disk(path: Path, recording: int) -> None:
    """Make the disk *path*, with room for *recording* bytes and the facts; it takes no space
    of the host's until it is written."""
    size = _LEAST + 2 * recording
    try:
        with open(path, "xb") as stream:
            os.truncate(stream.fileno(), size)
    except OSError as error:
        raise LabError(f"{path}: cannot be made: {error.strerror}") from None


def unpack(disk: Path, folder: Path) -> dict[str, bytes]:
    """The files at the top of the archive on *disk*; those in directories go to *folder*.

    Raises LabError where the archive is not whole, or the host has no space for it.
    """
    facts: dict[str, bytes] = {}
    try:
        with open(disk, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in filter(tarfile.TarInfo.isreg, archive):
                name = member.name.removeprefix("./")
                if "/" in name:
                    place(archive, member, folder, name)
                else:
                    content = archive.extractfile(member)
                    assert content is not None
                    facts[name] = content.read(_FACT_LIMIT)
        if facts.pop(_END, None) is None:
            raise LabError("what the machine brought back is not whole")
    except (tarfile.TarError, EOFError) as error:
        raise LabError(f"what the machine brought back cannot be read: {error}") from None
    except OSError as error:
        raise LabError(f"{folder}: cannot be written: {error.strerror}") from None
    return facts
