"""kmap() and kmap_atomic() that could be kmap_local_page(), and why others could not."""

from __future__ import annotations

import re

from highmem.findings import Confidence
from highmem.lint.paths.context import Context
from highmem.lint.paths.state import State, Window
from highmem.lint.syntax.graph import Instr

__all__ = ["DEPRECATED", "Deprecated", "needs_atomic"]

DEPRECATED = frozenset({"kmap", "kmap_atomic"})
_NEEDS_ATOMIC = re.compile(r"inatomic|this_cpu|smp_processor_id|per_cpu|pagefault|get_cpu")


def needs_atomic(name: str) -> bool:
    """Whether a function by its name relies on preemption or page faults being off."""
    return _NEEDS_ATOMIC.search(name) is not None


class Deprecated(Context):
    """Gathers on every path what speaks against the conversion."""

    def unfit(self, window: Window, why: str) -> None:
        """Note a reason against converting the call that opened a window."""
        if window.call in DEPRECATED:
            self.against.setdefault(window.id[0], {}).setdefault(why, None)

    def fits_closed(self, window: Window, state: State) -> None:
        """At the unmap: whatever was mapped later must be unmapped by now."""
        later = False
        for other in state.windows.values():
            if later and other.status == "open":
                self.unfit(window, f"it is unmapped before the window of {other.call}() inside it")
                self.unfit(other, "it is unmapped after the window that it was mapped within")
            later = later or other.id == window.id
        if window.id[1]:
            self.unfit(window, "a loop holds several at once")
        self.closed_sites.add(window.id[0])

    def fits_call(self, name: str, state: State) -> None:
        """At a call that needs preemption or page faults off."""
        for window in state.open_windows():
            if window.call == "kmap_atomic":
                self.unfit(window, f"{name}() relies on preemption or page faults being off")

    def fits_nothing(self, state: State, instr: Instr) -> None:
        """A kmap() whose result nobody takes is for users of page_address()."""
        for window in state.open_windows():
            if window.id == (instr.start, 0):
                self.unfit(window, "the address is taken from page_address()")

    def unused(self) -> None:
        """Report windows that no path uses, though one unmaps them."""
        for site in self.closed_sites - self.used_sites:
            name = self.calls.get(site, "")
            opened = self.table.opens.get(name)
            if opened is None or self.table.families[opened.family].quiet or self.reasons:
                continue
            if site in self.against:
                continue
            what = f"nobody uses the address that {name}() returns"
            span = (site, site + len(name))
            state = State({}, {}, (), {})
            self.report("unused-window", span, what, Confidence.LIKELY, state)

    def deprecated(self) -> None:
        """Report every call of the old functions."""
        for site, name in self.calls.items():
            if name not in DEPRECATED:
                continue
            reasons = list(self.against.get(site, {}))
            if not reasons and site not in self.closed_sites:
                reasons = ["no path of this function unmaps it"]
            if not reasons and self.reasons:
                reasons = ["not all paths could be followed"]
            span = (site, site + len(name))
            state = State({}, {}, (), {})
            if reasons:
                what = f"{name}() is deprecated, but not safe to convert here: {reasons[0]}"
                self.report("deprecated-api", span, what, Confidence.POSSIBLE, state)
            else:
                what = (
                    f"{name}() can be kmap_local_page() here: this function maps and unmaps it, "
                    "nested with its other windows"
                )
                self.report("deprecated-api", span, what, Confidence.LIKELY, state)
