"""Kernel macros that break a C grammar, rewritten in place: no byte moves.

Loop macros become ``while`` loops whose real arguments are kept aside; annotations become
blanks; type names given to macros as arguments become plain names; a macro whose argument is
statements becomes a block of them, and one that stands for a statement gets its ``;``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["LoopMacro", "prepare"]

_KEYWORDS = frozenset({"if", "for", "while", "switch", "return", "sizeof", "do", "else", "case"})
# Python looks for what a pattern begins with, if that is plain text or one of a few characters:
# \b in front would be neither.
_ANNOTATIONS = (
    re.compile(
        r"__(?<!\w__)(?:user|iomem|force|rcu|percpu|kernel|maybe_unused|always_unused|unused"
        r"|must_check|read_mostly|initdata|initconst|nonstring|private|bitwise|refdata"
        r"|cacheline_aligned|__cacheline_aligned|cacheline_aligned_in_smp|packed"
        r"|extension__|restrict|restrict__|inline__|inline|volatile__|aligned_u64_"
        r"|ref|fallthrough|capability|nocast|exit|init)\b"
    ),
    re.compile(r"noinline(?<!\wnoinline)\b"),
    re.compile(r"uninitialized_var(?<!\wuninitialized_var)\b"),
    re.compile(r"fallthrough(?<!\wfallthrough)\b"),
)
_WITH_ARGUMENTS = re.compile(r"__(?<!\w__)(?:attribute__|attribute|aligned|section|printf)\s*\(")
_ASM = re.compile(r"\b(?:asm|__asm__|__asm)\b[^;({]*\(")
_OPERAND = re.compile(r'"\s*\(\s*([A-Za-z_]\w*)\s*\)')
_CALL = re.compile(r"\b([A-Za-z_]\w{4,})\s*\(")
_PAREN = re.compile(r"[()]")
_STRUCT_ARGUMENT = re.compile(
    r"[(,](\s*)((?:const\s+)?(?:struct|union|enum)\s+\w+\s*\**)(?=\s*[,)])"
)
_NUMBER_TYPE = re.compile(
    r"[(,](\s*)((?:(?:const|unsigned|signed|long|short|int|char|void|bool|size_t)\b\s*)+\**)"
    r"(?=\s*[,)])"
)
_POINTER_TYPE = re.compile(r"[(,](\s*)(\w+\s*\*+)(?=\s*[,)])")
_RANGE = re.compile(r"\bcase\b[^;{}?:]*\.\.\.[^;{}?:]*:")
_IN_STRINGS = re.compile(r'"\s*[A-Za-z_]\w*\s*\(')
_STATIC = re.compile(r"static(?<!\wstatic)\s+(?=[A-Z_][A-Z0-9_]*\s*\()")
_BARE_OPERATOR = re.compile(r",(\s*)([=!]=|[<>]=?)(?=\s*,)")
_STATEMENT = re.compile(r"([A-Z][A-Z0-9_]*)\s*\((?=[^()\"]*;|\s*(?:if|for|while|do|switch)\b)")
_LINE_END = re.compile(r"\)[ \t]*\n\s*(?=[A-Za-z_}]|\*\w)")
_BLANK = re.compile(r"[^\S\n]")
# The grammar knows offsetof() of a plain member only; the last letter makes it any call.
_OFFSET = re.compile(r"offseto(?<!\woffseto)f(?=\s*\([^(),]*,[^(),]*[\[.])")
_WORD = re.compile(r"\w")
_NO_LINE_END = re.compile(r"[^\n]")
_LONGEST_CALL = 600

_AFTER = re.compile(r"\s*\)")
_OPERATOR = re.compile(r"\b(?:sizeof|typeof|__typeof__|return|alignof)$")
_LONGEST_OPERATOR = len("__typeof__")
_NEXT = re.compile(r"\s*(.?)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LoopMacro:
    """A macro that loops over what follows it."""

    name: str
    names: tuple[str, ...]
    """Plain names among its arguments: it may assign to any."""
    arguments: str


def prepare(text: str) -> tuple[str, dict[int, LoopMacro]]:
    """The body as a C grammar can read it, and each loop macro by its offset in it."""
    for pattern in _ANNOTATIONS:
        text = pattern.sub(_blank, text)
    text = _blank_calls(text, _WITH_ARGUMENTS)
    if "asm" in text:
        text = _assembler(text)
    if "..." in text:
        text = _RANGE.sub(lambda found: found.group().replace("...", " | "), text)
    if "offsetof" in text:
        text = _OFFSET.sub("offsetoF", text)
    if "static" in text:
        text = _STATIC.sub(_blank, text)
    text = _in_strings(text)
    text = _BARE_OPERATOR.sub(lambda one: f",{one[1]}0{' ' * (len(one[2]) - 1)}", text)
    text = _statements(text)
    text, loops = _loops(text)
    text = _ended(text)
    for pattern in (_STRUCT_ARGUMENT, _NUMBER_TYPE, _POINTER_TYPE):
        text = _named(text, pattern)
    return text, loops


def _named(text: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub(lambda found: _type_name(text, found), text)


def _blank(found: re.Match[str]) -> str:
    return _NO_LINE_END.sub(" ", found.group())


def _type_name(text: str, found: re.Match[str]) -> str:
    """A plain name in the place of a type, but not where a cast or ``sizeof`` stands."""
    whole, opening = found.group(), found.start()
    if whole[0] == "(" and _AFTER.match(text, found.end()):
        end = _word_before(text, opening)
        before = text[max(0, end - _LONGEST_OPERATOR - 2) : end]
        if not re.search(r"\w$", before) or _OPERATOR.search(before):
            return whole
    blank, typed = found.group(1), found.group(2)
    return whole[0] + blank + _NO_LINE_END.sub(" ", typed).replace(" ", "T", 1)


def _word_before(text: str, at: int) -> int:
    """Where the white space before an offset begins."""
    while at and text[at - 1].isspace():
        at -= 1
    return at


def _end_of_call(text: str, opening: int) -> int | None:
    depth = 0
    for found in _PAREN.finditer(text, opening):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.end()
    return None


def _blank_calls(text: str, pattern: re.Pattern[str]) -> str:
    at = 0
    while found := pattern.search(text, at):
        end = _end_of_call(text, found.end() - 1)
        if end is None:
            break
        text = text[: found.start()] + _NO_LINE_END.sub(" ", text[found.start() : end]) + text[end:]
        at = end
    return text


def _edited(text: str, edits: list[tuple[int, str]]) -> str:
    """*text* with these characters in other places' stead, all at once: it may be long."""
    if not edits:
        return text
    pieces: list[str] = []
    at = 0
    for start, new in sorted(edits):
        pieces += (text[at:start], new)
        at = start + len(new)
    return "".join((*pieces, text[at:]))


def _in_strings(text: str) -> str:
    """``"a" __stringify(b) "c"`` loses the call, which only makes another piece of the string."""
    at, edits = 0, []
    while found := _IN_STRINGS.search(text, at):
        end = _end_of_call(text, found.end() - 1)
        if end is None:
            break
        start, at = found.start() + 1, end
        edits.append((start, _NO_LINE_END.sub(" ", text[start:end])))
    return _edited(text, edits)


def _starts(text: str, at: int) -> bool:
    """Whether a statement can begin there."""
    before = _word_before(text, at)
    return not before or text[before - 1] in "{};):" or text.endswith(("else", "do"), 0, before)


def _statements(text: str) -> str:
    """``DEBUG(if (x) y();)`` becomes ``{if (x) y();}``."""
    at, edits = 0, []
    while found := _STATEMENT.search(text, at):
        start, at = found.start(), found.end()
        if (start and _WORD.match(text[start - 1])) or not _starts(text, start):
            continue
        end = _end_of_call(text, at - 1)
        if end is None:
            break
        if text[end : end + 1].isspace() or text[end : end + 1] == ";":
            edits.append((start, _NO_LINE_END.sub(" ", text[start : at - 1]) + "{"))
            edits.append((end - 1, ";}"))
            at = end + 1
    return _edited(text, edits)


def _ended(text: str) -> str:
    """A call that stands for a statement gets the ``;`` that the macro has inside, in the place
    of a blank after it."""
    edits = []
    for found in _LINE_END.finditer(text):
        opening = _start_of_call(text, found.start() + 1)
        end = _word_before(text, opening) if opening is not None else 0
        start = end
        while start and _WORD.match(text[start - 1]):
            start -= 1
        name = text[start:end]
        plain = name and not name[0].isdigit() and name not in _KEYWORDS
        room = _BLANK.search(text, found.start(), found.end())
        if room and plain and "for" not in name and _starts(text, start):
            edits.append((room.start(), ";"))
    return _edited(text, edits)


def _start_of_call(text: str, end: int) -> int | None:
    """Where the parenthesis opens that closes before *end*, if it is not too far."""
    depth = 0
    for at in range(end - 1, max(0, end - _LONGEST_CALL) - 1, -1):
        if text[at] == ")":
            depth += 1
        elif text[at] == "(":
            depth -= 1
            if depth == 0:
                return at
    return None


def _assembler(text: str) -> str:
    """``asm`` becomes a call of what its operands name, as far as there is room for it."""
    at = 0
    while found := _ASM.search(text, at):
        end = _end_of_call(text, found.end() - 1)
        if end is None:
            break
        inside = text[found.end() : end - 1]
        operands = dict.fromkeys(_OPERAND.findall(inside))
        call = f"as_({','.join(operands)})"
        blank = _NO_LINE_END.sub(" ", text[found.start() : end])
        line = blank.split("\n", 1)[0]
        if len(call) <= len(line):
            blank = call + blank[len(call) :]
        elif len(call) <= len(blank):
            rows = blank.split("\n")
            room = max(range(len(rows)), key=lambda row: len(rows[row]))
            if len(call) <= len(rows[room]):
                rows[room] = call + rows[room][len(call) :]
            blank = "\n".join(rows)
        text = text[: found.start()] + blank + text[end:]
        at = end
    return text


def _loops(text: str) -> tuple[str, dict[int, LoopMacro]]:
    loops: dict[int, LoopMacro] = {}
    at = 0
    while found := _CALL.search(text, at):
        at = found.end()
        name = found.group(1)
        if name in _KEYWORDS:
            continue
        if not _starts(text, found.start()):
            continue
        end = _end_of_call(text, found.end() - 1)
        after = _NEXT.match(text, end) if end else None
        if not end or after is None:
            continue
        follows = after.group(1)
        each = "for_each" in name or "foreach" in name or "walk_frags" in name
        if follows == "{" or (each and (follows.isalpha() or follows in "_*(")):
            arguments = text[found.end() : end - 1]
            loops[found.start()] = LoopMacro(name, _plain_names(arguments), arguments)
            inside = _NO_LINE_END.sub(" ", arguments)
            head = "while".ljust(found.end() - found.start() - 1) + "("
            text = text[: found.start()] + head + _one(inside) + text[end - 1 :]
    return text, loops


def _one(blank: str) -> str:
    return "1" + blank[1:] if blank and blank[0] == " " else blank


def _plain_names(arguments: str) -> tuple[str, ...]:
    names, depth, start = [], 0, 0
    for index, char in enumerate(arguments + ","):
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth == 0:
            piece = arguments[start:index].strip().lstrip("&")
            if re.fullmatch(r"[A-Za-z_]\w*", piece):
                names.append(piece)
            start = index + 1
    return tuple(names)
