"""Reads kernel C source, follows each path of each function, and judges its map and unmap calls.

>>> from highmem.lint import lint_source
>>> report = lint_source(b"void f(struct page *p) { kunmap_local(p); }", "drivers/f.c")

No build, no headers, no preprocessor: one file is enough; several together also tell what
each other's functions map and unmap.  Needs the extra ``highmem[lint]``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from highmem.lint.api import ApiTable, load_api
    from highmem.lint.driver import LintOptions, lint_paths, lint_source
    from highmem.lint.paths.summaries import Summaries
    from highmem.lint.result import FileReport, FunctionReport, LintFinding, LintReport, Step

__all__ = [
    "ApiTable",
    "FileReport",
    "FunctionReport",
    "LintFinding",
    "LintOptions",
    "LintReport",
    "Step",
    "Summaries",
    "lint_paths",
    "lint_source",
    "load_api",
]

_HOMES = {
    "ApiTable": "api",
    "FileReport": "result",
    "FunctionReport": "result",
    "LintFinding": "result",
    "LintOptions": "driver",
    "LintReport": "result",
    "Step": "result",
    "Summaries": "paths.summaries",
    "lint_paths": "driver",
    "lint_source": "driver",
    "load_api": "api",
}


def __getattr__(name: str) -> object:
    """Import the public names when they are used: the parser is an extra."""
    if name in _HOMES:
        home = importlib.import_module(f"highmem.lint.{_HOMES[name]}")
        return getattr(home, name)
    raise AttributeError(f"module 'highmem.lint' has no attribute {name!r}")
