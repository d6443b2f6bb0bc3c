"""What the analysis of C source says: frozen values that JSON can hold.

A :class:`LintFinding` is one case of a rule of the catalogue in a source file, with the path
that leads there as :class:`Step` values.  Lines and columns count from 1, columns in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from highmem.findings import RULES, Confidence

__all__ = ["FileReport", "FunctionReport", "LintFinding", "LintReport", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One point of the path to a finding."""

    line: int
    column: int
    text: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"line": self.line, "column": self.column, "text": self.text}


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One case of a rule being broken in source."""

    rule: str
    """Name of a rule of ``highmem.findings.RULES``."""
    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    """Just past the last byte of the expression or statement."""
    function: str
    what: str
    """What is wrong, in one sentence."""
    kernel_does: str
    """What a kernel with HIGHMEM does then."""
    steps: tuple[Step, ...]
    confidence: Confidence
    fix: str
    statement: str
    """The statement with its white space made one blank: with rule and function it tells
    findings apart when lines move."""

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "rule": self.rule,
            "level": RULES[self.rule].level.value,
            "confidence": self.confidence.value,
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "end_line": self.end_line,
            "end_column": self.end_column,
            "function": self.function,
            "what": self.what,
            "kernel_does": self.kernel_does,
            "steps": [step.to_dict() for step in self.steps],
            "fix": self.fix,
            "statement": self.statement,
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> LintFinding:
        """The value that :meth:`to_dict` made the document of."""
        kept = {name: document[name] for name in cls.__slots__ if name in document}
        kept["steps"] = tuple(Step(**step) for step in document["steps"])
        kept["confidence"] = Confidence(document["confidence"])
        return cls(**kept)


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """How far one function that matters was analysed."""

    name: str
    line: int
    calls: int
    """Mapping and unmapping calls seen in it."""
    status: str
    """``full`` or ``partial``."""
    reasons: tuple[str, ...] = field(default=())
    """Why it is partial."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "line": self.line,
            "calls": self.calls,
            "status": self.status,
            "reasons": list(self.reasons),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> FunctionReport:
        """The value that :meth:`to_dict` made the document of."""
        return cls(**{**document, "reasons": tuple(document["reasons"])})


@dataclass(frozen=True, slots=True)
class FileReport:
    """What one file gave."""

    path: str
    functions: tuple[FunctionReport, ...] = field(default=())
    """Those with mapping calls, or calls of functions that map; others are not analysed."""
    findings: tuple[LintFinding, ...] = field(default=())
    rejected: str | None = None
    """Why nothing was analysed, where nothing was."""
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": self.path,
            "rejected": self.rejected,
            "functions": [function.to_dict() for function in self.functions],
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> FileReport:
        """The value that :meth:`to_dict` made the document of."""
        return cls(
            document["path"],
            tuple(map(FunctionReport.from_dict, document["functions"])),
            tuple(map(LintFinding.from_dict, document["findings"])),
            document["rejected"],
            tuple(document["notes"]),
        )


@dataclass(frozen=True, slots=True)
class LintReport:
    """What all files gave; ``seen == skipped + analysed + rejected``."""

    seen: int
    """Files that were looked at."""
    skipped: int
    """Files that the byte search found to hold no call that matters."""
    analysed: int
    rejected: int
    files: tuple[FileReport, ...] = field(default=())
    """Those analysed or rejected, by path."""

    @property
    def findings(self) -> list[LintFinding]:
        """Every finding, by path and line."""
        return [finding for report in self.files for finding in report.findings]

    def counts(self) -> dict[str, int]:
        """Numbers for the summary line."""
        functions = [one for report in self.files for one in report.functions]
        found = self.findings
        full = sum(1 for one in functions if one.status == "full")
        by_confidence = {
            level.value: sum(1 for one in found if one.confidence is level) for level in Confidence
        }
        return {
            "files": self.seen,
            "skipped": self.skipped,
            "analysed": self.analysed,
            "rejected": self.rejected,
            "functions": len(functions),
            "full": full,
            "partial": len(functions) - full,
            "mapping_calls": sum(one.calls for one in functions),
            "findings": len(found),
            **by_confidence,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {"summary": self.counts(), "files": [report.to_dict() for report in self.files]}
