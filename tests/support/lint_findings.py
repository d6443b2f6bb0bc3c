"""Findings as the analysis makes them, for tests of what shows them."""

from __future__ import annotations

from pathlib import Path

from highmem.findings import RULES, Confidence
from highmem.lint.result import FileReport, FunctionReport, LintFinding, LintReport, Step
from highmem.lint.shown.select import Shown

__all__ = ["SOURCE", "finding", "report_of", "shown_of"]

SOURCE = """\
int copy_one(struct page *page, int bad)
{
	char *p = kmap_local_page(page);
	p[0] = 0;
	if (bad)
		return -EIO;
	kunmap_local(p);
	return 0;
}
"""


def finding(
    path: str,
    *,
    rule: str = "leaked-window",
    line: int = 6,
    column: int = 3,
    function: str = "copy_one",
    what: str = "the window of page is not unmapped on this path",
    statement: str = "return -EIO;",
    confidence: Confidence = Confidence.CERTAIN,
    steps: tuple[Step, ...] | None = None,
) -> LintFinding:
    return LintFinding(
        rule=rule,
        path=path,
        line=line,
        column=column,
        end_line=line,
        end_column=column + len(statement),
        function=function,
        what=what,
        kernel_does="goes on with one window less for this task",
        steps=(Step(3, 12, "mapped here"), Step(5, 6, "bad is true")) if steps is None else steps,
        confidence=confidence,
        fix=RULES[rule].fix,
        statement=statement,
    )


def report_of(path: str, *findings: LintFinding, text: str = SOURCE) -> LintReport:
    Path(path).write_text(text, encoding="utf-8")
    functions = (FunctionReport("copy_one", 1, 2, "full"),)
    return LintReport(3, 1, 1, 1, (FileReport(path, functions, findings), _rejected()))


def _rejected() -> FileReport:
    return FileReport("huge.c", rejected="a line of 50 MiB")


def shown_of(path: str, *findings: LintFinding) -> Shown:
    return Shown(report_of(path, *findings), findings, notes=("a note",))
