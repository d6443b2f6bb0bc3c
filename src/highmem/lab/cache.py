"""Where the lab keeps kernels between runs: ``$XDG_CACHE_HOME/highmem/lab``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError

__all__ = ["cache_folder", "locked"]


def cache_folder() -> Path:
    """The folder, made where it is not there; LabError where it cannot be."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification has relative paths ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    folder = root / "highmem" / "lab"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder}: cannot be made: {error.strerror}") from None
    return folder


@contextmanager
def locked() -> Iterator[Path]:
    """The folder, while no other process changes it."""
    folder = cache_folder()
    try:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LabError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)
