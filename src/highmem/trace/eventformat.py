"""The descriptions of events that a tracefs gives: its ``format`` files and ``header_page``.

::

    name: m_kmap_high
    ID: 1398
    format:
            field:unsigned short common_type;  offset:0;  size:2;  signed:0;
            ...
            field:u32 page;  offset:12;  size:4;  signed:0;

    print fmt: "(%lx) page=0x%x", REC->__probe_ip, REC->page

Where a field lies and how long it is comes from here and is never assumed: kernels have
moved the common fields, and every probe chooses its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from highmem.errors import InputError

__all__ = [
    "EventFormat",
    "Field",
    "PageLayout",
    "event_head",
    "page_layout",
    "parse_fields",
    "parse_format",
    "state_namer",
]

_HEAD = re.compile(rb"\s{0,8}name: {0,8}([^\s:]{1,200})\s{1,8}ID: {0,8}([0-9]{1,9})\b")
_NUMBER = re.compile(rb"\s{0,8}(offset|size|signed):([0-9]{1,9})")
# Compiled when first used: few recordings have task switches.
_FLAG = rb'\{ {0,8}(0x[0-9a-fA-F]{1,8}|[0-9]{1,9}) {0,8}, {0,8}"([^"]{1,8})" {0,8}\}'
_PLUS = rb'"R",? {0,8}, {0,8}REC->prev_state &([-0-9a-fA-Fx()|+<> ]{1,800})\? {0,8}"\+"'
_FORMAT_LIMIT = 1 << 18  # longer ones are not formats; syscalls and ext4 stay below 16 KiB
_FIELDS_LIMIT = 1000
_COUNTS_DEPTH = 64  # of brackets
_NUMBER_SIZES = (1, 2, 4, 8)


class Field(NamedTuple):
    """Where a field lies in a record: bytes from its start."""

    name: str
    offset: int
    size: int
    signed: bool
    plain: bool
    """One number, no array and no string."""

    @property
    def end(self) -> int:
        """The offset of the first byte after it."""
        return self.offset + self.size


class EventFormat(NamedTuple):
    """One event: its name, its number in records, its fields in order."""

    name: str
    number: int
    fields: Mapping[str, Field]
    printed: bytes
    """What follows ``print fmt:``."""


class PageLayout(NamedTuple):
    """How a sub-buffer begins (``events/header_page``): offsets and sizes in bytes."""

    time_at: int
    commit_at: int
    commit_size: int
    data_at: int


def event_head(text: bytes) -> tuple[str, int] | None:
    """Name and number of the event that *text* describes, None if it is no description."""
    match = _HEAD.match(text)
    return (match[1].decode("utf-8", "backslashreplace"), int(match[2])) if match else None


def parse_fields(text: bytes) -> dict[str, Field]:
    """All fields that *text* has; what is not one is left out."""
    fields: dict[str, Field] = {}
    for line in text[:_FORMAT_LIMIT].split(b"\n"):
        line = line.strip()
        if line.startswith(b"field:") and len(fields) < _FIELDS_LIMIT:
            field = _field(line[len(b"field:") :])
            if field is not None:
                fields.setdefault(field.name, field)
    return fields


def _field(text: bytes) -> Field | None:
    declaration, *places = text.split(b";")[:8]
    numbers = {match[1]: int(match[2]) for match in map(_NUMBER.match, places) if match}
    if b"offset" not in numbers or b"size" not in numbers:
        return None
    declaration = declaration.strip()
    plain = b"[" not in declaration and b"__data_loc" not in declaration
    if declaration.endswith(b"]"):
        declaration = declaration[: declaration.rfind(b"[")]
    words = declaration.replace(b"*", b" ").replace(b"]", b" ").split()
    if not words:
        return None
    size = numbers[b"size"]
    return Field(
        name=words[-1][:200].decode("utf-8", "backslashreplace"),
        offset=numbers[b"offset"],
        size=size,
        signed=bool(numbers.get(b"signed", 0)),
        plain=plain and size in _NUMBER_SIZES,
    )


def parse_format(text: bytes) -> EventFormat | None:
    """The event that *text* describes, None if it describes none."""
    head = event_head(text)
    if head is None:
        return None
    printed = text.partition(b"print fmt:")[2][:_FORMAT_LIMIT]
    return EventFormat(*head, parse_fields(text), printed.strip())


def page_layout(path: str, text: bytes, header_event: bytes = b"") -> PageLayout:
    """The layout of sub-buffers that ``header_page`` (*text*) describes; raises InputError.

    *header_event* is the description of records where there is one.
    """
    fields = parse_fields(text)
    missing = [name for name in ("timestamp", "commit", "data") if name not in fields]
    if missing:
        raise InputError(path, f"its header_page describes no {missing[0]}", "header_page")
    time, commit, data = (fields[name] for name in ("timestamp", "commit", "data"))
    if time.size != 8 or commit.size not in (4, 8):
        raise InputError(path, "its header_page has sizes that no kernel has", "header_page")
    if not max(time.end, commit.end) <= data.offset <= 256:
        raise InputError(path, "the fields of its header_page overlap", "header_page")
    for word, bits in ((b"type_len", b"5"), (b"time_delta", b"27")):
        found = re.search(word + rb" {0,40}: {0,40}([0-9]{1,3}) bits", header_event[:4096])
        if found is not None and found[1] != bits:
            raise InputError(
                path,
                "records are laid out as before Linux 2.6.31, which is not read",
                "header_event",
            )
    return PageLayout(time.offset, commit.offset, commit.size, data.offset)


# -- the state of a task ---------------------------------------------------------------

# Where the format does not say: include/trace/events/sched.h of Linux 4.14 and later.
_STATES = ((1, "S"), (2, "D"), (4, "T"), (8, "t"), (16, "X"), (32, "Z"), (64, "P"), (128, "I"))


def state_namer(printed: bytes) -> Callable[[int], str]:
    """A function that gives a ``prev_state`` as the kernel would print it (``S``, ``R+``).

    *printed* is the print format of sched_switch, which lists the states of its kernel.
    """
    found = [(int(value, 0), text.decode("utf-8", "replace")) for value, text in _flags(printed)]
    flags = found or list(_STATES)
    match = re.search(_PLUS, printed[:_FORMAT_LIMIT]) if printed else None
    plus = _value(match[1].decode("ascii")) if match else None
    if plus is None:
        plus = 0 if found else 256

    def name(state: int) -> str:
        names = "|".join(text for value, text in flags if value & state)
        return (names or "R") + ("+" if state & plus else "")

    return name


def _flags(printed: bytes) -> list[tuple[bytes, bytes]]:
    start = printed[:_FORMAT_LIMIT].find(b"__print_flags(REC->prev_state")
    pairs = re.findall(_FLAG, printed[start:_FORMAT_LIMIT]) if start >= 0 else []
    return [pair for pair in pairs if not (pair[0][:1] == b"0" and pair[0][1:].isdigit())][:64]


def _value(text: str) -> int | None:
    """The value of a sum of C numbers such as ``(((0x01 | 0x02) + 1) << 1)``, None if it is none.

    Its operators bind in Python as they do in C.
    """
    if max(text.count("("), text.count("<<"), text.count("-")) > _COUNTS_DEPTH:
        return None
    try:
        return _evaluate(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _evaluate(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left), _evaluate(node.right)
        if isinstance(node.op, ast.BitOr):
            return left | right
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.LShift) and 0 <= right < 64 and left.bit_length() < 64:
            return left << right
    raise ValueError("no sum of numbers")
