"""A C file made ready: comments and directives blanked, functions found, positions kept.

Every text here is as long as the file, byte for byte (it is read as Latin-1), so an offset
means the same place in all of them.  Functions are found without a parser, by their braces:
one function that no grammar knows then costs nothing but itself.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from highmem.lint.syntax.conditionals import Group, choices, find_groups, primary, selected
from highmem.lint.syntax.text import blank, closing, directives, next_brace

__all__ = ["Function", "Rejected", "Source", "read_source", "variants"]

MAX_BYTES = 8 << 20
MAX_LINE = 1 << 16
MAX_DEPTH = 200
"""Deeper nesting than this is no kernel source; the grammar and we both work by recursion."""

_DIRECTIVE = re.compile(r"[ \t]*#[ \t]*(\w*)(.*)", re.DOTALL)
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_ATTRIBUTE = re.compile(r"__(?:attribute|printf|scanf|section|acquires|releases|must_hold|aligned)")
_TRAILING = re.compile(r"\)(?:\s*(?:__\w+|noexcept|const))*\s*$")
_STATIC = re.compile(r"static(?<!\wstatic)\b")
_LINKAGE = re.compile(r'extern\s*"[^"]*"\s*$')
_OPENING = re.compile(r"\s*\(")
_PAREN = re.compile(r"[()]")
_GOES_ON = re.compile(r"[=)]\s*$")
_FEW = 20
"""Positions that are counted out before a table of the lines is made."""


class Rejected(Exception):
    """A file that is no C source; the text says why."""


@dataclass(frozen=True, slots=True)
class Function:
    """Where one function of a file is."""

    name: str
    start: int
    """Offset of the first byte of its declaration."""
    body: int
    """Offset of the opening brace."""
    end: int
    """Just past the closing brace."""
    static: bool
    parameters: str = field(repr=False)
    """What is inside the parentheses of the declaration."""
    text: str = field(repr=False)
    """From the opening brace to the end."""
    variant: str = ""
    """Which branches were chosen; empty where there was nothing to choose."""


@dataclass(slots=True)
class Source:
    """One file."""

    path: str
    original: str
    code: str
    """Comments, directives and the insides of strings are blanks; all branches are there."""
    groups: list[Group]
    functions: list[Function]
    notes: list[str]
    macros: dict[str, tuple[tuple[str, ...], str]]
    """Function-like macros: parameters and replacement."""
    _asked: int = 0
    _lines: list[int] = field(default_factory=list)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, from 1."""
        if self._asked < _FEW:
            self._asked += 1
            line = self.original.count("\n", 0, offset) + 1
            return line, offset - self.original.rfind("\n", 0, offset)
        if not self._lines:
            self._lines.append(0)
            self._lines.extend(found.end() for found in re.finditer("\n", self.original))
        line = bisect.bisect_right(self._lines, offset)
        return line, offset - self._lines[line - 1] + 1

    def snippet(self, start: int, end: int) -> str:
        """The text there, its white space made single blanks."""
        return " ".join(self.original[start:end].split())


def read_source(data: bytes, path: str) -> Source:
    """Prepare the bytes of a file; :class:`Rejected` where they cannot be C source."""
    _refuse(data)
    notes = []
    blanked = blank(data)
    if not blanked.isascii():
        raise Rejected("bytes outside comments and strings that are not ASCII")
    if not data.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            notes.append("not UTF-8 in comments or strings; read as Latin-1")
    before = blanked.decode("ascii")
    found = []
    for start, end in directives(blanked):
        split = _DIRECTIVE.match(before, start, end)
        assert split is not None  # or it would be none
        found.append((start, end, split.group(1), split.group(2)))
    code = blanked.decode("ascii")
    groups = find_groups(found, len(code))
    source = Source(path, data.decode("latin-1"), code, groups, [], notes, _macros(found))
    source.functions = _functions_of(source)
    return source


def _refuse(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise Rejected(f"{len(data)} bytes; source files have at most {MAX_BYTES}")
    if b"\0" in data:
        raise Rejected(f"a NUL byte at offset {data.index(0)}")
    start = 0
    while len(data) - start > MAX_LINE:
        end = data.rfind(b"\n", start, start + MAX_LINE)
        if end < 0:
            raise Rejected(f"a line longer than {MAX_LINE} bytes")
        start = end + 1


_MACRO = re.compile(r"\s+(\w+)\(([^()]*)\)(.*)", re.DOTALL)


def _macros(
    directives: list[tuple[int, int, str, str]],
) -> dict[str, tuple[tuple[str, ...], str]]:
    macros = {}
    for _start, _end, word, text in directives:
        if word == "define" and (found := _MACRO.match(text)):
            name, parameters, body = found.groups()
            names = tuple(one.strip() for one in parameters.split(","))
            macros[name] = (names, " ".join(body.replace("\\\n", " ").split()))
    return macros


def _functions_of(source: Source) -> list[Function]:
    first, skipped = primary(source.code, source.groups, 0)
    functions = list(_split(first))
    if skipped:
        # What the first choice left out, where braces open in one branch and not in another.
        other, _ = primary(source.code, source.groups, 1)
        known = {(function.start, function.end) for function in functions}
        functions += [
            function
            for function in _split(other)
            if (function.start, function.end) not in known
            and any(function.start < end and start < function.end for start, end in skipped)
        ]
    return functions


def _split(code: str) -> Iterator[Function]:
    """Every function of the text that braces and parentheses show."""
    text = code.encode("ascii")
    at, chunk, depth = next_brace(text, 0, 0, 0)
    while at >= 0:
        header = code[chunk:at]
        end = _closing(text, at)
        named = _signature(header) if depth == 0 else None
        if named is not None:
            name, parameters, start = named
            yield Function(
                name=name,
                start=chunk + start,
                body=at,
                end=end,
                static=_STATIC.search(header) is not None,
                parameters=header[slice(*parameters)],
                text=code[at:end],
            )
        if named is None and _LINKAGE.search(header):
            end = chunk = at + 1
        elif named is not None or not _GOES_ON.search(header):
            # An initialiser or a type goes on to its semicolon; a function does not.
            chunk, depth = end, 0
        at, chunk, depth = next_brace(text, end, chunk, depth)


def _closing(text: bytes, opening: int) -> int:
    end = closing(text, opening, MAX_DEPTH)
    if end < 0:
        raise Rejected(f"braces nested deeper than {MAX_DEPTH}")
    return end


def _signature(header: str) -> tuple[str, tuple[int, int], int] | None:
    """Name, place of the parameters and start in *header*, if it declares a function."""
    if not _TRAILING.search(header):
        return None
    candidates: list[tuple[str, int, int]] = []
    at = 0
    while found := _CALLED.search(header, at):
        end = _matching(header, found.end() - 1)
        if end is None:
            return None
        if not _ATTRIBUTE.match(found.group(1)):
            candidates.append((found.group(1), found.end(), end))
        at = end + 1
    if not candidates or "=" in header[: candidates[0][1]]:
        return None
    name, start, end = candidates[0]
    after = _OPENING.match(header, end + 1)
    if after:
        # FNAME(walk)(...), or a macro that makes the name.
        inner = header[start:end].strip()
        closing = _matching(header, after.end() - 1)
        if closing is None:
            return None
        name, start, end = inner or name, after.end(), closing
    elif name.isupper() or name.startswith("SYSCALL_DEFINE"):
        name = header[start:end].split(",")[0].strip() or name
    if name in ("if", "while", "for", "switch", "return", "do"):
        return None
    lead = len(header) - len(header.lstrip())
    return name, (start, end), lead


def _matching(text: str, opening: int) -> int | None:
    """Offset of the parenthesis that closes the one at *opening*."""
    end = text.find(")", opening)
    if text.find("(", opening + 1, end) < 0 <= end:
        return end
    depth = 0
    for found in _PAREN.finditer(text, opening):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.start()
    return None


def variants(source: Source, function: Function, limit: int = 6) -> list[Function]:
    """The function once for each sensible choice of the ``#if`` branches in it."""
    inside = [g for g in source.groups if g.start < function.end and function.body < g.end]
    if not inside:
        return [function]
    found: dict[str, Function] = {}
    whole = source.code[function.body : function.end]
    for assigned, label in choices(inside, limit):
        text = selected(whole, function.body, inside, assigned)
        if text not in found and _one_block(text):
            found[text] = replace(function, text=text, variant=label)
    return list(found.values()) or [function]


def _one_block(text: str) -> bool:
    """Whether the text is one pair of braces with all others inside."""
    if not text.startswith("{"):
        return False
    try:
        return _closing(text.encode("ascii"), 0) == len(text) and text.endswith("}")
    except Rejected:
        return False
