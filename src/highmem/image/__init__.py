"""Images of a machine's physical memory: their formats, and what the mapping system held.

``open_image(path)`` gives a :class:`~highmem.image.view.ImageKernel`, the kernel as its memory
shows it; ``open_source(paths)`` the memory alone.  Both are imported when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highmem.image.formats.opening import open_source
    from highmem.image.view import ImageKernel, open_image
    from highmem.image.windows import read_windows

__all__ = ["ImageKernel", "open_image", "open_source", "read_windows"]

_HOMES = {
    "ImageKernel": "highmem.image.view",
    "open_image": "highmem.image.view",
    "open_source": "highmem.image.formats.opening",
    "read_windows": "highmem.image.windows",
}


def __getattr__(name: str) -> object:
    """Import the public names when they are used."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
