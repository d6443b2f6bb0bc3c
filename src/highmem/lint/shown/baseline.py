"""A baseline: the findings that are known already, so that only new ones are shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highmem.errors import InputError
from highmem.lint.result import LintFinding
from highmem.lint.shown.fingerprint import fingerprints, shown_path

__all__ = ["Baseline", "baseline_document", "load_baseline"]

_FORMAT = "highmem-baseline"
_VERSION = 1
_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline file holds."""

    path: str
    known: dict[str, str]
    """Fingerprint to a line that says which finding it was."""

    def new(self, findings: Sequence[LintFinding]) -> list[LintFinding]:
        """Those of *findings* that are not known."""
        marks = fingerprints(findings)
        return [one for one, mark in zip(findings, marks, strict=True) if mark not in self.known]

    def gone(self, findings: Sequence[LintFinding]) -> list[str]:
        """What was known and is not among *findings* any more: lines to show."""
        here = set(fingerprints(findings))
        return [line for mark, line in self.known.items() if mark not in here]


def load_baseline(path: str) -> Baseline:
    """Read what :func:`baseline_document` made; InputError where the file is something else."""
    try:
        if Path(path).stat().st_size > _LIMIT:
            raise InputError(path, "too large for a baseline")
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(path, "not a baseline: not JSON") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise InputError(path, "not a baseline of highmem lint (--write-baseline makes one)")
    if document.get("version") != _VERSION:
        raise InputError(path, f"a baseline of version {document.get('version')!r}, not {_VERSION}")
    try:
        known = {_text(one["fingerprint"]): _line(one) for one in document["findings"]}
    except (KeyError, TypeError):
        raise InputError(path, "a damaged baseline: write it again") from None
    return Baseline(path, known)


def baseline_document(findings: Sequence[LintFinding]) -> dict[str, Any]:
    """The baseline of *findings*, for JSON; lines are left out because they move."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "findings": [
            {
                "fingerprint": mark,
                "rule": found.rule,
                "path": shown_path(found.path),
                "function": found.function,
                "statement": found.statement,
            }
            for found, mark in zip(findings, fingerprints(findings), strict=True)
        ],
    }


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _line(one: dict[str, Any]) -> str:
    rule, path, function = (_text(one[name]) for name in ("rule", "path", "function"))
    return f"{path}: {rule} in {function}()"
