"""Opening and closing windows on a path, and what can be wrong about it."""

from __future__ import annotations

import re

from highmem.findings import Confidence
from highmem.lint.api import Close
from highmem.lint.paths.context import weaker
from highmem.lint.paths.state import State, Window
from highmem.lint.paths.values import PAGE_SIZE, ZERO, Value, leaves, outermost
from highmem.lint.rules.deprecated import Deprecated
from highmem.lint.rules.guards import Guards
from highmem.lint.syntax.graph import Expr, Instr

__all__ = ["Windows"]

_LOW_ADDRESS = frozenset(
    {"page_address", "lowmem_page_address", "folio_address", "sg_virt", "kmalloc", "kzalloc",
     "kcalloc", "kmalloc_array", "kmemdup", "vmalloc", "vzalloc", "vmap", "ioremap", "kvmalloc",
     "kvzalloc", "__get_free_page", "__get_free_pages", "get_zeroed_page", "kmem_cache_alloc",
     "kmem_cache_zalloc", "phys_to_virt", "dma_alloc_coherent"}
)  # fmt: skip
_BYTES = ("char *", "u8 *", "unsigned char *", "void *", "uint8_t *", "__u8 *", "caddr_t")


class Windows(Guards, Deprecated):
    """Map and unmap."""

    def open(
        self,
        state: State,
        instr: Instr,
        family: str,
        what: Value,
        *,
        call: str,
        nullable: bool = False,
        offset: object = 0,
        slot: str = "",
    ) -> Value:
        """A new window; the value is the address in it."""
        site = (instr.start, 0)
        for other in state.open_windows():
            # From 2.6.37 on the name of the slot means nothing.
            if slot and other.slot == slot and self.slots_by_name is not False:
                line = self.source.position(other.id[0])[0]
                text = f"{call}() takes {slot}, which line {line} took and still holds"
                most = Confidence.CERTAIN if self.slots_by_name else Confidence.LIKELY
                sure = weaker(most, self.confidence(other, state))
                self.report("busy-entry", (instr.start, instr.end), text, sure, state, other)
        state.age(site)
        window = Window(site, family, what, nullable=nullable, call=call, slot=slot)
        state.windows[site] = window
        state.mapped = True
        if self.table.families[family].stack:
            state.order = (*state.order, site)
        state.note(instr.start, f"{call}() maps {self.say(what)}")
        return ("w", site, offset)

    # By address.

    def close_address(
        self, state: State, instr: Instr, value: Value, expr: Expr, close: Close
    ) -> None:
        """``kunmap_local(value)`` and its kind."""
        window = state.window(value)
        if window is None:
            self._close_foreign(state, instr, value, expr, close)
            return
        if window.status == "closed":
            self._closed_again(state, instr, window, close)
            return
        if window.status == "open":
            self._check_family(state, instr, window, close)
            self._check_offset(state, instr, window, value, close)
            self._check_order(state, instr, window, close)
        self.check_many(state, instr, window)
        self.fits_closed(window, state)
        state.note(instr.start, f"{close.name}() unmaps it")
        state.close(window, instr.start)

    def matching(self, window: Window, close: Close) -> bool:
        """Whether the call is one for windows of this family."""
        also = self.family(window).also
        return window.family in (close.family, *close.also) or close.family in also

    def _check_family(self, state: State, instr: Instr, window: Window, close: Close) -> None:
        if self.matching(window, close):
            return
        family = self.family(window)
        what = f"{self.named(window, state)} is unmapped by {close.name}(), not {family.unmap}"
        sure = weaker(Confidence.LIKELY if state.merged else Confidence.CERTAIN)
        self.report("mismatched-pair", (instr.start, instr.end), what, sure, state, window)

    def _check_offset(
        self, state: State, instr: Instr, window: Window, value: Value, close: Close
    ) -> None:
        far = isinstance(value[2], int) and value[2] >= PAGE_SIZE
        if far:
            what = (
                f"{close.name}() gets an address {value[2]} bytes past {self.named(window, state)}"
            )
            sure = Confidence.LIKELY if state.merged else Confidence.CERTAIN
            self.report("advanced-pointer", (instr.start, instr.end), what, sure, state, window)
        if value[2] != "adv":
            return
        what = (
            f"{close.name}() gets a pointer into {self.named(window, state)} that was moved on "
            "and may have left the page"
        )
        # Inside the loop that moves it, the loop's condition still holds.
        inside = set(self.loops_of(instr.start)) - set(self.loops_of(window.id[0]))
        sure = Confidence.POSSIBLE if inside else Confidence.LIKELY
        self.report("advanced-pointer", (instr.start, instr.end), what, sure, state, window)

    def _check_order(self, state: State, instr: Instr, window: Window, close: Close) -> None:
        if window.id not in state.order or state.order[-1] == window.id:
            return
        top = state.windows[state.order[-1]]
        if window.slot and top.slot and self.slots_by_name:
            return
        sure = weaker(self._sure_open(window, state), self._sure_open(top, state))
        if window.id[1] or top.id[1] or self.indexed(window, state) or self.indexed(top, state):
            sure = Confidence.POSSIBLE
        line = self.source.position(top.id[0])[0]
        what = (
            f"{close.name}() unmaps {self.named(window, state)} while the window of "
            f"{top.call}() in line {line}, mapped after it, is still open"
        )
        named = window.slot and top.slot and window.slot != top.slot
        if named and self.slots_by_name is None:
            sure = weaker(sure, Confidence.LIKELY)
            what += f" (up to 2.6.36 {window.slot} and {top.slot} were slots in no order)"
        self.report("unmap-order", (instr.start, instr.end), what, sure, state, window)

    def indexed(self, window: Window, state: State) -> bool:
        """Whether the address is in an array, at an index that cannot be told."""
        for place in state.holders(window.id):
            place = outermost(place)
            if place[0] != "deref":
                continue
            constant = place[1][0] != "bin" or place[1][3][0] == "n"
            if not constant or window.id[1]:
                return True
        return False

    def _sure_open(self, window: Window, state: State) -> Confidence:
        """A callee that only got the address does not make it doubtful that it is open."""
        return self.confidence(window, state)

    def check_many(self, state: State, instr: Instr, window: Window) -> None:
        """One loop maps, another unmaps: all are held at once."""
        home = set(self.loops_of(window.id[0]))
        here = set(self.loops_of(instr.start))
        earlier = state.windows.get((window.id[0], 1))
        if earlier is None or earlier.status != "open" or not home or home <= here:
            return
        latest = state.windows.get((window.id[0], 0))
        if window.id[1] and (latest is None or latest.status != "open"):
            return  # one turn kept its window, and this is it
        family = self.family(window)
        rule = "too-deep" if family.stack else "pool-exhausted"
        if family.by == "object" or family.quiet:
            return
        what = f"a loop holds a window of {window.call}() from each of its turns at once"
        # Waiting for others while holding many slots is how tasks come to wait for each other.
        waits = rule == "pool-exhausted" and self.table.sleepers.keys() & set(self.calls.values())
        sure = Confidence.LIKELY if waits or rule == "too-deep" else Confidence.POSSIBLE
        sure = weaker(sure, self.confidence(earlier, state))
        at = (window.id[0], window.id[0] + len(window.call))
        self.report(rule, at, what, sure, state, window)

    def _closed_again(self, state: State, instr: Instr, window: Window, close: Close) -> None:
        if window.id[1]:
            return
        line = self.source.position(window.closed_at)[0]
        what = f"{close.name}() of {self.named(window, state)}, which line {line} unmapped already"
        turns = set(self.loops_of(window.closed_at)) - set(self.loops_of(instr.start))
        sure = Confidence.LIKELY if turns else Confidence.CERTAIN
        if state.merged or window.given:
            sure = Confidence.POSSIBLE
        self.report("double-unmap", (instr.start, instr.end), what, sure, state, window)

    def _close_foreign(
        self, state: State, instr: Instr, value: Value, expr: Expr, close: Close
    ) -> None:
        """An address that no window of this function is known to have."""
        shows = [w for w in state.windows.values() if w.what == value and w.status == "open"]
        span = (instr.start, instr.end)
        base = value
        while base[0] == "bin" and base[1] in ("+", "-"):
            base = base[2]
        if shows or self._is_page(expr, value):
            got = "the page itself" if self._is_page(expr, value) else "what was mapped itself"
            what = f"{close.name}() takes the address that was mapped, and gets {got}"
            window = shows[-1] if shows else None
            self.report("page-not-address", span, what, Confidence.CERTAIN, state, window)
            self._given_up(state, instr, close)
        elif self._an_object(value, expr):
            what = f"{close.name}() takes the address that was mapped, and gets {self.say(value)}"
            self.report("not-a-window", span, what, Confidence.LIKELY, state)
            self._given_up(state, instr, close)
        elif (name := self._made_by(base)) in _LOW_ADDRESS:
            what = f"{close.name}() of what {name}() returned, which is no window"
            self.report("not-a-window", span, what, Confidence.LIKELY, state)
        elif value != ZERO:
            self._unknown(state, instr, value, close)

    def _made_by(self, value: Value) -> str:
        """The call that returned it."""
        if value[0] == "call":
            return str(value[1])
        return self.calls.get(value[1], "") if value[0] == "c" else ""

    def _is_page(self, expr: Expr, value: Value) -> bool:
        if self.typing.is_page(expr):
            return True
        if value[0] in ("c", "call"):
            name = self.calls.get(value[1]) if value[0] == "c" else value[1]
            return name in self.table.page_calls
        return value[0] == "fld" and self.typing.is_page(("fld", ("id", ""), value[2]))

    def _an_object(self, value: Value, expr: Expr) -> bool:
        """``&struct``: no map call returns that.  An array may hold anything."""
        while expr[0] == "cast":
            expr = expr[2]
        if value[0] != "addr":
            return False
        array = value[1][0] == "v" and self.graph.types.get(value[1][1], "").endswith("[]")
        return array or (expr[0] == "addr" and value[1][0] in ("fld", "v"))

    def _given_up(self, state: State, instr: Instr, close: Close, value: Value = ()) -> None:
        """After a wrong argument: whichever was meant counts as dealt with."""
        for window in reversed(state.open_windows()):
            if self.matching(window, close) and not _distinct(window.what, value):
                self.check_many(state, instr, window)
                self.unfit(window, "which window is unmapped cannot be told")
                state.change(window, status="maybe")
                return

    def _unknown(self, state: State, instr: Instr, value: Value, close: Close) -> None:
        by_address = self.table.families[close.family].by == "address"
        if value[0] == "bin" and value[1] == "&":
            value = value[2]
        if (value, close.family) in state.closes and not _looped(value):
            what = f"{close.name}() of {self.say(value)}, which was unmapped on this path already"
            span = (instr.start, instr.end)
            self.report("double-unmap", span, what, Confidence.LIKELY, state)
        if not self.from_parameter(value):
            element = self._element(value)
            if element:
                self.may_close.add((element, close.family))
            self._given_up(state, instr, close, value if not by_address else ())
            return
        by_page = self.table.families[close.family].by == "page"
        if by_page and close.family not in self.facts.maps and value[0] != "v":
            what = f"{close.name}() of {self.say(value)}, and nothing in this file maps a page"
            span = (instr.start, instr.end)
            self.report("unmapped-kunmap", span, what, Confidence.POSSIBLE, state)
        state.closes |= {(value, close.family)}
        if any(self.matching(window, close) for window in state.open_windows()):
            state.foreign = (*state.foreign, (instr.start, instr.end, close.family))[-4:]

    def _element(self, value: Value) -> Value:
        """An element of an array that came with the parameters, whichever it is, as the first."""
        if value[0] == "fld":
            inner = self._element(value[1])
            return ("fld", inner, value[2]) if inner else ()
        if value[0] != "deref" or value[1][0] != "bin" or value[1][1] != "+":
            return ()
        array: Value = value[1][2]
        first: Value = ("deref", ("bin", "+", array, ("n", 0)))
        return first if self.from_parameter(array) else ()

    # By page.

    def close_page(
        self, state: State, instr: Instr, value: Value, expr: Expr, close: Close
    ) -> None:
        """``kunmap(page)``."""
        mapped = [w for w in state.windows.values() if w.what == value]
        same = [w for w in mapped if w.family == close.family]
        live = [w for w in same if w.status != "closed"]
        if live:
            live.sort(key=lambda w: (w.status == "open", -w.id[1]))
            self.check_many(state, instr, live[-1])
            self.fits_closed(live[-1], state)
            state.note(instr.start, f"{close.name}() unmaps it")
            state.close(live[-1], instr.start)
            return
        if self._address_for_page(state, instr, value, expr, close):
            return
        related = any(w.status != "closed" or w.family == close.family for w in mapped)
        if not related and self._fresh(value):
            what = f"{close.name}() of {self.say(value)}, which nothing on this path has mapped"
            span = (instr.start, instr.end)
            self.report("unmapped-kunmap", span, what, Confidence.LIKELY, state)
            return
        others = [w for w in mapped if w.family != close.family and w.status == "open"]
        if others and others[-1].id[1] == 0:
            self._check_family(state, instr, others[-1], close)
            state.change(others[-1], status="maybe")
        elif same and same[-1].id[1] == 0 and not _looped(value):
            self._closed_again(state, instr, same[-1], close)
        else:
            self._unknown(state, instr, value, close)

    def _fresh(self, page: Value) -> bool:
        """A page that this function got just now, from a call that maps nothing."""
        if page[0] != "c" or page[-1]:
            return False
        return self.calls.get(page[1]) in self.table.page_calls

    def _address_for_page(
        self, state: State, instr: Instr, value: Value, expr: Expr, close: Close
    ) -> bool:
        span = (instr.start, instr.end)
        window = state.window(value)
        text = f"{close.name}() takes the page, and gets "
        if window is not None:
            what = text + f"the address in {self.named(window, state)}"
            self.report("address-not-page", span, what, Confidence.CERTAIN, state, window)
            if window.status == "open":
                state.change(window, status="maybe")
            return True
        inner = expr
        while inner[0] == "cast":
            inner = inner[2]
        if inner[0] == "fld" and inner[2] in self.facts.window_fields:
            what = text + f"{self.say(value)}, which this file assigns from a map call"
            self.report("address-not-page", span, what, Confidence.LIKELY, state)
            self._given_up(state, instr, close)
            return True
        kind = self.typing.type_of(inner)
        other = re.fullmatch(r"struct (?!page\b)\w+ \*", kind) is not None
        if (kind in _BYTES or other) and not self._is_page(inner, value):
            unsure = kind == "void *" and value[0] != "v"
            sure = Confidence.POSSIBLE if unsure else Confidence.LIKELY
            what = text + f"{self.say(value)}, a {kind}"
            self.report("address-not-page", span, what, sure, state)
            self._given_up(state, instr, close)
            return True
        return False


def _distinct(page: Value, other: Value) -> bool:
    """Whether two pages come from different calls of this turn, so are hardly the same."""
    first, second = leaves(page), leaves(other)
    fresh = all(leaf[0] == "c" and leaf[-1] == 0 for leaf in first | second)
    return bool(first) and bool(second) and fresh and not first & second


def _looped(value: Value) -> bool:
    """Whether a page is one of several that a loop goes through."""
    if value and value[0] == "l":
        return True
    return any(_looped(part) for part in value if isinstance(part, tuple))
