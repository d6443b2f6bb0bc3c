"""What is done to every byte of a source file, compiled where it can be.

:mod:`highmem.lint.syntax._bytes` walks the bytes; where that is not compiled, regular
expressions do the same, faster than Python could walk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from highmem.compiled import load

if TYPE_CHECKING:
    from highmem.lint.syntax import _bytes
else:
    _bytes = load("highmem.lint.syntax._bytes")

__all__ = ["blank", "calls_in", "chooser", "closing", "directives", "finder", "next_brace"]

_MOST = 255
"""Names that are looked for at once."""
_LONGEST = 255
_PARTS = (b"map", b"page", b"sg_", b"hash_")
_TOKENS = re.compile(
    rb"//(?:[^\n\\]|\\.|\\\n)*"
    rb"|/\*.*?(?:\*/|\Z)"
    rb'|"(?:[^"\\\n]|\\.)*"?'
    rb"|'(?:[^'\\\n]|\\.){1,8}'",
    re.DOTALL,
)
_DIRECTIVE = re.compile(rb"^[ \t]*#(?:[^\n\\]|\\[^\n]|\\\n)*", re.MULTILINE)
_NOT_LINE_END = re.compile(rb"[^\n]")
_TOP = re.compile(rb"[{}();]")
_BRACE = re.compile(rb"[{}]")
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")


def finder(names: Iterable[bytes]) -> Callable[[bytes], bool]:
    """A function that tells whether one of the names is in a text."""
    kept: list[bytes] = []
    for name in sorted(set(names), key=lambda one: (len(one), one)):
        if not any(one in name for one in kept):
            kept.append(name)
    compiled = _compiled(kept)
    if compiled is not None:
        return lambda text: any(one.inside(text) for one in compiled)
    groups: dict[bytes, list[bytes]] = {}
    for name in kept:
        groups.setdefault(next((part for part in _PARTS if part in name), name), []).append(name)
    every = tuple((part, tuple(whole)) for part, whole in groups.items())
    # Without the part that several have in common none of them is there.
    return lambda text: any(p in text and any(name in text for name in w) for p, w in every)


def chooser(names: Iterable[str]) -> Callable[[str], list[str]]:
    """A function that tells which of the names are in a text of ASCII, in their order."""
    every = list(dict.fromkeys(names))
    compiled = _compiled([name.encode() for name in every])
    if compiled is None:
        return lambda text: [name for name in every if name in text]

    def choose(text: str) -> list[str]:
        data = text.encode("ascii")
        found = (sorted(one.which(data)) for one in compiled)
        return [every[_MOST * n + number] for n, some in enumerate(found) for number in some]

    return choose


def _compiled(names: list[bytes]) -> list[_bytes.Names] | None:
    """Names in the compiled form; None where there is none, or they do not fit in it."""
    fit = all(1 < len(name) <= _LONGEST for name in names)
    if not _bytes.COMPILED or not fit:
        return None
    return [_bytes.Names(tuple(names[n : n + _MOST])) for n in range(0, len(names), _MOST)]


def _blank_all(text: bytes) -> bytes:
    return _NOT_LINE_END.sub(b" ", text)


def _blank_token(found: re.Match[bytes]) -> bytes:
    text = found.group()
    if text[:1] == b"/":
        return _blank_all(text)
    if text[:1] == b'"':
        whole = len(text) > 1 and text[-1:] == b'"'
        return b'"' + _blank_all(text[1:-1]) + b'"' if whole else _blank_all(text)
    return b"'" + b"0" * (len(text) - 2) + b"'"


def _blank(text: bytes) -> bytearray:
    return bytearray(_TOKENS.sub(_blank_token, text))


def _directives(text: bytearray) -> list[tuple[int, int]]:
    found = [one.span() for one in _DIRECTIVE.finditer(text)]
    for start, end in found:
        text[start:end] = _blank_all(bytes(text[start:end]))
    return found


def _next_brace(text: bytes, at: int, chunk: int, depth: int) -> tuple[int, int, int]:
    for found in _TOP.finditer(text, at):
        char = found.group()
        if char == b"{":
            return found.start(), chunk, depth
        if char == b"(":
            depth += 1
        elif char == b")":
            depth = max(0, depth - 1)
        else:
            chunk, depth = found.end(), 0
    return -1, chunk, depth


def _closing(text: bytes, at: int, deepest: int) -> int:
    depth = 0
    for found in _BRACE.finditer(text, at):
        if found.group() == b"{":
            depth += 1
            if depth > deepest:
                return -1
        else:
            depth -= 1
            if depth == 0:
                return found.end()
    return len(text)


def _calls_in(text: bytes) -> list[str]:
    return _CALL.findall(text.decode("ascii"))


blank: Callable[[bytes], bytearray] = _bytes.blank if _bytes.COMPILED else _blank
"""The text with comments and the insides of strings and characters blanked; line ends stay."""
directives: Callable[[bytearray], list[tuple[int, int]]] = (
    _bytes.directives if _bytes.COMPILED else _directives
)
"""Begin and end of the directives of a text without comments, which are blanked in it."""
next_brace: Callable[[bytes, int, int, int], tuple[int, int, int]] = (
    _bytes.next_brace if _bytes.COMPILED else _next_brace
)
"""The next opening brace or -1, where the declaration before it begins, and how many
parentheses are open there; from an offset on, with the last two as they are there."""
closing: Callable[[bytes, int, int], int] = _bytes.closing if _bytes.COMPILED else _closing
"""Just past the brace that closes the one at an offset; -1 where they nest deeper than that."""
calls_in: Callable[[bytes], list[str]] = _bytes.calls_in if _bytes.COMPILED else _calls_in
"""Every name before an opening parenthesis, in order."""
