from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from highmem.findings import RULES, Confidence
from highmem.lint import lint_source
from highmem.lint.result import FileReport, LintFinding
from support.lint_corpus import CORPUS, Expected, Written, read_functions

FILES = sorted(CORPUS.glob("*.c"))
WRITTEN = [function for path in FILES for function in read_functions(path)]
WRONG = [function for function in WRITTEN if function.expected]
RIGHT = [function for function in WRITTEN if not function.expected]
SHOWN = (Confidence.CERTAIN, Confidence.LIKELY)
# The slot that such a mistake leaves taken may be said too.
LEAVES_A_SLOT = {
    "address-not-page",
    "advanced-pointer",
    "double-unmap",
    "mismatched-pair",
    "page-not-address",
    "unmap-order",
}


@cache
def report_of(name: str) -> FileReport:
    deprecated = name == "deprecated_api.c"
    return lint_source((CORPUS / name).read_bytes(), name, deprecated=deprecated)


def findings_of(function: Written) -> list[LintFinding]:
    found = report_of(function.file).findings
    return [one for one in found if function.first <= one.line <= function.last]


def is_met(expected: Expected, found: list[LintFinding]) -> bool:
    return any(
        one.rule in expected.rules
        and (expected.any_confidence or one.confidence in SHOWN)
        and expected.line in {one.line, *(step.line for step in one.steps)}
        for one in found
    )


def name_of(function: Written) -> str:
    return f"{function.file.removesuffix('.c')}:{function.name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_rule_has_ten_wrong_and_ten_right_functions(path: Path) -> None:
    rule = path.stem.replace("_", "-")
    wrong = [one for one in WRONG if one.file == path.name]
    right = [one for one in RIGHT if one.file == path.name]
    assert rule in RULES
    assert sum(any(rule in mark.rules for mark in one.expected) for one in wrong) >= 10
    assert len(right) >= 10


def test_no_two_functions_share_a_name_in_a_file() -> None:
    assert Counter((one.file, one.name) for one in WRITTEN).most_common(1)[0][1] == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_function_that_maps_is_fully_analysed(path: Path) -> None:
    report = report_of(path.name)
    assert report.rejected is None
    assert [one.name for one in report.functions if one.status != "full"] == []


@pytest.mark.parametrize("function", WRONG, ids=name_of)
def test_the_mistake_is_found_where_it_is(function: Written) -> None:
    found = findings_of(function)
    missing = [mark for mark in function.expected if not is_met(mark, found)]
    assert missing == []


@pytest.mark.parametrize("function", WRONG, ids=name_of)
def test_nothing_but_the_mistake_is_found(function: Written) -> None:
    allowed = {rule for mark in function.expected for rule in mark.rules} | function.allowed
    if allowed & LEAVES_A_SLOT:
        allowed |= {"leaked-window"}
    shown = [one for one in findings_of(function) if one.confidence in SHOWN]
    assert [(one.line, one.rule) for one in shown if one.rule not in allowed] == []


@pytest.mark.parametrize("function", RIGHT, ids=name_of)
def test_correct_code_is_left_in_peace(function: Written) -> None:
    shown = [one for one in findings_of(function) if one.confidence in SHOWN]
    assert [(one.line, one.rule) for one in shown if one.rule not in function.allowed] == []
