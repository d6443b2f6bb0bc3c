"""``highmem lint`` beside Coccinelle (two small rules of ours) and plain grep: time and finds.

    python -m benchmarks.lint [--tree DIR] [--bugs DIR]

Always: the functions of tests/lint/corpus, one file each: of those with a leak or a wrong order
how many each tool names, and how many correct ones.  With ``--bugs`` (a folder that
scripts/lint_truth.py collected): the real leaks and orders, both sides.  With ``--tree``: the
files of a kernel tree that hold a map or unmap call, copied, all tools on the same files; the
whole tree; and the part of that time which no analysis can save.
Nothing here is a test.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import highmem
from tests.support.lint_corpus import CORPUS, read_functions

RULES = Path(__file__).parent / "lint_rules"
HERE = str(Path(highmem.__file__).parents[1])  # this package, whatever folder we run in
BUGS = Path(__file__).parents[1] / "tests" / "lint" / "real_bugs.toml"
SUBJECTS = {"leak": "leaked-window", "order": "unmap-order"}
CALL = r"\bk(un)?map(_atomic|_local)?(_page|_folio|_pfn|_prot)?[[:space:]]*\("
MAP, UNMAP = CALL.replace("(un)?", ""), CALL.replace("(un)?", "un")
_LINE = re.compile(r"(?m)^(.+?):([0-9]+): (?:leak|order)$")

Places = set[tuple[str, int]]
"""What a tool names: file, relative to the folder, and line."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool on one folder."""

    wall: float
    cpu: float
    peak_mib: float
    output: str


def run(command: list[str], folder: Path, limit: float = 3600.0) -> Run:
    """Run a command in the folder; its output, and what it and its children used."""
    start = time.perf_counter()
    env = {**os.environ, "PYTHONPATH": HERE}
    with subprocess.Popen(
        command, cwd=folder, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        watch = threading.Timer(limit, process.kill)
        watch.start()
        assert process.stdout is not None  # it was asked for
        output = process.stdout.read()
        # Of this one alone: the sum over all children would keep the largest so far.
        _, process.returncode, used = os.wait4(process.pid, 0)
        watch.cancel()
    wall = time.perf_counter() - start
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


def by_highmem(folder: Path, jobs: int, *rules: str) -> tuple[Run, dict[str, Places]]:
    """Ours, cold: no cache; all rules, or these only."""
    command = [sys.executable, "-m", "highmem", "lint", "--format", "json", "--no-cache", "-q"]
    command += [word for rule in rules for word in ("--rule", rule)]
    done = run([*command, "-j", str(jobs), "--exit-zero", "."], folder)
    found: dict[str, Places] = {subject: set() for subject in SUBJECTS}
    for finding in json.loads(done.output)["findings"]:
        for subject, rule in SUBJECTS.items():
            if finding["rule"] == rule:
                found[subject].add((finding["path"].removeprefix("./"), finding["line"]))
    return done, found


def by_spatch(folder: Path, subject: str, jobs: int) -> tuple[Run, Places]:
    """Coccinelle with one of our rules."""
    command = ["spatch", "--very-quiet", "--no-includes", "--include-headers", "-j", str(jobs)]
    done = run([*command, "--sp-file", str(RULES / f"{subject}.cocci"), "--dir", "."], folder)
    return done, {(m[1].removeprefix("./"), int(m[2])) for m in _LINE.finditer(done.output)}


def by_grep(folder: Path) -> tuple[Run, Places]:
    """Plain grep: files whose map calls and unmap calls differ in number, at line 0."""
    maps = run(["grep", "-rcE", "--include=*.[ch]", MAP, "."], folder)
    unmaps = run(["grep", "-rcE", "--include=*.[ch]", UNMAP, "."], folder)
    differ = set(maps.output.splitlines()) ^ set(unmaps.output.splitlines())
    both = Run(maps.wall + unmaps.wall, maps.cpu + unmaps.cpu, unmaps.peak_mib, "")
    return both, {(line.rpartition(":")[0].removeprefix("./"), 0) for line in differ}


def split_corpus(folder: Path) -> dict[str, dict[str, bool | None]]:
    """Write each function of the corpus to a file; by subject, file -> wrong, right or neither."""
    truth: dict[str, dict[str, bool | None]] = {subject: {} for subject in SUBJECTS}
    for path in sorted(CORPUS.glob("*.c")):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for function in read_functions(path):
            name = f"{path.stem}.{function.name}.c"
            body = "".join(lines[function.first - 1 : function.last])
            (folder / name).write_text(re.sub(r" /\* (expect|may): .*?\*/", "", body))
            rules = {rule for mark in function.expected for rule in mark.rules}
            rules |= function.allowed
            for subject, rule in SUBJECTS.items():
                neither = None if rules else False
                truth[subject][name] = True if rule in rules else neither
    return truth


def real_bugs(bugs: Path) -> Iterator[tuple[str, str, str, Path, str, list[str]]]:
    """Subject, id, side, folder, path and functions of the leaks and orders to be decided."""
    for bug in tomllib.loads(BUGS.read_text(encoding="utf-8"))["bug"]:
        for subject, rule in SUBJECTS.items():
            if bug["checker"] != "yes" or rule != bug["rules"][0]:
                continue
            for file in bug["file"]:
                for side in ("buggy", "fixed"):
                    functions = file["functions"]
                    if side == "fixed":
                        functions = file.get("fixed_functions", functions)
                    folder = bugs / bug["id"] / side
                    if (folder / file["path"]).is_file():
                        yield subject, bug["id"], side, folder, file["path"], functions


def span(path: Path, name: str) -> range:
    """Lines of the function of that name: from its head to a brace in column one."""
    text = path.read_text(encoding="utf-8", errors="replace")
    head = re.compile(rf"(?m)^(?:[^\s#/*][^\n;]*?\b)?{re.escape(name)}\s*\([^;{{]*\{{")
    found = head.search(text)
    if not found:
        return range(0)
    end = text.find("\n}", found.end())
    first = text.count("\n", 0, found.start()) + 1
    return range(first, text.count("\n", 0, end if end > 0 else len(text)) + 3)


def row(*cells: object) -> None:
    """One line of a table."""
    print("| " + " | ".join(map(str, cells)) + " |")


def compare_corpus(jobs: int) -> None:
    """What each tool names of our own functions."""
    with tempfile.TemporaryDirectory(prefix="highmem-bench-") as name:
        folder = Path(name)
        truth = split_corpus(folder)
        ours = by_highmem(folder, jobs)[1]
        unequal = {path for path, _ in by_grep(folder)[1]}
        print("Our own functions, one file each\n")
        row("subject", "tool", "wrong ones found", "correct ones named")
        row("---", "---", "---", "---")
        for subject, kinds in truth.items():
            named = {"highmem lint": {path for path, _ in ours[subject]}}
            if shutil.which("spatch"):
                named["spatch"] = {path for path, _ in by_spatch(folder, subject, jobs)[1]}
            named["grep, unequal numbers"] = unequal
            wrong = {path for path, kind in kinds.items() if kind}
            right = {path for path, kind in kinds.items() if kind is False}
            for tool, paths in named.items():
                found = f"{len(paths & wrong)} of {len(wrong)}"
                row(subject, tool, found, f"{len(paths & right)} of {len(right)}")


def compare_bugs(bugs: Path) -> None:
    """What each tool names at the right function of real bugs, and after their fix."""
    named: dict[tuple[str, str], dict[str, list[bool]]] = {}
    for subject, _, side, folder, path, functions in real_bugs(bugs):
        tools = {"highmem lint": by_highmem(folder, 1)[1][subject]}
        if shutil.which("spatch"):
            tools["spatch"] = by_spatch(folder, subject, 1)[1]
        for tool, places in tools.items():
            hits = [
                any(
                    (path, n) in places
                    for one in names.split("|")
                    for n in span(folder / path, one)
                )
                for names in functions
            ]
            sides = named.setdefault((subject, tool), {"buggy": [], "fixed": []})
            sides[side].append(all(hits) if side == "buggy" else any(hits))
    print("\nReal bugs of one function, by file\n")
    row("subject", "tool", "found", "still named when fixed")
    row("---", "---", "---", "---")
    for (subject, tool), sides in sorted(named.items()):
        texts = [f"{sum(sides[side])} of {len(sides[side])}" for side in ("buggy", "fixed")]
        row(subject, tool, *texts)


def copy_callers(tree: Path, folder: Path) -> int:
    """Copy the files with a map or unmap call; how many."""
    names = run(["grep", "-rlE", "--include=*.[ch]", CALL, "."], tree).output.splitlines()
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tree / name, target)
    return len(names)


def compare_tree(tree: Path, jobs: int) -> None:
    """Time and number of finds on the same files."""
    with tempfile.TemporaryDirectory(prefix="highmem-bench-") as name:
        folder = Path(name)
        print(f"\n{copy_callers(tree, folder)} files of {tree.name} with a call, {jobs} jobs\n")
        row("tool", "wall s", "CPU s", "leaks named", "orders named")
        row("---", "---", "---", "---", "---")
        done, ours = by_highmem(folder, jobs)
        row(
            "highmem lint, all rules",
            f"{done.wall:.1f}",
            f"{done.cpu:.1f}",
            *map(len, ours.values()),
        )
        for subject, rule in SUBJECTS.items():
            done, ours = by_highmem(folder, jobs, rule)
            counts = [len(ours[one]) if one == subject else "-" for one in SUBJECTS]
            row(f"highmem lint, {rule} only", f"{done.wall:.1f}", f"{done.cpu:.1f}", *counts)
        for subject in SUBJECTS if shutil.which("spatch") else ():
            done, places = by_spatch(folder, subject, jobs)
            counts = [len(places) if one == subject else "-" for one in SUBJECTS]
            row(f"spatch, {subject} only", f"{done.wall:.1f}", f"{done.cpu:.1f}", *counts)
        done, places = by_grep(folder)
        text = f"{len(places)} files of unequal numbers"
        row("grep", f"{done.wall:.2f}", f"{done.cpu:.2f}", text, "-")
    print("\nThe whole tree\n")
    row("tool", "wall s", "CPU s", "MiB in one process")
    row("---", "---", "---", "---")
    runs = {
        "highmem lint, all rules": by_highmem(tree, jobs)[0],
        "highmem lint, leaked-window only": by_highmem(tree, jobs, "leaked-window")[0],
    }
    if shutil.which("spatch"):
        runs["spatch, leak only"] = by_spatch(tree, "leak", jobs)[0]
    for tool, done in runs.items():
        row(tool, f"{done.wall:.1f}", f"{done.cpu:.1f}", f"{done.peak_mib:.0f}")


def floor(tree: Path) -> None:
    """CPU seconds of what any analysis of the tree needs first, here for one rule, one process."""
    from highmem.lint.driver import LintOptions, _Run
    from highmem.lint.scan import read_file
    from highmem.lint.syntax.lower import make_parser
    from highmem.lint.syntax.macros import prepare
    from highmem.lint.syntax.source import read_source, variants
    from highmem.lint.workers import Workers

    clock = [time.process_time()]
    with Workers(1) as workers:
        rest = _Run(LintOptions(rules=frozenset({"leaked-window"})), workers)
        files = list(rest._files([tree]))
        clock.append(time.process_time())
        rest._scan(files)
        clock.append(time.process_time())
    sources = [read_source(read_file(path), path) for path in rest.content]
    clock.append(time.process_time())
    names = rest.table.names()
    bodies = [
        prepare(way.text)[0].encode("latin-1")
        for source in sources
        for function in source.functions
        if any(f"{name}(" in function.text for name in names)
        for way in variants(source, function)
    ]
    parser, begun = make_parser(), time.process_time()
    for body in bodies:
        parser.parse(body)
    parts = [after - before for before, after in itertools.pairwise(clock)]
    parts.append(time.process_time() - begun)
    print("\nBefore any graph and path, one rule, one process, CPU s\n")
    row("listing", "reading and searching", "splitting", f"tree-sitter, {len(bodies)}", "sum")
    row(*["---"] * 5)
    row(*(f"{part:.2f}" for part in (*parts, sum(parts))))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tree", type=Path, help="a kernel tree")
    parser.add_argument("--bugs", type=Path, help="what scripts/lint_truth.py collected")
    parser.add_argument("-j", "--jobs", type=int, default=2)
    options = parser.parse_args()
    if not shutil.which("spatch"):
        print("spatch is not installed: without its rows\n")
    compare_corpus(options.jobs)
    if options.bugs:
        compare_bugs(options.bugs.resolve())
    if options.tree:
        compare_tree(options.tree.resolve(), options.jobs)
        floor(options.tree.resolve())


if __name__ == "__main__":
    main()
