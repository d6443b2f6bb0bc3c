from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from highmem.findings import Confidence
from highmem.lint import lint_source
from support.window_programs import RULES, broken_rules, random_function

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler here")


def compare(seeds: range, folder: Path) -> None:
    functions = {seed: random_function(seed) for seed in seeds}
    assert COMPILER is not None
    truth = broken_rules(functions, COMPILER, folder)
    report = lint_source("\n".join(functions.values()).encode(), "programs.c")
    assert {one.status for one in report.functions} <= {"full"}
    for seed, text in functions.items():
        found = {
            one.rule: one.confidence
            for one in sorted(report.findings, key=lambda one: one.confidence.value, reverse=True)
            if one.function == f"f{seed}" and one.rule in RULES.values()
        }
        assert truth[seed] <= found.keys(), f"{truth[seed] - found.keys()} missed in\n{text}"
        wrong = set(found.keys() - truth[seed])
        certain = {rule for rule in wrong if found[rule] is Confidence.CERTAIN}
        assert not certain, f"{certain} never happens in\n{text}"


@needs_compiler
def test_what_breaks_in_a_run_is_found_and_what_is_certain_breaks_in_a_run(tmp_path: Path) -> None:
    compare(range(300), tmp_path)


@needs_compiler
@pytest.mark.slow
def test_the_same_for_many_more_functions(tmp_path: Path) -> None:
    compare(range(1000, 3000), tmp_path)
