from __future__ import annotations

import json
from pathlib import Path

import pytest

from highmem.findings import RULES, Confidence
from highmem.lint import LintOptions, lint_paths, lint_source
from highmem.lint.api import load_api
from highmem.lint.cache import Cache
from highmem.lint.result import FileReport
from highmem.lint.stages import Outcome, analyse, needles, tool_digest

LEAK = """
int f(struct page *page, int bad)
{
	u8 *p = kmap_atomic(page);

	p[0] = 1;
	if (bad)
		goto out;
	kunmap_atomic(p);
out:
	return bad;
}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.c").write_text(LEAK)
    (tmp_path / "src" / "b.c").write_text("int none;\n")
    return tmp_path / "src"


def test_a_finding_tells_its_place_its_path_and_what_the_kernel_does() -> None:
    (one,) = lint_source(LEAK.encode(), "a.c").findings
    assert (one.rule, one.function, one.confidence) == ("leaked-window", "f", Confidence.CERTAIN)
    assert (one.line, one.column, one.statement) == (11, 2, "return bad;")
    assert [(step.line, step.text) for step in one.steps] == [
        (4, "kmap_atomic() maps page"),
        (7, "bad: yes"),
        (8, "goto out"),
    ]
    assert "slot" in one.kernel_does
    assert one.fix == RULES["leaked-window"].fix


def test_everything_survives_json() -> None:
    outcome = analyse(LEAK.encode(), "a.c", load_api())
    assert outcome.report.findings
    assert Outcome.from_dict(json.loads(json.dumps(outcome.to_dict()))) == outcome
    document = json.loads(json.dumps(outcome.report.to_dict()))
    assert FileReport.from_dict(document) == outcome.report


def test_deprecated_calls_are_told_only_where_asked_for() -> None:
    text = b"void f(struct page *p) { u8 *a = kmap(p); a[0] = 1; kunmap(p); }\n"
    assert lint_source(text, "a.c").findings == ()
    (one,) = lint_source(text, "a.c", deprecated=True).findings
    assert (one.rule, one.confidence) == ("deprecated-api", Confidence.LIKELY)


def test_a_second_run_comes_from_the_cache_and_says_the_same(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    reports = []
    hits = []
    for _ in range(2):
        cache = Cache(folder)
        reports.append(lint_paths([tree], LintOptions(cache=cache)))
        hits.append(cache.hits)
        cache.close()
    assert reports[0] == reports[1]
    assert hits == [0, 1]


def test_a_changed_file_is_read_again(tree: Path, tmp_path: Path) -> None:
    for text, expected in ((LEAK, 1), (LEAK.replace("goto out;", "bad = 2;"), 0)):
        (tree / "a.c").write_text(text)
        cache = Cache(tmp_path / "cache")
        report = lint_paths([tree], LintOptions(cache=cache))
        cache.close()
        assert len(report.findings) == expected


def test_a_file_that_gets_its_first_call_is_not_skipped(tree: Path, tmp_path: Path) -> None:
    for text, expected in (("int none;\n", 1), (LEAK, 2)):
        (tree / "b.c").write_text(text)
        cache = Cache(tmp_path / "cache")
        report = lint_paths([tree], LintOptions(cache=cache))
        cache.close()
        assert len(report.findings) == expected


def test_a_file_given_twice_is_read_once(tree: Path) -> None:
    assert lint_paths([tree, tree / "a.c", str(tree)]).seen == 2


def test_a_file_is_read_whatever_it_is_called(tree: Path) -> None:
    (tree / "patched").write_text(LEAK)
    assert lint_paths([tree]).seen == 2
    assert len(lint_paths([tree / "patched"]).findings) == 1


def test_progress_counts_up_to_all(tree: Path) -> None:
    told: list[tuple[int, int]] = []
    lint_paths([tree], LintOptions(progress=lambda done, total: told.append((done, total))))
    assert (2, 2) in told


def test_every_name_of_the_table_holds_a_needle() -> None:
    table = load_api()
    found, others = needles(table)
    assert all(any(one in name.encode() for one in found) for name in table.names())
    assert len(found) < 30 and not others


def test_the_digest_of_the_tool_is_the_same_within_a_run() -> None:
    assert tool_digest() == tool_digest()
    assert len(tool_digest()) == 32
