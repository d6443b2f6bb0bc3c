"""SARIF 2.1.0: what lint found, for code scanners and editors.

The format is OASIS's *Static Analysis Results Interchange Format*; the members used and their
meaning follow its sections 3.14 (run), 3.27 (result) and 3.36 to 3.38 (code flows).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from highmem import __version__
from highmem.findings import RULES, Rule
from highmem.lint.result import LintFinding
from highmem.lint.shown.excerpt import Excerpts
from highmem.lint.shown.fingerprint import shown_path
from highmem.lint.shown.select import Shown
from highmem.report.lint import level_of

__all__ = ["sarif_document"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_FINGERPRINT = "highmem/v1"


def sarif_document(
    shown: Shown, marks: Sequence[str], excerpts: Excerpts, allowed_marks: Sequence[str] = ()
) -> dict[str, Any]:
    """One run; *marks* are the fingerprints of the findings shown, *allowed_marks* of those that
    the source allows, which are results with a suppression."""
    index = {name: at for at, name in enumerate(RULES)}
    results = [
        _result(found, mark, index, excerpts)
        for found, mark in zip(shown.findings, marks, strict=True)
    ]
    for (found, reason), mark in zip(shown.allowed, allowed_marks, strict=True):
        excuse = {"suppressions": [{"kind": "inSource", "justification": reason}]}
        results.append({**_result(found, mark, index, excerpts), **excuse})
    run = {
        "tool": {
            "driver": {
                "name": "highmem",
                "semanticVersion": __version__,
                "rules": [_rule(one) for one in RULES.values()],
            }
        },
        "columnKind": "utf16CodeUnits",
        "originalUriBaseIds": {"SRCROOT": {"uri": _root_uri()}},
        "invocations": [
            {"executionSuccessful": True, "toolExecutionNotifications": _notifications(shown)}
        ],
        "results": results,
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _root_uri() -> str:
    return Path.cwd().as_uri().rstrip("/") + "/"


def _rule(one: Rule) -> dict[str, Any]:
    example = f"\n\n```c\n{one.example}\n```" if one.example else ""
    return {
        "id": one.name,
        "shortDescription": {"text": one.title},
        "fullDescription": {"text": one.explanation},
        "defaultConfiguration": {"level": one.level.value},
        "help": {
            "text": f"{one.explanation}\n\nMend: {one.fix}",
            "markdown": f"{one.explanation}{example}\n\n**Mend:** {one.fix}",
        },
    }


def _result(
    found: LintFinding, mark: str, index: dict[str, int], excerpts: Excerpts
) -> dict[str, Any]:
    said = f"{found.what}. Kernels with HIGHMEM: {found.kernel_does}."
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": index[found.rule],
        "level": level_of(found).value,
        "message": {"text": said},
        "locations": [_place(found, excerpts)],
        "partialFingerprints": {_FINGERPRINT: mark},
        "properties": {"confidence": found.confidence.value},
    }
    if found.steps:
        path = [
            {"location": _location(found.path, step.line, step.column, step.text, excerpts)}
            for step in found.steps
        ]
        result["codeFlows"] = [{"threadFlows": [{"locations": path}]}]
    return result


def _place(found: LintFinding, excerpts: Excerpts) -> dict[str, Any]:
    place = _location(found.path, found.line, found.column, "", excerpts)
    region = place["physicalLocation"]["region"]
    region["endLine"] = found.end_line
    region["endColumn"] = excerpts.character_column(found.path, found.end_line, found.end_column)
    if found.function:
        place["logicalLocations"] = [{"name": found.function, "kind": "function"}]
    return place


def _location(path: str, line: int, column: int, text: str, excerpts: Excerpts) -> dict[str, Any]:
    shown = shown_path(path)
    where: dict[str, Any] = {"uri": quote(os.fsencode(shown))}
    if os.path.isabs(shown):
        where["uri"] = "file://" + where["uri"]
    else:
        where["uriBaseId"] = "SRCROOT"
    region = {
        "startLine": line,
        "startColumn": excerpts.character_column(path, line, column),
    }
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": where, "region": region}}
    if text:
        place["message"] = {"text": text}
    return place


def _notifications(shown: Shown) -> list[dict[str, Any]]:
    """What was not, or not wholly, analysed."""
    said = [f"{path}: not analysed: {why}" for path, why in shown.rejected]
    for one in shown.report.files:
        for function in one.functions:
            if function.status == "partial":
                why = "; ".join(function.reasons)
                said.append(f"{one.path}:{function.line}: {function.name}: partly analysed: {why}")
    said += shown.notes
    return [{"level": "note", "message": {"text": text}} for text in said]
