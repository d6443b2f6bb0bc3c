"""Reads and writes through windows: after the unmap, and past the end of the page."""

from __future__ import annotations

import re

from highmem.findings import Confidence
from highmem.lint.api import Access, Inside
from highmem.lint.paths.context import Context, weaker
from highmem.lint.paths.state import State, Window
from highmem.lint.paths.values import PAGE_SIZE, Value, as_number, window_of
from highmem.lint.syntax.graph import Instr

__all__ = ["Accesses"]

_WIDE_CALLS = frozenset({"folio_size", "page_size", "compound_size", "thp_size", "folio_nr_pages"})
_GOES_THROUGH = re.compile(
    r"(?:^|_)(?:mem|copy|cpy|read|write|fill|set|clear|check|poison|hash|c?sum|crc|xor|cmp|flush"
    r"|clean|inv|update|encrypt|decrypt|compress)"
)
"""Names of functions that read or write what they get."""
_PAGE_WORDS = frozenset({"PAGE_SIZE", "PAGE_CACHE_SIZE"})


class Accesses(Context):
    """Checks what goes through a window."""

    def check_access(self, touched: list[Value], state: State, start: int, end: int) -> None:
        """Reads and writes through pointers of this function."""
        for pointer in touched:
            window = state.window(pointer)
            if window is None:
                continue
            self.used_sites.add(window.id[0])
            if window.status == "closed":
                self._stale(window, state, start, end, Confidence.CERTAIN, "is read or written")
                continue
            self.still_inside(pointer, state)
            where = pointer[2]
            if where == "pages" or (isinstance(where, int) and where >= PAGE_SIZE):
                far = "pages" if where == "pages" else f"{where} bytes"
                sure = Confidence.LIKELY if where == "pages" else Confidence.CERTAIN
                what = f"{self.named(window, state)} is used {far} past its start"
                self.report("page-overrun", (start, end), what, sure, state, window)
            self.use(window, state)

    def still_inside(self, pointer: Value, state: State) -> None:
        """Whoever goes through a pointer that was moved on knows that it is in its page."""
        if pointer[2] == "adv":
            for place in [place for place, value in state.env.items() if value == pointer]:
                state.env[place] = ("w", pointer[1], "used")

    def use(self, window: Window, state: State) -> None:
        """Note that somebody works with the mapped memory."""
        if not window.used:
            state.change(window, used=True)
        self.used_sites.add(window.id[0])

    def check_pointer(
        self, value: Value, instr: Instr, state: State, sure: Confidence, how: str = ""
    ) -> None:
        """An address given to a function that goes through it."""
        window = state.window(value)
        if window is not None and window.status == "closed":
            how = how or f"is given to {instr.detail or 'a function'}()"
            self._stale(window, state, instr.start, instr.end, sure, how)

    def _stale(
        self, window: Window, state: State, start: int, end: int, sure: Confidence, how: str
    ) -> None:
        if window.id[1] or self._mapped_otherwise(window, state):
            return
        if self._next_turn(window, start) or state.merged or window.given:
            sure = Confidence.POSSIBLE
        line = self.source.position(window.closed_at)[0]
        what = f"{self.named(window, state)} {how} after line {line} unmapped it"
        self.report("stale-access", (start, end), what, sure, state, window)

    def _mapped_otherwise(self, window: Window, state: State) -> bool:
        """kmap() counts: a page that was mapped twice stays after one kunmap()."""
        return self.family(window).by == "page" and any(
            other.what == window.what and other.status != "closed"
            for other in state.windows.values()
        )

    def _next_turn(self, window: Window, start: int) -> bool:
        """Unmapped in one turn of a loop and used in the next, or after the loop: conditions on
        the turns may forbid it."""
        there, here = set(self.loops_of(window.closed_at)), set(self.loops_of(start))
        return bool(there - here) or (bool(there & here) and start < window.closed_at)

    def check_call(self, access: Access, instr: Instr, values: list[Value], state: State) -> None:
        """memcpy() and its kind."""
        for position in access.pointers:
            if position < len(values):
                self.check_pointer(values[position], instr, state, Confidence.CERTAIN)
        if access.length is None or access.length >= len(values):
            return
        length = values[access.length]
        for position in access.pointers:
            if position >= len(values) or window_of(values[position]) is None:
                continue
            window = state.window(values[position])
            if window is not None and window.status == "open" and not self.family(window).quiet:
                self.use(window, state)
                offset = values[position][2]
                self._check_length(instr, length, offset, window, state)

    def _check_length(
        self,
        instr: Instr,
        length: Value,
        offset: object,
        window: Window,
        state: State,
        most: Confidence = Confidence.CERTAIN,
    ) -> None:
        """*most*: how sure it is that the callee goes through the address."""
        number = as_number(length)
        base = offset if isinstance(offset, int) else 0
        sure, after = Confidence.LIKELY, ""
        if offset == "pages":
            before = "pages past the start of"
        elif number is not None:
            if number + base <= PAGE_SIZE:
                return
            before, sure = f"of {number} bytes from {base} past the start of", Confidence.CERTAIN
        elif not self._bounded(length, state) and (why := self._wide(length, window.what)):
            before, after = "through", f" of {self.say(length)} bytes, {why}"
        else:
            return
        what = f"{instr.detail}() {before} {self.named(window, state)}{after}"
        span = (instr.start, instr.end)
        self.report("page-overrun", span, what, weaker(sure, most), state, window)

    def _bounded(self, length: Value, state: State) -> bool:
        """Whether a test on this path holds the length to a page."""
        fact = state.facts.get(length)
        if fact is not None and fact[1] <= PAGE_SIZE:
            return True
        return any(key[0] == "p" and length in key[1:] and _names_page(key) for key in state.facts)

    def _wide(self, length: Value, page: Value = ()) -> str:
        """Why a length may be more than a page, if it looks so."""
        if length[0] == "bin":
            op, left, right = length[1], length[2], length[3]
            first, second = as_number(left), as_number(right)
            if op == "<<" and first == PAGE_SIZE:
                return "several pages for an order above 0"
            if op == "<<" and second == 12:
                return "several pages"
            if op == "*" and PAGE_SIZE in (first, second):
                return "several pages"
            if op == "<<" and left[0] == "bin":
                return self._wide(left)
            if op == "<<" and first == 1 and _page_shift(right):
                return "several pages for an order above 0"
        if length[0] == "fld" and length[2] == "length" and _of_entry(page) == length[1]:
            return "and an entry of a scatterlist may have several pages"
        if length[0] == "c" and self.calls.get(length[1]) in _WIDE_CALLS:
            return "and one window shows one page of it"
        return ""

    def check_sizes(self, instr: Instr, values: list[Value], state: State) -> None:
        """An unknown function that gets an address and a size that is plainly too much."""
        if "bit" in instr.detail or any(as_number(one) == PAGE_SIZE for one in values):
            return
        for value in values:
            window = state.window(value)
            if window is None or window.status != "open" or self.family(window).quiet:
                continue
            for length in values:
                shifted = length[0] == "bin" and length[1] == "<<" and as_number(length[3]) == 12
                if not shifted and self._wide(length) and not self._bounded(length, state):
                    goes = _GOES_THROUGH.search(instr.detail) is not None
                    sure = Confidence.LIKELY if goes else Confidence.POSSIBLE
                    self._check_length(instr, length, value[2], window, state, sure)

    def check_inside(self, inside: Inside, instr: Instr, values: list[Value], state: State) -> None:
        """memcpy_from_page() and its kind: they map one page."""
        if inside.length is None or inside.length >= len(values):
            return
        length = as_number(values[inside.length])
        offset = as_number(values[inside.offset]) if inside.offset is not None else 0
        if length is None:
            why = self._wide(values[inside.length])
            if why and not self._bounded(values[inside.length], state):
                what = f"{instr.detail}() of {self.say(values[inside.length])} bytes, {why}"
                span = (instr.start, instr.end)
                self.report("page-overrun", span, what, Confidence.LIKELY, state)
            return
        if length + (offset or 0) > PAGE_SIZE:
            what = f"{instr.detail}() of {length} bytes from {offset or 0} goes past the page"
            span = (instr.start, instr.end)
            self.report("page-overrun", span, what, Confidence.CERTAIN, state)


def _page_shift(value: Value) -> bool:
    """``PAGE_SHIFT + order``."""
    return value[0] == "bin" and value[1] == "+" and 12 in map(as_number, value[2:])


def _of_entry(page: Value) -> Value:
    """The entry of a scatterlist whose page this is."""
    if page[:2] == ("call", "sg_page"):
        entry = page[2][0]
        return tuple(entry[1]) if entry[0] == "addr" else ("deref", entry)
    return tuple(page[1]) if page[:1] == ("fld",) and page[2] == "page" else ()


def _names_page(key: Value) -> bool:
    stack = [key]
    while stack:
        one = stack.pop()
        if one[:1] == ("v",) and one[1] in _PAGE_WORDS:
            return True
        stack.extend(part for part in one if isinstance(part, tuple))
    return False
