"""``#if`` groups: which branches stand beside each other, and texts with one of them chosen.

No condition is ever evaluated but ``0``, ``1`` and whether there is high memory: code that this
build's configuration removes is checked like any other.  Conditions of the same text are chosen
alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Branch", "Group", "choices", "find_groups", "primary", "selected"]

_ALWAYS = ("defined(CONFIG_HIGHMEM)", "IS_ENABLED(CONFIG_HIGHMEM)", "CONFIG_HIGHMEM")
_SPACE = re.compile(r"\s+")
_NOT_LINE_END = re.compile(r"[^\n]")


@dataclass(frozen=True, slots=True)
class Branch:
    """The lines between two directives of one group."""

    atom: str
    """The condition without a leading negation; empty for ``#else``."""
    positive: bool
    start: int
    end: int

    def taken(self, assigned: dict[str, bool]) -> bool:
        """Whether the branch's own condition holds."""
        if self.atom in ("", "1"):
            return self.positive
        if self.atom == "0":
            return not self.positive
        return assigned.get(self.atom, True) is self.positive


@dataclass(frozen=True, slots=True)
class Group:
    """``#if`` to ``#endif``."""

    start: int
    end: int
    branches: tuple[Branch, ...]

    def chosen(self, assigned: dict[str, bool]) -> Branch | None:
        """The first branch whose condition holds."""
        return next((branch for branch in self.branches if branch.taken(assigned)), None)


def find_groups(directives: Iterable[tuple[int, int, str, str]], size: int) -> list[Group]:
    """The groups that the directives (start, end, word, text) make, inner ones first."""
    groups: list[Group] = []
    stack: list[tuple[int, list[Branch], tuple[str, bool], int]] = []
    for start, end, word, text in directives:
        if word in ("if", "ifdef", "ifndef"):
            stack.append((start, [], _condition(word, text), end))
        elif word in ("elif", "else", "endif", "elifdef", "elifndef") and stack:
            begun, branches, (atom, positive), opened = stack.pop()
            branches.append(Branch(atom, positive, opened, start))
            if word == "endif":
                groups.append(Group(begun, end, tuple(branches)))
            else:
                condition = ("", True) if word == "else" else _condition(word, text)
                stack.append((begun, branches, condition, end))
    return groups


def _condition(word: str, text: str) -> tuple[str, bool]:
    text = _SPACE.sub("", text.replace("\\\n", ""))
    positive = True
    if word.endswith("ndef"):
        positive = False
    if word.endswith("def"):
        return f"defined({text})", positive
    while text.startswith("!") and re.fullmatch(r"!+(\w+\([^()]*\)|\w+|\([^()]*\))", text):
        text, positive = text[1:], not positive
    return text, positive


def primary(code: str, groups: Sequence[Group], nth: int) -> tuple[str, list[tuple[int, int]]]:
    """The code to find functions in, and the spans left out for their braces.

    Branches stay side by side where each is balanced in itself; of the others only the one
    of number *nth* stays.  ``#if 0`` never stays.
    """
    text = bytearray(code, "latin-1")
    skipped = []
    for group in groups:
        live = [b for b in group.branches if b.taken({b.atom: b.positive} if b.atom else {})]
        for branch in group.branches:
            if branch not in live:
                _wipe(text, branch.start, branch.end)
        if all(_balanced(text[branch.start : branch.end]) for branch in live):
            continue
        implicit = 0 if any(not branch.atom for branch in live) else 1
        kept = min(nth, len(live) - 1 + implicit)
        for number, branch in enumerate(live):
            if number != kept:
                _wipe(text, branch.start, branch.end)
                skipped.append((branch.start, branch.end))
            elif implicit:
                skipped.append((branch.start, branch.end))
    return text.decode("latin-1"), skipped


def selected(code: str, offset: int, groups: Iterable[Group], assigned: dict[str, bool]) -> str:
    """*code*, which starts at *offset* of the file, with only the branches chosen."""
    text = bytearray(code, "latin-1")
    for group in groups:
        chosen = group.chosen(assigned)
        for branch in group.branches:
            if branch is not chosen:
                start = max(0, branch.start - offset)
                _wipe(text, start, max(start, min(branch.end - offset, len(text))))
    return text.decode("latin-1")


def choices(groups: Sequence[Group], limit: int) -> Iterator[tuple[dict[str, bool], str]]:
    """At most *limit* ways to answer the conditions, each with words for it."""
    # Without high memory nothing here is wrong: that branch is never chosen.  One for 64 bits may
    # be: DEBUG_KMAP_LOCAL_FORCE_MAP makes windows there, too (from 5.11 on).
    atoms = sorted({b.atom for g in groups for b in g.branches} - {"", "0", "1", *_ALWAYS})
    every = [dict.fromkeys(atoms, True), dict.fromkeys(atoms, False)]
    every += [{atom: atom == one for atom in atoms} for one in atoms]
    every += [{atom: atom != one for atom in atoms} for one in atoms]
    seen: list[dict[str, bool]] = []
    for assigned in every:
        if assigned not in seen and len(seen) < limit:
            seen.append(assigned)
            words = [atom if true else f"!{atom}" for atom, true in assigned.items()]
            yield assigned, ", ".join(words)


def _wipe(text: bytearray, start: int, end: int) -> None:
    blank = _NOT_LINE_END.sub(" ", text[start:end].decode("latin-1"))
    text[start:end] = blank.encode("latin-1")


def _balanced(part: bytes | bytearray) -> bool:
    braces = parens = 0
    for char in re.findall(rb"[{}()]", part):
        if char in b"{}":
            braces += 1 if char == b"{" else -1
        else:
            parens += 1 if char == b"(" else -1
        if braces < 0 or parens < 0:
            return False
    return braces == parens == 0
