"""At the end of a path: what is still open, whose it is then, and what callers must know."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from highmem.findings import Confidence
from highmem.lint.paths.context import RELEASES, weaker
from highmem.lint.paths.facts import assume
from highmem.lint.paths.state import State, Window
from highmem.lint.paths.summaries import Summary, comes_with, portable
from highmem.lint.paths.values import ERROR, ZERO, Value, WindowId, root
from highmem.lint.rules.windows import Windows
from highmem.lint.syntax.graph import Block

__all__ = ["End", "Exits"]

_VOID = re.compile(r"\(\s*void\s*\)\s*$")
_NEAR = 16
"""Bytes before a call that are looked at."""


@dataclass(frozen=True, slots=True)
class End:
    """One way out of the function."""

    returned: tuple[str, bool, Value] | None
    """Family of the window returned, whether as its page, and the page."""
    nothing: bool
    """It returns nothing that could be an address."""
    zero: bool
    """It returns 0."""
    opened: frozenset[tuple[Value, Value, str]]
    closed: frozenset[tuple[Value, str]]


class Exits(Windows):
    """Judges what is open at a return, and remembers it for the summary."""

    def at_exit(self, state: State, block: Block, value: Value | None) -> None:
        """One path's end; two of them where what is returned tells whether a window is open."""
        if value is not None and any(
            window.by_result and window.nullable and value == ("c", window.id[0], 0)
            for window in state.open_windows()
        ):
            other = state.copy()
            if assume(state, value, False):
                self._at_end(state, block, ZERO)
            if assume(other, value, True):
                self._at_end(other, block, value)
        else:
            self._at_end(state, block, value)

    def _at_end(self, state: State, block: Block, value: Value | None) -> None:
        span = (block.start, block.end) if block.end else (self.function.end - 1, self.function.end)
        self._returns_dead(state, value, span)
        opened: set[tuple[Value, Value, str]] = set()
        returned: tuple[str, bool, Value] | None = None
        for window in state.open_windows():
            how = self._returned(window, value)
            owner = self._owner(window, state)
            if how or owner is not None:
                self.unfit(window, "the window outlives the function")
            if how and owner is None:
                returned = (window.family, how == "page", self._shown(window, state))
            elif owner is not None:
                opened.add((owner, self._shown(window, state), window.family))
                self._kept(window, state)
            elif not how:
                self._leaked(window, state, span)
        self._mapped_twice(state, span)
        self.ends.append(
            End(
                returned,
                value is None or value[0] == "call" or self._nothing(value, state),
                value == ZERO,
                frozenset(opened),
                frozenset(one for one in state.closes if self._portable(one[0])),
            )
        )

    def _nothing(self, value: Value, state: State) -> bool:
        """Whether it is NULL or an error on this path."""
        error = state.facts.get(("call", "IS_ERR", (value,)))
        known = state.facts.get(value)
        null = known is not None and known[0] == known[1] == 0
        return value in (ZERO, ERROR) or null or (error is not None and error[2])

    def _mapped_twice(self, state: State, span: tuple[int, int]) -> None:
        """Each kmap() of a page needs its own kunmap(); the caller makes one."""
        first: dict[Value, Window] = {}
        for window in state.open_windows():
            if window.family != "permanent" or window.id[1] or window.nullable:
                continue
            other = first.setdefault(window.what, window)
            given = RELEASES.search(other.given) or RELEASES.search(window.given)
            if other is not window and not given:
                what = f"{self.named(other, state)} is mapped twice and both are still open"
                self.report("leaked-window", span, what, Confidence.LIKELY, state, window)

    def _returns_dead(self, state: State, value: Value | None, span: tuple[int, int]) -> None:
        window = state.window(value) if value is not None else None
        if window is not None and window.status == "closed" and not window.id[1]:
            line = self.source.position(window.closed_at)[0]
            what = (
                f"the address in {self.named(window, state)} is returned; line {line} unmapped it"
            )
            self.report("stale-access", span, what, Confidence.LIKELY, state, window)

    def _portable(self, value: Value) -> bool:
        return portable(value, self.graph.parameters)

    def _returned(self, window: Window, value: Value | None) -> str:
        if value is None:
            return ""
        if window.id in _addresses(value):
            return "address"
        by_page = self.family(window).by == "page"
        return "page" if by_page and value == window.what else ""

    def _shown(self, window: Window, state: State) -> Value:
        """The page in terms of the parameters, where it can be told so."""
        what: Value = window.what
        if self._portable(what):
            return what
        place: Value
        for place, value in state.env.items():
            if value == what and self.outside(place) and self._portable(place):
                return place
        return ()

    def _owner(self, window: Window, state: State) -> Value | None:
        """The place through which others can unmap it: in terms of the parameters, or
        ``("s",)`` where it cannot be told so; None where the function is the only owner."""
        places = [place for place in state.holders(window.id) if self.outside(place)]
        family = self.family(window)
        if family.by == "object":
            inner = window.what[1] if window.what[0] == "addr" else ("deref", window.what)
            places += [inner] if self.outside(inner) else []
        if family.by == "page":
            places += [
                place
                for place, value in state.env.items()
                if value == window.what and place[0] != "tmp" and self.outside(place)
            ]
            own = window.what
            held = [place for place in state.holders(window.id) if place[0] != "tmp"]
            kept = not window.used or bool(held)
            if kept and window.family not in self.closed_families and self._from_outside(own):
                return () if self._portable(own) else ("s",)
        if places:
            return next((place for place in places if self._portable(place)), ("s",))
        return ("s",) if window.handed else None

    def _from_outside(self, page: Value) -> bool:
        """Whether the caller knows the page too."""
        if page[0] == "v":
            return page[1] in self.graph.parameters or page[1] not in self.graph.locals
        known = comes_with(page, self.graph.parameters)
        return known or (page[0] in ("fld", "deref") and self.outside(page))

    def _kept(self, window: Window, state: State) -> None:
        """A window that outlives the function in a variable or a member."""
        family = self.family(window)
        if family.by != "address" or family.quiet or window.handed:
            return
        for place in state.holders(window.id):
            if not self.outside(place):
                continue
            start = window.id[0]
            whose = root(place)
            shared = whose[0] == "v" and whose[1] not in self.graph.locals
            paired = place[0] != "fld" or place[2] in self.facts.closed_fields
            lasts = family.stack and (shared or not paired)
            sure = Confidence.LIKELY if lasts else Confidence.POSSIBLE
            what = f"{self.named(window, state)} stays open in {self.say(place)}"
            at = (start, start + len(window.call))
            self.report("escaping-window", at, what, sure, state, window)
            return

    def _leaked(self, window: Window, state: State, span: tuple[int, int]) -> None:
        sure = self.confidence(window, state)
        for start, end, family in state.foreign:
            if family == window.family and not window.id[1]:
                by_page = self.family(window).by == "page"
                rule = "address-not-page" if by_page else "not-a-window"
                what = f"this unmaps something else than {self.named(window, state)}, still open"
                self.report(rule, (start, end), what, Confidence.LIKELY, state, window)
                return
        if window.nullable:
            sure = Confidence.POSSIBLE
        if self.family(window).quiet:
            unmaps = window.family in self.closed_families
            sure = weaker(sure, Confidence.LIKELY if unmaps else Confidence.POSSIBLE)
        if self.family(window).by == "page" and self._from_outside(window.what):
            sure = weaker(sure, Confidence.LIKELY)  # others can unmap it too
        if self._in_array(window, state):
            # Some loop unmaps what this loop mapped; whether all of it cannot be told.
            sure = Confidence.POSSIBLE
        if self._handed_out(window, state) or self._cast_away(window):
            sure = Confidence.POSSIBLE
        held = " (it was mapped again in a loop)" if window.id[1] else ""
        what = f"{self.named(window, state)} is not unmapped when the function returns{held}"
        self.report("leaked-window", span, what, sure, state, window)

    def _handed_out(self, window: Window, state: State) -> bool:
        """Whether the caller gets the struct whose page this is, or a callee keeps the window
        in what came from outside: then others may unmap it."""
        page = window.what
        if window.guarded and window.call not in self.table.opens and self._from_outside(page):
            return True
        if page[0] != "fld" or page[1][0] != "deref":
            return False
        owner = page[1][1]
        places = [place for place, value in state.env.items() if value == owner]
        return any(place[0] != "tmp" and self.outside(place) for place in places)

    def _cast_away(self, window: Window) -> bool:
        """``(void)kmap_atomic(page)``: that nobody has the address is meant."""
        if self.family(window).by != "address":
            return False  # page_address() tells it
        before = max(0, window.id[0] - _NEAR), window.id[0]
        return _VOID.search(self.source.code, *before) is not None

    def _in_array(self, window: Window, state: State) -> bool:
        loops = set(self.loops_of(window.id[0]))
        indexed = self.indexed(window, state)
        elements = any(place[0] == "deref" for place in state.holders(window.id))
        if (indexed and window.id[1]) or ((indexed or elements) and any(self.closing_loops)):
            return True
        if not loops and not window.id[1]:
            return False
        other = any(here and not here <= loops for here in self.closing_loops)
        return other and self.family(window).by == "page"

    # The summary.

    def summary(self) -> Summary:
        """What callers must know of the function."""
        ends = [end for end in self.ends if end.returned is not None]
        mixed = any(end.returned is None and not end.nothing for end in self.ends)
        returned = ends[0].returned if ends and not mixed else None
        family, as_page, what = returned or ("", False, ())
        return Summary(
            name=self.function.name,
            parameters=self.graph.parameters,
            returns=family,
            returns_page=as_page,
            what=what,
            nullable=len(ends) < len(self.ends),
            closes=self._closes(),
            opens=self._opens(),
        )

    def _closes(self) -> tuple[tuple[Value, str, bool], ...]:
        every = Counter(one for end in self.ends for one in end.closed)
        found = {one: count == len(self.ends) for one, count in every.items()}
        for one in self.may_close:
            if self._portable(one[0]):
                found.setdefault(one, False)
        return tuple(sorted(((*one, always) for one, always in found.items()), key=repr))

    def _opens(self) -> tuple[tuple[Value, Value, str, str], ...]:
        every = {one for end in self.ends for one in end.opened if one[0] != ("s",)}
        return tuple(sorted(((*one, self._when(one)) for one in every), key=repr))

    def _when(self, one: tuple[Value, Value, str]) -> str:
        """What a caller can tell by the result about one that is opened."""
        yes = [end for end in self.ends if one in end.opened]
        no = [end for end in self.ends if one not in end.opened]
        if not no:
            return "always"
        if all(end.zero for end in yes) and not any(end.zero for end in no):
            return "zero"
        if not any(end.nothing for end in yes) and all(end.nothing for end in no):
            return "there"
        return "sometimes"


def _addresses(value: Value) -> set[WindowId]:
    """Windows whose address is part of a value; what is read through one is not."""
    found: set[WindowId] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if one[:1] == ("w",):
            found.add(one[1])
        elif one[:1] not in (("deref",), ("fld",), ("call",)):
            stack.extend(part for part in one if isinstance(part, tuple))
    return found
