"""Hold ``highmem lint`` to real bugs: collect both sides of their fixes, judge what it finds.

    lint_truth.py collect CORPUS --git torvalds/linux=/src/linux.git --git openzfs/zfs=…
    lint_truth.py check CORPUS [--markdown] [--id LK01]

``tests/lint/real_bugs.toml`` names the bugs and the traps; the code itself is read from local git
repositories and never kept in this one.  A repository is given by the name that the list uses;
any other that holds the same commit will do as well.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from highmem.findings import Confidence
from highmem.lint import lint_paths
from highmem.lint.result import LintFinding

__all__ = ["BugResult", "TrapResult", "collect", "judge_bug", "judge_trap", "main"]

MANIFEST = Path(__file__).parent.parent / "tests" / "lint" / "real_bugs.toml"
SHOWN = (Confidence.CERTAIN, Confidence.LIKELY)
GOALS = {"yes": 0.85, "callee": 0.50}
TRAP_GOAL = 0.90


@dataclass(frozen=True, slots=True)
class BugResult:
    """How one bug was judged."""

    id: str
    checker: str
    rules: tuple[str, ...]
    missed: tuple[str, ...]
    """Functions of the buggy version without a shown finding of the right rule."""
    faint: tuple[str, ...]
    """Those of them with one that is only possible."""
    false: tuple[str, ...]
    """Functions of the fixed version that still have a shown finding of the rule."""
    sides: str
    """``both``, ``buggy only``, or ``none`` where no file could be read."""
    note: str

    @property
    def good(self) -> bool:
        """Found on the buggy version and silent on the fixed one (where that was read)."""
        return self.sides != "none" and not self.missed and not self.false


@dataclass(frozen=True, slots=True)
class TrapResult:
    """What was said, certain or likely, about a correct function."""

    id: str
    path: str
    function: str
    shown: tuple[str, ...]


def _load() -> dict[str, Any]:
    with MANIFEST.open("rb") as file:
        return tomllib.load(file)


def _sources(manifest: dict[str, Any]) -> Iterator[tuple[str, str, str, list[str]]]:
    """Folder below the corpus, repository, commit and paths of everything to collect."""
    for bug in manifest["bug"]:
        for file in bug["file"]:
            for side in ("buggy", "fixed"):
                if side in file:
                    paths = [file["path"], *file.get("context", ())]
                    place = f"{bug['id']}/{side}"
                    yield place, file[side]["repo"], file[side]["commit"], paths
    for trap in manifest["trap"]:
        paths = [trap["path"], *trap.get("context", ())]
        yield f"traps/{trap['id']}", trap["repo"], trap["commit"], paths


def collect(corpus: Path, repositories: dict[str, str]) -> list[str]:
    """Write every file that can be read below *corpus*; the names of those that can not."""
    missing = []
    for place, repository, commit, paths in _sources(_load()):
        for path in paths:
            spec = f"{commit.split()[0]}:{path}"
            homes = [repositories[repository]] if repository in repositories else []
            for home in homes + [other for other in repositories.values() if other not in homes]:
                command = ["git", "-C", home, "show", spec]
                shown = subprocess.run(command, capture_output=True, check=False)
                if shown.returncode == 0 and " " not in commit:
                    target = corpus / place / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(shown.stdout)
                    break
            else:
                missing.append(f"{place}: {repository} {commit} {path}")
    return missing


def _findings(root: Path, paths: list[str]) -> list[LintFinding] | None:
    """What is found in the first of the paths, the others at hand; None where it is not there."""
    if not (root / paths[0]).is_file():
        return None
    there = [root / path for path in paths if (root / path).is_file()]
    report = lint_paths(there)
    return [one for one in report.findings if one.path == str(root / paths[0])]


def _hits(found: list[LintFinding], names: str, rules: list[str], shown: bool) -> bool:
    wanted = names.split("|")
    return any(
        one.function in wanted and one.rule in rules and (not shown or one.confidence in SHOWN)
        for one in found
    )


def judge_bug(corpus: Path, bug: dict[str, Any]) -> BugResult:
    """Lint both sides of one bug."""
    rules, sides = bug["rules"], set()
    missed, faint, false = [], [], []
    for file in bug["file"]:
        paths = [file["path"], *file.get("context", ())]
        found = _findings(corpus / bug["id"] / "buggy", paths)
        if found is None:
            continue
        sides.add("buggy")
        for names in file["functions"]:
            if not _hits(found, names, rules, True):
                missed.append(names)
                faint += [names] if _hits(found, names, rules, False) else []
        found = _findings(corpus / bug["id"] / "fixed", paths)
        if found is not None:
            sides.add("fixed")
            names_there = file.get("fixed_functions", file["functions"])
            false += [names for names in names_there if _hits(found, names, rules, True)]
    read = "both" if len(sides) == 2 else "buggy only" if sides else "none"
    lists = tuple(missed), tuple(faint), tuple(false)
    return BugResult(bug["id"], bug["checker"], tuple(rules), *lists, read, bug.get("note", ""))


def judge_trap(corpus: Path, trap: dict[str, Any]) -> TrapResult | None:
    """Lint one trap; None where its file is not there."""
    paths = [trap["path"], *trap.get("context", ())]
    found = _findings(corpus / "traps" / trap["id"], paths)
    if found is None:
        return None
    shown = tuple(
        f"{one.line}: {one.confidence.value} {one.rule}"
        for one in found
        if one.function == trap["function"] and one.confidence in SHOWN
    )
    return TrapResult(trap["id"], trap["path"], trap["function"], shown)


def _bug_row(result: BugResult, markdown: bool) -> str:
    if result.sides == "none":
        found, silent = "not read", "-"
    else:
        found = "yes" if not result.missed else "no: " + ", ".join(result.missed)
        found += " (possible)" if result.missed and result.missed == result.faint else ""
        silent = "-" if result.sides == "buggy only" else "yes" if not result.false else "no"
    cells = (result.id, result.checker, " / ".join(result.rules), found, silent, result.note)
    return "| " + " | ".join(cells) + " |" if markdown else "  ".join(cells)


def _bugs(results: list[BugResult], markdown: bool) -> bool:
    if markdown:
        print(
            "| id | checker | right rule | found | silent when fixed | note |\n" + "|---" * 6 + "|"
        )
    for result in results:
        print(_bug_row(result, markdown))
    reached = True
    for checker in dict.fromkeys(result.checker for result in results):
        read = [one for one in results if one.checker == checker and one.sides != "none"]
        good = sum(one.good for one in read)
        goal = GOALS.get(checker)
        share = good / len(read) if read else 0.0
        print(f"\n{checker}: {good} of {len(read)} read ({share:.0%}", end="")
        print(f", goal {goal:.0%})" if goal else ")", end="")
        reached = reached and (goal is None or share >= goal)
    print()
    return reached


def _traps(results: list[TrapResult], markdown: bool) -> bool:
    if markdown:
        print("\n| trap | function | said |\n|---|---|---|")
    for result in results:
        said = "; ".join(result.shown) or "nothing"
        cells = (result.id, f"{result.path} {result.function}", said)
        if markdown or result.shown:
            print("| " + " | ".join(cells) + " |" if markdown else "  ".join(cells))
    silent = sum(not result.shown for result in results)
    share = silent / len(results) if results else 0.0
    print(f"\ntraps: {silent} of {len(results)} silent ({share:.0%}, goal {TRAP_GOAL:.0%})")
    return share >= TRAP_GOAL


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two commands; 1 where files are missing or a goal is not reached."""
    parser = argparse.ArgumentParser(description="Hold highmem lint to real bugs.")
    parser.add_argument("command", choices=("collect", "check"))
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--git", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--id", action="append", default=[])
    options = parser.parse_args(arguments)
    if options.command == "collect":
        missing = collect(options.corpus, dict(pair.split("=", 1) for pair in options.git))
        print("\n".join(missing) or "everything was collected")
        return 1 if missing else 0
    manifest, wanted = _load(), set(options.id)
    bugs = [bug for bug in manifest["bug"] if not wanted or bug["id"] in wanted]
    traps = [trap for trap in manifest["trap"] if not wanted or trap["id"] in wanted]
    reached = _bugs([judge_bug(options.corpus, bug) for bug in bugs], options.markdown)
    judged = [result for trap in traps if (result := judge_trap(options.corpus, trap))]
    if judged:
        reached = _traps(judged, options.markdown) and reached
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
