from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.errors import HighmemError, InputError, UsageError
from highmem.lint.api import load_api
from highmem.lint.files import compiled_sources
from highmem.lint.result import FunctionReport
from highmem.lint.shown.baseline import baseline_document, load_baseline
from highmem.lint.shown.diffbase import left_halves, touched
from highmem.lint.shown.patch import Changed, git_patch, parse_patch, read_patch
from highmem.lint.shown.suppress import allowed, find_allows
from support.lint_findings import SOURCE, finding

FUNCTIONS = (FunctionReport("copy_one", 1, 2, "full"),)


def with_comment(line: int, comment: str, *, alone: bool = True) -> bytes:
    lines = SOURCE.splitlines()
    if alone:
        lines.insert(line - 1, comment)
    else:
        lines[line - 1] += " " + comment
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize(
    ("line", "alone", "at"),
    [(6, False, 6), (6, True, 7), (1, True, 7)],
    ids=["same line", "line above", "before the function"],
)
def test_a_comment_allows_what_it_stands_by(line: int, alone: bool, at: int) -> None:
    text = with_comment(line, "/* highmem: allow(leaked-window) the caller unmaps */", alone=alone)
    functions = (FunctionReport("copy_one", 2 if line == 1 else 1, 2, "full"),)
    result = allowed(text, [finding("a.c", line=at)], functions)
    assert [reason for _, reason in result.allowed] == ["the caller unmaps"]
    assert not result.kept and not result.notes


@pytest.mark.parametrize(
    ("comment", "fault"),
    [
        ("/* highmem: allow(leaked-window) */", "gives no reason"),
        ("/* highmem: allow(leaky) because */", "there is no such rule"),
        ("/* highmem: allow because */", "names no rule"),
        ("/* highmem: allow(stale-access) because */", "no finding needs"),
        ("// highmem: allow(leaked-window)", "gives no reason"),
    ],
)
def test_a_comment_that_allows_nothing_is_said(comment: str, fault: str) -> None:
    result = allowed(with_comment(6, comment), [finding("a.c", line=7)], FUNCTIONS)
    assert len(result.kept) == 1
    assert result.notes[0][0] == 6 and fault in result.notes[0][1]


def test_a_comment_further_up_allows_nothing() -> None:
    text = with_comment(4, "/* highmem: allow(leaked-window) because */")
    assert len(allowed(text, [finding("a.c", line=7)], FUNCTIONS).kept) == 1


def test_a_reason_may_run_over_lines_and_name_several_rules() -> None:
    comment = "/* highmem: allow(leaked-window, stale-access) the\n * caller does */"
    (one,) = find_allows(with_comment(6, comment), FUNCTIONS)
    assert one.rules == {"leaked-window", "stale-access"}
    assert one.reason == "the caller does"
    assert 8 in one.lines


@given(st.binary(max_size=300).map(lambda tail: b"/* highmem: allow(" + tail))
def test_garbled_comments_are_bounded(text: bytes) -> None:
    for one in find_allows(text, FUNCTIONS):
        assert one.line >= 1


def test_a_baseline_hides_what_is_known_and_tells_what_is_gone(tmp_path: Path) -> None:
    old, new = finding("a.c"), finding("a.c", statement="return 1;")
    gone = finding("b.c", function="other")
    path = tmp_path / "base.json"
    path.write_text(json.dumps(baseline_document([old, gone])), encoding="utf-8")
    known = load_baseline(str(path))
    assert known.new([finding("a.c", line=99), new]) == [new]
    assert known.gone([old]) == ["b.c: leaked-window in other()"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", '{"format": "highmem-baseline"}', "[" * 100_000,
     '{"format": "highmem-baseline", "version": 1, "findings": [{}]}',
     '{"format": "highmem-baseline", "version": 1, "findings": [{"fingerprint": []}]}',
     '{"format": "highmem-baseline", "version": 1, "findings": 5}'],
)  # fmt: skip
def test_what_is_no_baseline_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_baseline(str(path))
    assert "\n" not in str(caught.value)


PATCH = b"""\
diff --git a/drivers/x.c b/drivers/x.c
index 1..2 100644
--- a/drivers/x.c
+++ b/drivers/x.c
@@ -10,4 +10,4 @@ int f(void)
 context
-\told line
+\tnew line
 context
 context
@@ -30 +29,0 @@
-gone
--- a/gone.c
+++ /dev/null
@@ -1 +0,0 @@
-nothing
"""


def test_a_patch_says_which_lines_are_new() -> None:
    files = parse_patch(PATCH)
    assert set(files) == {"drivers/x.c"}
    assert files["drivers/x.c"].lines == {10, 11, 29, 30}
    assert files["drivers/x.c"].removed == [b"\told line", b"gone"]


@pytest.mark.parametrize(
    "text",
    [b"@@ -1 +1 @@\n-a\n+b\n", b"words\n", b"--- a/x\n+++ b/x\n@@ -1,9 +1,9 @@\n a\n",
     b"--- a/x\n+++ b/x\n@@ -1 +1 @@\nnot a change\n"],
)  # fmt: skip
def test_a_damaged_patch_is_one_line(text: bytes) -> None:
    with pytest.raises(InputError):
        parse_patch(text)


@given(st.binary(max_size=400))
def test_any_bytes_as_a_patch_end(noise: bytes) -> None:
    try:
        parse_patch(b"--- a/x\n+++ b/x\n" + noise)
    except HighmemError as error:
        assert "\n" not in str(error)


def test_names_are_unquoted() -> None:
    patch = b'--- "a/\\303\\244 \\"x\\".c"\n+++ "b/\\303\\244 \\"x\\".c"\n@@ -1 +1 @@\n-a\n+b\n'
    assert list(parse_patch(patch)) == ['ä "x".c']


def git(folder: Path, *arguments: str) -> None:
    base = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder))
    subprocess.run((*base, *arguments), check=True, capture_output=True)


def test_git_says_the_same_lines_as_the_change_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    source = tmp_path / "sub" / "a.c"
    source.write_text("".join(f"line {n};\n" for n in range(1, 21)), encoding="utf-8")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[4] = "other;\n"
    lines.insert(10, "more;\n")
    source.write_text("".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "sub")
    text, top = git_patch("HEAD")
    assert Path(top).samefile(tmp_path)
    assert {5, 11} <= parse_patch(text)["sub/a.c"].lines <= {4, 5, 11}
    with pytest.raises(UsageError, match="neither a patch file nor a revision"):
        git_patch("no-such-revision")
    with pytest.raises(UsageError):
        read_patch("--output=evil")
    assert not (tmp_path / "evil").exists()


def test_a_change_is_to_blame_for_the_paths_that_it_touches() -> None:
    one = finding("a.c")
    assert touched([one], Changed("a.c", lines={6})) == [one]
    assert touched([one], Changed("a.c", lines={3})) == [one], "a step of the path"
    assert touched([one], Changed("a.c", lines={2, 8})) == []


HALF = b"""\
static void *get(struct page *page)
{
	return kmap_local_page(page);
}
/* kunmap_atomic(p) in words is no call */
static void put(void *p)
{
	kunmap_atomic(p);
}
"""


def test_the_other_half_of_a_conversion_is_found() -> None:
    patch = (
        b"--- a/h.c\n+++ b/h.c\n@@ -3 +3 @@\n"
        b"-\treturn kmap_atomic(page);\n+\treturn kmap_local_page(page);\n"
    )
    change = parse_patch(patch)["h.c"]
    (half,) = left_halves(HALF, change, load_api())
    assert (half.rule, half.line, half.column) == ("mismatched-pair", 8, 2)


def test_a_whole_conversion_is_silent() -> None:
    whole = HALF.replace(b"\tkunmap_atomic", b"\tkunmap_local")
    patch = (
        b"--- a/h.c\n+++ b/h.c\n@@ -3 +3 @@\n"
        b"-\treturn kmap_atomic(page);\n+\treturn kmap_local_page(page);\n"
        b"@@ -8 +8 @@\n-\tkunmap_atomic(p);\n+\tkunmap_local(p);\n"
    )
    assert left_halves(whole, parse_patch(patch)["h.c"], load_api()) == []


def test_compile_commands_name_the_sources(tmp_path: Path) -> None:
    path = tmp_path / "compile_commands.json"
    entries = [
        {"directory": str(tmp_path), "file": "sub/../a.c", "command": "cc a.c"},
        {"directory": str(tmp_path / "b"), "file": "b.c", "arguments": ["cc"]},
        {"directory": str(tmp_path), "file": "a.c", "command": "cc a.c -DX"},
        {"directory": str(tmp_path), "file": "boot.S", "command": "as"},
    ]
    path.write_text(json.dumps(entries), encoding="utf-8")
    assert compiled_sources(str(path)) == [str(tmp_path / "a.c"), str(tmp_path / "b" / "b.c")]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"file": 5}]', "[" * 100_000])
def test_what_is_no_compilation_database_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "compile_commands.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        compiled_sources(str(path))
