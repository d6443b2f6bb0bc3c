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

__all__ = ["Function", "Rejected", "Source", "read_source", "variants"]

MAX_BYTES = 8 << 20
MAX_LINE = 1 << 16
MAX_DEPTH = 200
"""Deeper nesting than this is no kernel source; the grammar and we both work by recursion."""

_TOKENS = re.compile(
    r"//(?:[^\n\\]|\\.|\\\n)*"
    r"|/\*.*?(?:\*/|\Z)"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'(?:[^'\\\n]|\\.){1,8}'",
    re.DOTALL,
)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*(\w*)((?:[^\n\\]|\\[^\n]|\\\n)*)", re.MULTILINE)
_NOT_LINE_END = re.compile(r"[^\n]")
_TOP = re.compile(r"[{}();]")
_BRACE = re.compile(r"[{}]")
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_ATTRIBUTE = re.compile(r"__(?:attribute|printf|scanf|section|acquires|releases|must_hold|aligned)")
_TRAILING = re.compile(r"\)(?:\s*(?:__\w+|noexcept|const))*\s*$")


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
    _lines: list[int] = field(default_factory=list)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, from 1."""
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
    original = data.decode("latin-1")
    notes = []
    blanked = _TOKENS.sub(_blank_token, original)
    if not blanked.isascii():
        raise Rejected("bytes outside comments and strings that are not ASCII")
    if not original.isascii():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            notes.append("not UTF-8 in comments or strings; read as Latin-1")
    code, directives = _without_directives(blanked)
    groups = find_groups(directives, len(code))
    source = Source(path, original, code, groups, [], notes, _macros(directives))
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


def _blank(text: str) -> str:
    return _NOT_LINE_END.sub(" ", text)


def _blank_token(found: re.Match[str]) -> str:
    text = found.group()
    if text[0] == "/":
        return _blank(text)
    if text[0] == '"':
        inside = _blank(text[1:-1])
        return '"' + inside + '"' if len(text) > 1 and text[-1] == '"' else _blank(text)
    return "'" + "0" * (len(text) - 2) + "'"


def _without_directives(code: str) -> tuple[str, list[tuple[int, int, str, str]]]:
    """The code with directives blanked, and each as start, end, word and text."""
    found: list[tuple[int, int, str, str]] = []

    def note(match: re.Match[str]) -> str:
        found.append((match.start(), match.end(), match.group(1), match.group(2)))
        return _blank(match.group())

    return _DIRECTIVE.sub(note, code), found


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
    at, chunk, depth = 0, 0, 0
    while found := _TOP.search(code, at):
        at = found.end()
        char = found.group()
        if char == "(":
            depth += 1
        elif char == ")":
            depth = max(0, depth - 1)
        elif char == ";":
            chunk, depth = at, 0
        elif char == "}":
            chunk, depth = at, 0  # ends extern "C" or what we took for one
        else:
            header = code[chunk : found.start()]
            end = _closing(code, found.start())
            named = _signature(header) if depth == 0 else None
            if named is not None:
                name, parameters, start = named
                yield Function(
                    name=name,
                    start=chunk + start,
                    body=found.start(),
                    end=end,
                    static=re.search(r"\bstatic\b", header) is not None,
                    parameters=header[slice(*parameters)],
                    text=code[found.start() : end],
                )
            elif re.search(r'extern\s*"[^"]*"\s*$', header):
                chunk = at
                continue
            at = end
            if named is not None or not re.search(r"[=)]\s*$", header):
                # An initialiser or a type goes on to its semicolon; a function does not.
                chunk, depth = end, 0


def _closing(code: str, opening: int) -> int:
    depth = 0
    for found in _BRACE.finditer(code, opening):
        if found.group() == "{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Rejected(f"braces nested deeper than {MAX_DEPTH}")
        else:
            depth -= 1
            if depth == 0:
                return found.end()
    return len(code)


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
    after = re.compile(r"\s*\(").match(header, end + 1)
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
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opening):
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
        return _closing(text, 0) == len(text) and text.endswith("}")
    except Rejected:
        return False
