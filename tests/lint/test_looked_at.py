"""What is looked at, and what is left out because nothing could come of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from highmem.findings import RULES
from highmem.lint import LintOptions, lint_paths, lint_source
from highmem.lint.api import load_api
from highmem.lint.paths.analyse import BESIDE_WINDOWS
from highmem.lint.paths.plain import plainly_low
from highmem.lint.result import LintReport
from highmem.lint.stages import analyse
from support.lint_corpus import CORPUS

LOW = {
    "allocated": "{ struct page *p = alloc_page(GFP_KERNEL); use(page_address(p)); }",
    "allocated later": "{ struct page *p; p = dev_page(); if (!p) return; use(page_address(p)); }",
    "of an address": "{ p = virt_to_page(a); if (p && page_address(p)) list_add(&p->lru, l); }",
    "asked before": "{ if (!PageHighMem(page)) use(page_address(page)); }",
    "a member of that name": "{ p = alloc_page(GFP_KERNEL); d->p = q->o; use(page_address(p)); }",
}
NOT_PLAIN = {
    "the caller's": "{ use(page_address(page)); }",
    "of the page cache": "{ p = find_get_page(m, 1); use(page_address(p)); }",
    "high memory": "{ p = alloc_page(GFP_HIGHUSER); use(page_address(p)); }",
    "of a member": "{ p = d->page; use(page_address(p)); }",
    "of a list": "{ p = alloc_page(GFP_KERNEL); use(page_address(p), sg_virt(sg)); }",
    "written by a call": "{ p = alloc_page(GFP_KERNEL); get(&p); use(page_address(p)); }",
    "a choice": "{ p = alloc_page(GFP_KERNEL) ? page : 0; use(page_address(p)); }",
    "no name": "{ use(page_address(d->page)); }",
    "a wrapper": "{ p = likely(page); use(page_address(p)); }",
    "not a call": "{ f = page_address; }",
}


@pytest.mark.parametrize("name", LOW)
def test_plainly_low(name: str) -> None:
    assert plainly_low(LOW[name], ("page",), load_api())
    text = f"void f(struct page *page)\n{LOW[name]}\n".encode()
    assert not [one for one in lint_source(text, "a.c").findings if one.function == "f"]


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_not_plain(name: str) -> None:
    assert not plainly_low(NOT_PLAIN[name], ("page",), load_api())


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.c")), ids=lambda path: path.stem)
def test_what_is_plain_is_followed_to_the_same_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = analyse(path.read_bytes(), "a.c", load_api()).report
    monkeypatch.setattr("highmem.lint.paths.analyse.FileAnalysis._silent", lambda *_: False)
    assert analyse(path.read_bytes(), "a.c", load_api()).report == report


@pytest.fixture(scope="module")
def every() -> LintReport:
    return lint_paths([CORPUS], LintOptions(deprecated=True))


@pytest.mark.parametrize("beside", [(), *((rule,) for rule in BESIDE_WINDOWS)], ids=str)
def test_some_rules_alone_find_what_all_find_of_them(
    beside: tuple[str, ...], every: LintReport
) -> None:
    rules = RULES.keys() - set(BESIDE_WINDOWS) | set(beside)
    options = LintOptions(deprecated=True, rules=frozenset(rules))
    found = [one for one in lint_paths([CORPUS], options).findings if one.rule in rules]
    assert found == [one for one in every.findings if one.rule in rules]
    assert {one.rule for one in found} >= set(beside)


def test_files_that_no_rule_concerns_are_not_counted_as_analysed(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("void f(struct page *p) { use(page_address(p)); }\n")
    (tmp_path / "b.c").write_text("void g(struct page *p) { use(kmap(p)); }\n")
    report = lint_paths([tmp_path], LintOptions(rules=frozenset({"leaked-window"})))
    assert (report.analysed, report.skipped) == (1, 1)
    assert lint_paths([tmp_path]).analysed == 2
    assert "unmapped-high-page" in BESIDE_WINDOWS


def test_a_file_left_out_is_looked_at_once_it_calls_a_wrapper(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "a.c").write_text("void *get(struct page *p) { return kmap_atomic(p); }\n")
    user = "int g(struct page *p) { u8 *a = get(p); use(page_address(p)); return a[0]; }\n"
    (tmp_path / "b" / "b.c").write_text(user)
    for rules in (None, frozenset({"leaked-window"})):
        found = lint_paths([tmp_path], LintOptions(rules=rules)).findings
        assert [one.function for one in found if one.rule == "leaked-window"] == ["g"]


def test_another_round_gives_what_a_run_from_the_start_gives(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("void *get(struct page *p) { return kmap_atomic(p); }\n")
    user = "int g(struct page *p) { u8 *a = get(p); kmap(p); kunmap(p); return a[0]; }\n"
    other = "int h(struct page *p) { u8 *a = kmap(p); return a[0]; }\n"
    (tmp_path / "b.c").write_text(user + other)
    report = lint_paths([tmp_path], LintOptions(deprecated=True))
    (told,) = analyse((tmp_path / "a.c").read_bytes(), "a.c", load_api()).offers
    path = str(tmp_path / "b.c")
    outcome = analyse((tmp_path / "b.c").read_bytes(), path, load_api(), (told,))
    assert report.files[1] == outcome.report
    assert {one.function for one in report.findings} >= {"g", "h"}
