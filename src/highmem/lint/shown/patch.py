"""What a change touches: a unified diff, from a file or from git."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from highmem.errors import InputError, UsageError

__all__ = ["Changed", "git_patch", "parse_patch", "read_patch"]

_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_LIMIT = 512 << 20
_GIT_SECONDS = 120


@dataclass(slots=True)
class Changed:
    """What a change does to one file."""

    path: str
    lines: set[int] = field(default_factory=set)
    """Lines of the new file that are new, or stand where lines were taken out."""
    added: list[bytes] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)


def read_patch(base: str) -> tuple[dict[str, Changed], str]:
    """The change that *base* names, and the folder that its paths start from.

    *base* is a patch file, ``-`` for one on standard input, or a revision of git that the
    working tree is compared with.  Raises InputError or UsageError.
    """
    if base == "-":
        import sys

        return parse_patch(sys.stdin.buffer.read(_LIMIT), "standard input"), "."
    if Path(base).is_file():
        try:
            with Path(base).open("rb") as stream:
                return parse_patch(stream.read(_LIMIT), base), "."
        except OSError as error:
            raise InputError(base, f"cannot be read: {error.strerror}") from None
    text, top = git_patch(base)
    return parse_patch(text, f"git diff {base}"), top


def git_patch(revision: str) -> tuple[bytes, str]:
    """What differs between *revision* and the working tree, and the top of that tree."""
    top = os.fsdecode(_git("rev-parse", "--show-toplevel", said=revision)).rstrip("\n")
    text = _git(
        "-C", top, "diff", "--no-color", "--no-ext-diff", "--no-textconv", "--unified=0",
        "--src-prefix=a/", "--dst-prefix=b/", "--end-of-options", revision, "--",
        said=revision,
    )  # fmt: skip
    return text, top


def _git(*arguments: str, said: str) -> bytes:
    try:
        done = subprocess.run(
            ("git", *arguments), capture_output=True, timeout=_GIT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise UsageError(f"--diff {said}: no such patch file, and git is not installed") from None
    except (subprocess.TimeoutExpired, ValueError, OSError) as error:
        raise UsageError(f"--diff {said}: git failed: {error}") from None
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["git failed"]
        raise UsageError(f"--diff {said}: neither a patch file nor a revision: {words[0]}")
    return done.stdout


def parse_patch(text: bytes, name: str = "patch") -> dict[str, Changed]:
    """The files of a unified diff by their new path; those that it deletes are left out.

    InputError where a hunk is cut off or comes before any file.
    """
    lines = text.split(b"\n")
    files: dict[str, Changed] = {}
    at, current, named = 0, None, False
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith(b"--- ") and at < len(lines) and lines[at].startswith(b"+++ "):
            path = _path(lines[at][4:])
            at, named = at + 1, True
            current = files.setdefault(path, Changed(path)) if path else None
        elif hunk := _HUNK.match(line):
            if not named:
                raise InputError(name, "a hunk before any file", str(at))
            at = _hunk(lines, at, hunk, current, name)
    if text.strip() and not named:
        raise InputError(name, "no unified diff")
    return files


def _hunk(
    lines: list[bytes], at: int, hunk: re.Match[bytes], into: Changed | None, name: str
) -> int:
    """Read one hunk from line *at* on; returns where it ends."""
    begun = at
    old, new = (int(size) if size is not None else 1 for size in (hunk[2], hunk[4]))
    # Where nothing is left of a hunk, its line number is that of the line before.
    number = int(hunk[3]) + (1 if new == 0 else 0)
    while old > 0 or new > 0:
        if at >= len(lines):
            raise InputError(name, "the patch ends in the middle of a hunk", str(begun))
        line = lines[at]
        at += 1
        kind = line[:1]
        if kind == b"+":
            new -= 1
            if into is not None:
                into.lines.add(number)
                into.added.append(line[1:])
            number += 1
        elif kind == b"-":
            old -= 1
            if into is not None:
                # The line that now stands here has another one before it than it had.
                into.lines.update((max(number - 1, 1), number))
                into.removed.append(line[1:])
        elif kind in (b" ", b"", b"\r"):
            old, new, number = old - 1, new - 1, number + 1
        elif kind != b"\\":
            raise InputError(name, "neither context nor change inside a hunk", str(at))
    return at


def _path(raw: bytes) -> str:
    """The path behind ``+++``; empty for /dev/null."""
    raw = _unquoted(raw) if raw.startswith(b'"') else raw.split(b"\t", 1)[0].rstrip(b"\r")
    if raw == b"/dev/null":
        return ""
    return os.fsdecode(raw[2:] if raw.startswith((b"b/", b"w/", b"i/")) else raw)


def _unquoted(raw: bytes) -> bytes:
    """A name as git quotes it: in quotation marks, with C's escapes."""
    body = raw[1:].rsplit(b'"', 1)[0]
    simple = {b"t": b"\t", b"n": b"\n", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f"}

    def plain(match: re.Match[bytes]) -> bytes:
        if match[1].isdigit():
            return bytes([int(match[1], 8) & 0xFF])
        return simple.get(match[1], match[1])

    return re.sub(rb"\\([0-7]{1,3}|.)", plain, body)
