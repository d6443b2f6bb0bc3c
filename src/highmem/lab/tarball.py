"""Taking regular files out of a tar archive, to names that stay where they should."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

__all__ = ["place"]


def place(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: str) -> None:
    """Write the regular file *member* to *name* in *folder*; nothing of its owner or mode is kept.

    Raises tarfile.TarError where the name leads out of *folder*, or the archive ends in it.
    """
    parts = [part for part in Path(name).parts if part != "."]
    if not parts or ".." in parts or Path(name).is_absolute():
        raise tarfile.ReadError("a name in it leads out of it")
    target = folder.joinpath(*parts)
    content = archive.extractfile(member)
    assert content is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, open(target, "wb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)
    if target.stat().st_size != member.size:
        raise tarfile.ReadError("it is cut off")
