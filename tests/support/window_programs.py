"""Random C functions that map and unmap, and what a C compiler's program says of them.

The compiled program runs each function with every input and keeps the windows in a small
table of its own: which rule is broken comes from running the C, not from reading it.
"""

from __future__ import annotations

import itertools
import random
import subprocess
from pathlib import Path

__all__ = ["RULES", "broken_rules", "random_function"]

INPUTS = 4
RULES = {"L": "leaked-window", "D": "double-unmap", "O": "unmap-order"}

_RUNTIME = r"""
#include <stdio.h>
#include <string.h>
struct page;
static int open_, stack[64], used, state[64];
static char seen[4];
static void note(char c) { if (!strchr(seen, c)) seen[strlen(seen)] = c; }
static void *kmap_local_page(struct page *page)
{
	(void)page;
	stack[open_++] = ++used;
	state[used] = 1;
	return (void *)(long)used;
}
static void kunmap_local(void *p)
{
	long id = (long)p;
	int i;

	if (!state[id]) {
		note('D');
		return;
	}
	for (i = 0; stack[i] != id; i++)
		;
	if (i != open_ - 1)
		note('O');
	memmove(stack + i, stack + i + 1, sizeof(int) * (open_ - i - 1));
	open_--;
	state[id] = 0;
}
"""


class _Writer:
    """Writes one function; a window is only unmapped where some path has mapped it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = 0
        self.labels = rng.random() < 0.4

    def body(self, depth: int, known: list[str], *, loop: bool) -> tuple[list[str], list[str]]:
        lines: list[str] = []
        known = list(known)
        for _ in range(self.rng.randint(1, 4 if depth else 6)):
            more, known = self.statement(depth, known, loop=loop)
            lines += more
            if more and more[-1].split(" ")[0] in ("return;", "goto", "break;", "continue;"):
                break
        return lines, known

    def statement(self, depth: int, known: list[str], *, loop: bool) -> tuple[list[str], list[str]]:
        kind = self.rng.random()
        if kind < 0.3 and not loop:
            self.names += 1
            name = f"p{self.names}"
            return [f"{name} = kmap_local_page(page);"], [*known, name]
        if kind < 0.6 and known:
            name = known[-1] if self.rng.random() < 0.8 else self.rng.choice(known)
            left = [one for one in known if one != name] if self.rng.random() < 0.9 else known
            return [f"kunmap_local({name});"], left
        if kind < 0.7 and depth:
            return [
                self.rng.choice(["return;", "goto out;"] if self.labels else ["return;"])
            ], known
        if depth > 2:
            return [], known
        if kind > 0.93 and not loop:
            return self.looping(depth, known)
        return self.branching(depth, known, loop=loop)

    def looping(self, depth: int, known: list[str]) -> tuple[list[str], list[str]]:
        """Each turn maps; most turns unmap."""
        self.names += 1
        name, counter = f"p{self.names}", f"i{depth}"
        inner, after = self.body(depth + 1, [name], loop=True)
        leave = self.rng.choice(["", "", "break;", "continue;"])
        jump = [f"if (c{self.rng.randrange(INPUTS)})", leave] if leave else []
        last = [f"kunmap_local({name});"] if after else []
        lines = [f"for ({counter} = 0; {counter} < 2; {counter}++) {{"]
        lines += [f"{name} = kmap_local_page(page);", *inner, *jump, *last, "}"]
        return lines, known

    def branching(self, depth: int, known: list[str], *, loop: bool) -> tuple[list[str], list[str]]:
        condition = f"c{self.rng.randrange(INPUTS)}"
        negated = self.rng.choice(["", "!"])
        yes, after_yes = self.body(depth + 1, known, loop=loop)
        kind = self.rng.random()
        if kind < 0.5:
            lines = [f"if ({negated}{condition}) {{", *yes, "}"]
            return lines, known if self.rng.random() < 0.5 else after_yes_only(known, after_yes)
        no, after_no = self.body(depth + 1, known, loop=loop)
        if kind < 0.8:
            lines = [f"if ({negated}{condition}) {{", *yes, "} else {", *no, "}"]
        elif kind < 0.9:
            lines = ["do {", f"if ({condition})", "break;", *no, "} while (0);"]
        else:
            lines = [f"switch ({condition}) {{", "case 0:", *yes]
            lines += [self.rng.choice(["break;", ""]), "default:", *no, "break;", "}"]
        return lines, [one for one in known if one in after_yes and one in after_no]


def after_yes_only(known: list[str], after: list[str]) -> list[str]:
    """Windows that are still there where the branch was taken."""
    return [one for one in known if one in after]


def random_function(seed: int) -> str:
    """C text of a function ``f<seed>`` of a page and some inputs."""
    rng = random.Random(seed)
    writer = _Writer(rng)
    lines, _ = writer.body(0, [], loop=False)
    inputs = ", ".join(f"int c{n}" for n in range(INPUTS))
    names = [f"p{n + 1}" for n in range(writer.names)]
    declared = ["int i0, i1, i2;", *([f"void *{', *'.join(names)};"] if names else [])]
    text = "\n".join(f"\t{line}" for line in [*declared, *lines, *(["out:", "return;"])])
    return f"static void f{seed}(struct page *page, {inputs})\n{{\n{text}\n}}\n"


def broken_rules(functions: dict[int, str], compiler: str, folder: Path) -> dict[int, set[str]]:
    """Compile the functions, run each with every input, and tell which rules broke."""
    calls = []
    for seed in functions:
        calls.append("memset(seen, 0, sizeof(seen));")
        for bits in itertools.product("01", repeat=INPUTS):
            calls.append("open_ = used = 0; memset(state, 0, sizeof(state));")
            calls.append(f"f{seed}(0, {', '.join(bits)}); if (open_) note('L');")
        calls.append(f'printf("{seed} %.3s\\n", seen);')
    program = folder / "programs.c"
    main = "int main(void)\n{\n" + "\n".join(calls) + "\nreturn 0;\n}\n"
    program.write_text(_RUNTIME + "\n".join(functions.values()) + main)
    binary = folder / "programs"
    subprocess.run([compiler, "-w", "-O0", "-o", binary, program], check=True)
    output = subprocess.run([binary], check=True, capture_output=True, text=True).stdout
    found = (line.partition(" ") for line in output.splitlines())
    return {int(seed): {RULES[char] for char in chars} for seed, _, chars in found}
