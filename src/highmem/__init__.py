"""highmem: the Linux kernel's mapping system for high memory, exactly, in Python.

>>> from highmem import Kernel
>>> kernel = Kernel.boot("debian-5.10-686", ram=2 << 30, cpus=4)

``Kernel`` is the modelled kernel, ``load_profile`` finds one by name or TOML file, and
``highmem.replay.replay(read_trace(path))`` judges a recording, ``open_image(path)`` opens a memory
image, and ``lint_paths([path])`` judges C source.
"""

from __future__ import annotations

import importlib

# As in typing, which the command line imports after it has told the garbage collector to wait.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from highmem.image.view import open_image
    from highmem.kernel.kernel import Kernel
    from highmem.kernel.profile import Profile, load_profile, make_profile
    from highmem.lint.driver import lint_paths
    from highmem.replay.verdict import Verdict
    from highmem.trace import read_trace

__all__ = [
    "Kernel",
    "Profile",
    "Verdict",
    "__version__",
    "lint_paths",
    "load_profile",
    "make_profile",
    "open_image",
    "read_trace",
]

__version__ = "0.1.0"

_HOMES = {
    "Kernel": "highmem.kernel.kernel",
    "Profile": "highmem.kernel.profile",
    "Verdict": "highmem.replay.verdict",
    "lint_paths": "highmem.lint.driver",
    "load_profile": "highmem.kernel.profile",
    "make_profile": "highmem.kernel.profile",
    "open_image": "highmem.image.view",
    "read_trace": "highmem.trace",
}


def __getattr__(name: str) -> object:
    """Import the public names when they are used, so that ``highmem --help`` imports none."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'highmem' has no attribute {name!r}")
