from __future__ import annotations

from pathlib import Path

import pytest

from highmem.findings import Confidence
from highmem.lint import LintOptions, lint_paths, lint_source
from highmem.lint.api import load_api
from highmem.lint.result import LintFinding
from highmem.lint.stages import analyse

MAPPER = """
static void *blk_map(struct blk *b)
{
	return kmap_atomic(b->page);
}
static void blk_unmap(struct blk *b, void *p)
{
	kunmap_atomic(p);
}
"""


def found(text: str) -> list[tuple[str, str, str]]:
    report = lint_source(text.encode(), "x.c")
    return [(one.function, one.rule, one.confidence.value) for one in report.findings]


def leaks(text: str) -> set[str]:
    return {
        function
        for function, rule, sure in found(text)
        if rule == "leaked-window" and sure != "possible"
    }


def test_a_function_that_returns_its_window_leaks_nothing_and_its_caller_may() -> None:
    good = "void g(struct blk *b) { void *p = blk_map(b); use(p); blk_unmap(b, p); }"
    bad = "void h(struct blk *b) { u8 *p = blk_map(b); p[0] = 1; }"
    assert leaks(MAPPER + good + bad) == {"h"}


def test_a_wrapper_of_a_wrapper_is_one_too() -> None:
    more = """
static void *second(struct blk *b) { return blk_map(b); }
static void *third(struct blk *b) { return second(b); }
int k(struct blk *b) { u8 *p = third(b); if (p[0]) return -EIO; blk_unmap(b, p); return 0; }
"""
    assert leaks(MAPPER + more) == {"k"}


def test_a_page_that_comes_mapped_or_as_an_error() -> None:
    text = """
static struct page *dir_get(struct inode *dir, int n)
{
	struct page *page = read_mapping_page(dir->i_mapping, n, NULL);
	if (!IS_ERR(page))
		kmap(page);
	return page;
}
static void dir_put(struct page *page)
{
	kunmap(page);
	put_page(page);
}
int good(struct inode *dir)
{
	struct page *page = dir_get(dir, 0);
	if (IS_ERR(page))
		return PTR_ERR(page);
	look(page_address(page));
	dir_put(page);
	return 0;
}
int bad(struct inode *dir)
{
	struct page *page = dir_get(dir, 0);
	if (IS_ERR(page))
		return PTR_ERR(page);
	if (((u8 *)page_address(page))[0])
		return -EIO;
	dir_put(page);
	return 0;
}
"""
    assert leaks(text) == {"bad"}


def test_a_window_kept_in_the_callers_struct_is_the_callers() -> None:
    text = """
static int walk_map(struct walk *w)
{
	w->addr = kmap_local_page(w->page);
	return 0;
}
static void walk_unmap(struct walk *w)
{
	kunmap_local(w->addr);
	w->addr = NULL;
}
void good(struct walk *w) { walk_map(w); use(w->addr); walk_unmap(w); }
void twice(struct walk *w)
{
	struct walk mine;
	mine.page = w->page;
	walk_map(&mine);
	kunmap_local(mine.addr);
	kunmap_local(mine.addr);
}
"""
    rules = {(function, rule) for function, rule, sure in found(text) if sure != "possible"}
    assert rules == {("twice", "double-unmap")}


def test_an_iterator_must_be_stopped() -> None:
    text = """
int good(struct scatterlist *sg, int n)
{
	struct sg_mapping_iter m;
	sg_miter_start(&m, sg, n, SG_MITER_ATOMIC);
	while (sg_miter_next(&m))
		use(m.addr, m.length);
	sg_miter_stop(&m);
	return 0;
}
int bad(struct scatterlist *sg, int n)
{
	struct sg_mapping_iter m;
	sg_miter_start(&m, sg, n, SG_MITER_ATOMIC);
	while (sg_miter_next(&m)) {
		if (((u8 *)m.addr)[0])
			return -EIO;
	}
	sg_miter_stop(&m);
	return 0;
}
"""
    assert leaks(text) == {"bad"}


def test_a_callee_of_the_file_that_sleeps_is_named_with_its_way() -> None:
    text = """
static void inner(struct dev *d) { mutex_lock(&d->lock); mutex_unlock(&d->lock); }
static void outer(struct dev *d) { inner(d); }
void f(struct dev *d, struct page *page)
{
	u8 *p = kmap_atomic(page);
	outer(d);
	p[0] = 1;
	kunmap_atomic(p);
}
"""
    report = lint_source(text.encode(), "x.c")
    (one,) = [one for one in report.findings if one.rule == "sleep-in-atomic"]
    assert one.confidence is Confidence.LIKELY
    assert "outer() calls inner() calls mutex_lock" in one.what


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "fs" / "tagfs"
    folder.mkdir(parents=True)
    (folder / "map.h").write_text("static inline void tag_put(void *p)\n{\n\tkunmap_local(p);\n}\n")
    (folder / "map.c").write_text(
        "void *tag_get(struct page *page)\n{\n\treturn kmap_local_page(page);\n}\n"
    )
    (folder / "use.c").write_text(
        "int good(struct page *page)\n{\n\tu8 *p = tag_get(page);\n\tint v = p[0];\n\n"
        "\ttag_put(p);\n\treturn v;\n}\n"
        "int bad(struct page *page)\n{\n\tu8 *p = tag_get(page);\n\n\treturn p[0];\n}\n"
    )
    (folder / "other.c").write_text("int none(void)\n{\n\treturn 0;\n}\n")
    (tmp_path / "README").write_text("kmap_local_page(page)\n")
    return tmp_path


def summary(findings: list[LintFinding]) -> list[tuple[str, str]]:
    return [(one.function, one.rule) for one in findings if one.confidence.value != "possible"]


def test_wrappers_of_one_file_are_known_in_the_next(tree: Path) -> None:
    report = lint_paths([tree])
    assert summary(report.findings) == [("bad", "leaked-window")]
    assert (report.seen, report.skipped, report.analysed, report.rejected) == (4, 1, 3, 0)


def test_alone_the_user_of_a_wrapper_shows_nothing(tree: Path) -> None:
    assert summary(lint_paths([tree / "fs" / "tagfs" / "use.c"]).findings) == []


def test_several_processes_say_the_same(tree: Path) -> None:
    for number in range(30):
        text = f"void f{number}(struct page *p) {{ kunmap_local(kmap_local_page(p)); }}\n"
        (tree / f"many{number}.c").write_text(text)
    alone = lint_paths([tree])
    together = lint_paths([tree], LintOptions(jobs=2))
    assert together == alone


def test_a_function_of_the_users_own_table(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        '[open]\nmydrv_win = { family = "local", page = 1 }\n'
        '[close]\nmydrv_done = { family = "local", argument = 0 }\n'
    )
    text = (
        b"int f(struct dev *d, struct page *p)\n{\n\tu8 *a = mydrv_win(d, p);\n\n"
        b"\tif (a[0])\n\t\treturn 1;\n\tmydrv_done(a);\n\treturn 0;\n}\n"
    )
    assert analyse(text, "x.c", load_api()).report.findings == ()
    report = analyse(text, "x.c", load_api([table])).report
    assert [one.rule for one in report.findings] == ["leaked-window"]


def test_a_function_that_only_has_the_name_of_a_map_call_is_what_its_file_says() -> None:
    walks = """
void scatterwalk_map(struct walk *walk)
{
	walk->data = kmap_atomic(walk->page) + walk->offset;
}
int copy_chunks(struct walk *walk, void *to, size_t left)
{
	while (left > walk->size) {
		kunmap_atomic(walk->data);
		next_page(walk);
		scatterwalk_map(walk);
		left -= walk->size;
	}
	return 0;
}
"""
    assert not leaks(walks)
    other = walks.replace(
        "void scatterwalk_map(struct walk *walk)", "void start(struct walk *walk)"
    )
    assert leaks(other) == {"copy_chunks"}  # there it is the kernel's, whose result is lost


@pytest.mark.parametrize(
    ("path", "sure"),
    [
        ("arch/arm/mm/flush.c", "likely"),
        ("arch/sparc/mm/init_32.c", "likely"),
        ("drivers/mmc/host/wmt-sdmmc.c", "likely"),
        ("old/arch/s390/mm/flush.c", "possible"),
        ("drivers/parisc/iommu.c", "possible"),
        ("arch/sparc/mm/init_64.c", "possible"),
    ],
)
def test_a_page_is_hardly_high_in_code_for_machines_without_high_memory(
    path: str, sure: str
) -> None:
    text = b"void f(struct scatterlist *sg) { memset(page_address(sg_page(sg)), 0, 8); }"
    assert [(one.rule, one.confidence.value) for one in lint_source(text, path).findings] == [
        ("unmapped-high-page", sure)
    ]
