"""Which of the two ways a module that can be compiled runs.

A module that :file:`hatch_build.py` compiled is imported as its extension, otherwise as the
same file's Python.  ``HIGHMEM_INTERPRETED=1`` in the environment chooses the Python even
where an extension is there: to look for a defect of the compiler, and for the tests.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

__all__ = ["interpreted", "load"]


def interpreted() -> bool:
    """Whether the environment asks for the interpreted modules."""
    return os.environ.get("HIGHMEM_INTERPRETED") == "1"


def load(name: str) -> ModuleType:
    """The module *name*, compiled if it is and may be."""
    return load_source(name, name) if interpreted() else importlib.import_module(name)


def load_source(name: str, known_as: str) -> ModuleType:
    """The Python file of module *name*, under the name *known_as*."""
    if known_as in sys.modules:
        return sys.modules[known_as]
    package, _, last = name.rpartition(".")
    parent = importlib.import_module(package)
    assert parent.__file__ is not None
    path = os.path.join(os.path.dirname(parent.__file__), f"{last}.py")
    spec = importlib.util.spec_from_loader(known_as, SourceFileLoader(known_as, path))
    assert spec is not None and spec.loader is not None
    module = sys.modules[known_as] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
