from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from highmem.cli.lint import lint
from support.lint_findings import SOURCE

CLEAN = SOURCE.replace("\t\treturn -EIO;", "\t\tgoto out;").replace(
    "\tkunmap_local(p);\n\treturn 0;", "out:\n\tkunmap_local(p);\n\treturn 0;"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    here = tmp_path / "tree"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "a.c").write_text(SOURCE, encoding="utf-8")
    (here / "clean.c").write_text(CLEAN, encoding="utf-8")
    return here


def run(*arguments: str, given: bytes | None = None) -> Result:
    return CliRunner().invoke(lint, ["-j", "1", *arguments], input=given)


def test_a_leak_is_found_and_a_clean_file_is_clean() -> None:
    found = run("a.c")
    assert found.exit_code == 1
    assert "error leaked-window  a.c:6:3" in found.stdout
    clean = run("clean.c")
    assert clean.exit_code == 0
    assert "nothing found" in clean.stdout


def test_a_directory_is_read_whole() -> None:
    result = run("--format", "json", ".")
    document = json.loads(result.stdout)
    assert document["summary"]["files"] == 2
    assert [one["path"] for one in document["findings"]] == ["a.c"]


@pytest.mark.parametrize("form", ["text", "gcc", "json", "sarif", "github"])
def test_the_second_run_says_the_same_from_the_cache(form: str) -> None:
    first, second = run("--format", form, "."), run("--format", form, ".")
    assert first.stdout == second.stdout
    assert first.exit_code == second.exit_code == 1
    assert run("--no-cache", "--format", form, ".").stdout == first.stdout


def test_the_cache_sees_a_change(folder: Path) -> None:
    assert run("a.c").exit_code == 1
    (folder / "a.c").write_text(CLEAN, encoding="utf-8")
    assert run("a.c").exit_code == 0


def test_the_cache_sees_a_change_of_a_wrapper_in_another_file(folder: Path) -> None:
    body = "void give(void *p)\n{\n\tkunmap_local(p);\n}\n"
    (folder / "give.c").write_text(body, encoding="utf-8")
    user = SOURCE.replace("\t\treturn -EIO;", "\t\treturn give(p), -EIO;")
    (folder / "a.c").write_text(user, encoding="utf-8")
    assert run(".").exit_code == 0
    (folder / "give.c").write_text(body.replace("kunmap_local(p)", "use(p)"), encoding="utf-8")
    run(".")
    again = run("--no-cache", "--min-confidence", "possible", "--format", "json", ".")
    cached = run("--min-confidence", "possible", "--format", "json", ".")
    assert again.stdout == cached.stdout


def test_processes_say_the_same_as_one(folder: Path) -> None:
    for number in range(12):
        (folder / f"b{number}.c").write_text(SOURCE, encoding="utf-8")
    one = run("--no-cache", "--format", "json", ".")
    two = run("--no-cache", "--format", "json", "-j", "2", ".")
    assert one.stdout == two.stdout


def test_rules_and_confidence_choose() -> None:
    assert run("--not-rule", "leaked-window", "a.c").exit_code == 0
    assert run("--rule", "stale-access", "a.c").exit_code == 0
    assert run("--rule", "leaked-window", "a.c").exit_code == 1
    assert "1 not shown: of rules left out" in run("--not-rule", "leaked-window", "a.c").stdout
    assert run("--exit-zero", "a.c").exit_code == 0


def test_what_no_chosen_rule_concerns_is_said_not_to_be_looked_at(folder: Path) -> None:
    comment = "/* highmem: allow(unmapped-high-page) the caller's are low */\n"
    text = "void *at(struct page *p)\n{\n\treturn page_address(p);\n}\n"
    (folder / "low.c").write_text(comment + text, encoding="utf-8")
    every = run("--no-cache", "low.c").stdout
    assert "not looked at" not in every and "1 allowed in the source" in every
    for given in (("--rule", "leaked-window"), ("--not-rule", "unmapped-high-page")):
        some = run("--no-cache", *given, "low.c").stdout
        assert "read 1 file = 0 analysed + 1 without such calls" in some
        assert "not looked at: what only unmapped-high-page" in some
        assert "no finding needs" not in some


def test_a_baseline_hides_the_old(folder: Path) -> None:
    assert run("--write-baseline", "base.json", ".").exit_code == 0
    assert run("--baseline", "base.json", ".").exit_code == 0
    (folder / "a.c").write_text("\n\n" + SOURCE, encoding="utf-8")
    assert run("--baseline", "base.json", ".").exit_code == 0
    (folder / "new.c").write_text(SOURCE, encoding="utf-8")
    assert run("--baseline", "base.json", ".").exit_code == 1
    (folder / "a.c").write_text(CLEAN, encoding="utf-8")
    assert "not found any more: a.c: leaked-window in copy_one()" in (
        run("--baseline", "base.json", "a.c").stdout
    )


def test_the_source_allows_with_a_reason(folder: Path) -> None:
    allow = "\t\t/* highmem: allow(leaked-window) the caller unmaps */\n\t\treturn -EIO;"
    (folder / "a.c").write_text(SOURCE.replace("\t\treturn -EIO;", allow), encoding="utf-8")
    result = run("a.c")
    assert result.exit_code == 0
    assert "1 allowed in the source" in result.stdout


def test_a_change_is_blamed_for_its_own(folder: Path) -> None:
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")
    (folder / "b.c").write_text(CLEAN, encoding="utf-8")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "one")):
        subprocess.run((*git, *command), check=True, capture_output=True)
    assert run("--diff", "HEAD").exit_code == 0
    (folder / "b.c").write_text(SOURCE, encoding="utf-8")
    result = run("--diff", "HEAD", "--format", "gcc")
    assert result.exit_code == 1
    assert result.stdout.startswith("b.c:6:3: ") and "a.c" not in result.stdout
    patch = subprocess.run((*git, "diff"), check=True, capture_output=True).stdout
    assert run("--diff", "-", "--format", "gcc", given=patch).stdout == result.stdout


@pytest.mark.parametrize(
    "arguments",
    [(), ("missing.c",), ("--baseline", "missing.json", "a.c"), ("--api", "a.c", "a.c"),
     ("--compile-commands", "a.c"), ("--diff", "no-such", "a.c"), ("--rule", "nonsense", "a.c"),
     ("--write-baseline", "-", "a.c")],
)  # fmt: skip
def test_bad_usage_is_said_in_a_line(arguments: tuple[str, ...]) -> None:
    from highmem.cli import _group

    result = CliRunner().invoke(_group, ["lint", "-j", "1", *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert result.stderr.strip().splitlines()[-1].lower().count("a.c") <= 2


def test_a_file_that_cannot_be_analysed_is_incomplete(folder: Path) -> None:
    (folder / "deep.c").write_bytes(b"void f(void) { kmap_local_page(p);" + b"{" * 100_000)
    result = run("deep.c", "clean.c")
    assert "Traceback" not in result.output
    assert result.exit_code in (1, 3)
    assert "deep.c" in result.stdout
