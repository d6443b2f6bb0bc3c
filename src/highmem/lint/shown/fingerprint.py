"""What tells one finding from another when the lines of a file move."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from highmem.lint.result import LintFinding

__all__ = ["fingerprints", "shown_path"]


def shown_path(path: str, base: str | None = None) -> str:
    """*path* relative to *base* (the working directory) where it lies under it, with ``/``."""
    root = os.path.realpath(base or os.getcwd())
    absolute = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
    if absolute.startswith(root.rstrip(os.sep) + os.sep):
        path = os.path.relpath(absolute, root)
    return PurePath(os.path.normpath(path)).as_posix()


def fingerprints(findings: Sequence[LintFinding], base: str | None = None) -> list[str]:
    """One hexadecimal fingerprint for each finding, in their order.

    Made of rule, path, function and statement, and of how many alike came before: it stays when
    code above is added or taken away, and no two findings of one report share one.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    paths: dict[str, str] = {}
    marks = []
    for found in findings:
        if found.path not in paths:
            paths[found.path] = shown_path(found.path, base)
        key = (found.rule, paths[found.path], found.function, found.statement)
        text = "\0".join((*key, str(seen[key])))
        marks.append(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:20])
        seen[key] += 1
    return marks
