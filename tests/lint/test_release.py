"""The release of a tree, and what it changes: slots by name up to 2.6.36, a stack since."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from highmem.errors import UsageError
from highmem.kernel.families import FAMILIES, Era
from highmem.lint import LintOptions, lint_paths
from highmem.lint.cache import Cache
from highmem.lint.release import Release, Releases, parse_release, slots_by_name

ORDER = """
void copy(struct page *to, struct page *from)
{
	char *in = kmap_atomic(from, KM_USER0);
	char *out = kmap_atomic(to, KM_USER1);

	memcpy(out, in, PAGE_SIZE);
	kunmap_atomic(in, KM_USER0);
	kunmap_atomic(out, KM_USER1);
}
"""
BUSY = ORDER.replace("KM_USER1", "KM_USER0")


def tree(folder: Path, release: str) -> Path:
    (folder / "mm").mkdir()
    (folder / "mm" / "copy.c").write_text(ORDER)
    (folder / "mm" / "busy.c").write_text(BUSY)
    if release:
        first, second, third = release.split(".")
        lines = ["# SPDX", f"VERSION = {first}", f"PATCHLEVEL = {second}", f"SUBLEVEL = {third}"]
        (folder / "Makefile").write_text("\n".join([*lines, "EXTRAVERSION =", ""]))
    return folder


def found(path: Path, **options: object) -> list[tuple[str, str, str]]:
    report = lint_paths([path], LintOptions(**options))  # type: ignore[arg-type]
    return [(Path(f.path).name, f.rule, f.confidence.value) for f in report.findings]


ORDER_IN_BUSY = ("busy.c", "unmap-order", "certain")
"""Two windows of one slot: a stack minds their order."""


@pytest.mark.parametrize("release", ["2.6.35", "2.6.36"])
def test_slots_by_name_have_no_order_and_can_be_taken_twice(tmp_path: Path, release: str) -> None:
    assert found(tree(tmp_path, release)) == [("busy.c", "busy-entry", "certain")]


@pytest.mark.parametrize("release", ["2.6.37", "3.0.8"])
def test_a_stack_has_an_order_and_the_names_mean_nothing(tmp_path: Path, release: str) -> None:
    assert found(tree(tmp_path, release)) == [
        ORDER_IN_BUSY,
        ("copy.c", "unmap-order", "certain"),
    ]


def test_without_a_release_both_may_be(tmp_path: Path) -> None:
    assert found(tree(tmp_path, "")) == [
        ("busy.c", "busy-entry", "likely"),
        ORDER_IN_BUSY,
        ("copy.c", "unmap-order", "likely"),
    ]


def test_the_release_that_is_given_counts_before_the_makefile(tmp_path: Path) -> None:
    here = tree(tmp_path, "3.0.8")
    assert ("copy.c", "unmap-order", "certain") in found(here)
    assert "copy.c" not in [name for name, _, _ in found(here, release=(2, 6, 32))]


def test_another_release_is_another_result_in_the_cache(tmp_path: Path) -> None:
    here = tree(tmp_path, "2.6.35")
    cache = Cache(tmp_path / "cache")
    old = found(here, cache=cache)
    (here / "Makefile").write_text("VERSION = 3\nPATCHLEVEL = 0\n")
    new = found(here, cache=cache)
    cache.close()
    assert ("copy.c", "unmap-order", "certain") in set(new) - set(old)


def test_the_innermost_tree_counts(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = 9\n")
    inner = tmp_path / "old" / "linux"
    (inner / "fs").mkdir(parents=True)
    (inner / "Makefile").write_text("VERSION = 2\nPATCHLEVEL = 6\nSUBLEVEL = 20\n")
    releases = Releases()
    assert releases.of(str(inner / "fs" / "x.c")) == (2, 6, 20)
    assert releases.of(str(tmp_path / "old" / "x.c")) == (6, 1, 9)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 9000,
        b"VERSION = 6\n",
        b"VERSION = six\nPATCHLEVEL = 1\n",
        b"VERSION = 999999999999\nPATCHLEVEL = 1\n",
        b"\xff" * 5000 + b"\nVERSION = 2\nPATCHLEVEL = 6\n",
    ],
)
def test_a_makefile_of_something_else_tells_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "Makefile").write_bytes(b"VERSION = 5\nPATCHLEVEL = 4\n")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "Makefile").write_bytes(content)
    assert Releases().of(str(inner / "x.c")) == (5, 4, 0)


def test_no_makefile_to_read_is_none(tmp_path: Path) -> None:
    (tmp_path / "Makefile").mkdir()
    inner = tmp_path / "inner"
    inner.mkdir()
    os.mkfifo(inner / "Makefile")
    assert Releases().of(str(inner / "x.c")) is None


@pytest.mark.parametrize(
    ("text", "release", "by_name"),
    [("2.6.36", (2, 6, 36), True), ("2.6.37", (2, 6, 37), False), ("6.1", (6, 1, 0), False)],
)
def test_releases_in_words(text: str, release: Release, by_name: bool) -> None:
    assert parse_release(text) == release and slots_by_name(release) is by_name


def test_the_model_has_the_same_releases_for_slots_by_name() -> None:
    seen = set()
    for family in FAMILIES.values():
        for release in family.versions.split(" to "):
            seen.add(family.era)
            assert slots_by_name(parse_release(release)) is (family.era is Era.TYPED)
    assert {Era.TYPED, Era.STACK} <= seen


@pytest.mark.parametrize("text", ["", "6", "v6.1", "6.1-rc3", "2.6.32.1", "6.x", "\uff19.1"])
def test_what_is_no_release_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="no release"):
        parse_release(text)
