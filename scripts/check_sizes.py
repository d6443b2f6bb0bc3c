"""Hold files and functions to the size budget: exit 1 where a hard limit is passed.

A file has at most 400 lines, hard 800. A function body has at most 30 lines for nine functions in
ten, hard 60, its docstring, blank lines and comments not counted. A statement whose first line
ends with ``# table`` is data and is counted neither in its file nor in its function.
"""

from __future__ import annotations

import ast
import math
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["main", "measure"]

FILE_SOFT, FILE_HARD = 400, 800
BODY_SOFT, BODY_HARD = 30, 60
# One compiled unit: a call into another module would cost its loop more than the work there.
WHOLE = {"src/highmem/replay/_engine.py": 1450, "src/highmem/trace/_ring.py": 1020}
ROOTS = ("src", "scripts", "tests", "benchmarks")


def measure(source: str) -> Iterator[tuple[int, str, int]]:
    """Yield line, name and size of the file (line 0, no name), then of each function in it."""
    lines = source.splitlines()
    nodes = list(ast.walk(ast.parse(source)))
    tables: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.stmt) and lines[node.lineno - 1].endswith("# table"):
            tables.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    yield 0, "", len(lines) - len(tables)
    blank = {n for n, line in enumerate(lines, 1) if line.strip()[:1] in ("", "#")}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            spans = (range(s.lineno, (s.end_lineno or s.lineno) + 1) for s in body)
            size = len({n for span in spans for n in span} - tables - blank)
            yield node.lineno, node.name, size


def main(argv: list[str]) -> int:
    """Check the Python files under ``argv``, by default those of the project."""
    failed, bodies = 0, [0]
    roots = [Path(name) for name in argv or ROOTS]
    for path in sorted(file for root in roots for file in (root, *root.rglob("*.py"))):
        for line, name, size in measure(path.read_text("utf-8")) if path.is_file() else ():
            bodies += [size] if name else []
            hard = BODY_HARD if name else WHOLE.get(path.as_posix(), FILE_HARD)
            if size > hard or (not name and size > FILE_SOFT):
                verdict = "error" if size > hard else "warning"
                print(f"{path}:{line or 1}: {verdict}: {name or 'file'} has {size} lines")
                failed += size > hard
    p90 = sorted(bodies)[math.ceil(0.9 * len(bodies)) - 1]
    verdict = f"over {BODY_SOFT}, split the longest" if p90 > BODY_SOFT else "in budget"
    print(f"nine in ten function bodies have at most {p90} lines ({verdict})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
