from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from highmem.findings import RULES

ROOT = Path(__file__).parents[2]
REAL = tomllib.loads((ROOT / "tests" / "lint" / "real_bugs.toml").read_text(encoding="utf-8"))
OTHERS_GROUND = {"address-space"}  # OT02: what sparse looks for, no rule of ours
WRONG = """\
static int take(struct page *page, int stop)
{
	char *p = kmap_local_page(page);

	if (stop)
		return -1;
	p[0] = 0;
	kunmap_local(p);
	return 0;
}
"""
RIGHT = WRONG.replace("\t\treturn -1;", "\t\tgoto out;").replace("\tkunmap", "out:\n\tkunmap")


@pytest.fixture(scope="module")
def truth() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lint_truth", ROOT / "scripts" / "lint_truth.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["lint_truth"] = module
    spec.loader.exec_module(module)
    return module


def bug(**more: object) -> dict[str, object]:
    file = {"path": "drivers/take.c", "functions": ["take"]}
    return {"id": "X1", "checker": "yes", "rules": ["leaked-window"], "file": [file], **more}


def write(corpus: Path, buggy: str | None, fixed: str | None) -> None:
    for side, text in (("buggy", buggy), ("fixed", fixed)):
        if text is not None:
            path = corpus / "X1" / side / "drivers" / "take.c"
            path.parent.mkdir(parents=True)
            path.write_text(text, encoding="utf-8")


def test_ids_are_unique() -> None:
    ids = [one["id"] for one in REAL["bug"]]
    assert len(ids) == len(set(ids))


def test_every_bug_names_rules_of_the_catalogue() -> None:
    named = {rule for one in REAL["bug"] for rule in one["rules"]}
    assert named - set(RULES) == OTHERS_GROUND


def test_every_bug_says_what_it_takes_and_where_it_is() -> None:
    for one in REAL["bug"]:
        assert one["checker"] in {"yes", "callee", "value", "legacy", "no"}, one["id"]
        for file in one["file"]:
            assert file["functions"], one["id"]
            assert file["buggy"]["repo"], one["id"]


def test_a_bug_that_is_found_and_gone_after_the_fix_is_good(
    truth: ModuleType, tmp_path: Path
) -> None:
    write(tmp_path, WRONG, RIGHT)
    result = truth.judge_bug(tmp_path, bug())
    assert (result.good, result.sides, result.missed, result.false) == (True, "both", (), ())


def test_a_bug_that_is_not_found_is_not_good(truth: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, RIGHT, RIGHT)
    result = truth.judge_bug(tmp_path, bug())
    assert (result.good, result.missed) == (False, ("take",))


def test_a_finding_after_the_fix_is_not_good(truth: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, WRONG, WRONG)
    result = truth.judge_bug(tmp_path, bug())
    assert (result.good, result.false) == (False, ("take",))


def test_another_rule_is_no_find(truth: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, WRONG, None)
    result = truth.judge_bug(tmp_path, bug(rules=["unmap-order"]))
    assert (result.good, result.sides, result.missed) == (False, "buggy only", ("take",))


def test_what_is_not_there_is_not_read(truth: ModuleType, tmp_path: Path) -> None:
    assert truth.judge_bug(tmp_path, bug()).sides == "none"


def test_a_trap_says_what_was_shown(truth: ModuleType, tmp_path: Path) -> None:
    for name, text in (("T1", WRONG), ("T2", RIGHT)):
        path = tmp_path / "traps" / name / "take.c"
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    said = [
        truth.judge_trap(tmp_path, {"id": name, "path": "take.c", "function": "take"}).shown
        for name in ("T1", "T2")
    ]
    assert said == [("6: certain leaked-window",), ()]


def test_files_come_out_of_a_git_repository(
    truth: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, corpus = tmp_path / "home", tmp_path / "corpus"
    home.mkdir()
    (home / "take.c").write_text(WRONG, encoding="utf-8")
    git = ["git", "-C", str(home), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *command], check=True)
    here = {"repo": "a/b", "commit": "HEAD"}
    gone = {"repo": "a/b", "commit": "0000000"}
    manifest = {
        "bug": [{"id": "X1", "file": [{"path": "take.c", "buggy": here, "fixed": gone}]}],
        "trap": [{"id": "T1", "path": "take.c", **here}],
    }
    monkeypatch.setattr(truth, "_load", lambda: manifest)
    missing = truth.collect(corpus, {"c/d": str(home)})
    assert missing == ["X1/fixed: a/b 0000000 take.c"]
    assert (corpus / "X1" / "buggy" / "take.c").read_text(encoding="utf-8") == WRONG
    assert (corpus / "traps" / "T1" / "take.c").is_file()
