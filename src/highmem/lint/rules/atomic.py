"""Sleeping where a window or a lock forbids it."""

from __future__ import annotations

from highmem.findings import Confidence
from highmem.lint.paths.context import Context
from highmem.lint.paths.sleeping import WAITS
from highmem.lint.paths.state import State, Window
from highmem.lint.syntax.graph import Instr

__all__ = ["Atomic"]

_USER_COPIES = frozenset(
    {"copy_from_user", "copy_to_user", "__copy_from_user", "__copy_to_user", "get_user",
     "put_user", "clear_user", "strncpy_from_user", "copy_in_user", "strnlen_user"}
)  # fmt: skip


class Atomic(Context):
    """Judges each call made while nothing may sleep."""

    def check_sleep(self, instr: Instr, name: str, state: State) -> None:
        """Whether the call may sleep where it must not."""
        families = self.table.families
        atomic = [
            one
            for one in state.windows.values()
            if one.status == "open" and families[one.family].atomic
        ]
        if not atomic and not (state.locks and self.ends_in_kmap(instr)):
            return
        why, sure = self._sleeps(instr, name)
        if not why:
            return
        span = (instr.start, instr.end)
        if not atomic:
            line = self.source.position(state.locks[-1])[0]
            what = f"{name}() {why}, under the lock of line {line}"
            self.report("sleep-in-atomic", span, what, sure, state)
            return
        window = atomic[-1]
        if name in _USER_COPIES and not state.locks:
            # Page faults are off, so the copy comes back short instead of sleeping.
            sure = Confidence.POSSIBLE
        sure = max((sure, self._doubt(window, state)), key=_rank)
        what = f"{name}() {why} while {self.named(window, state)} is open"
        self.report("sleep-in-atomic", span, what, sure, state, window)

    def ends_in_kmap(self, instr: Instr) -> bool:
        """Under a lock only kmap() is our subject: on 64 bits nobody sees it sleep."""
        if instr.detail in ("kmap", "kmap_high"):
            return True
        summary = self.summary_of(instr.detail) if instr.detail else None
        return summary is not None and summary.sleeps[-1:] in (("kmap",), ("kmap_high",))

    def _doubt(self, window: Window, state: State) -> Confidence:
        found = self.confidence(window, state)
        if self.family(window).quiet and window.family not in self.closed_families:
            return Confidence.POSSIBLE
        return found

    def _sleeps(self, instr: Instr, name: str) -> tuple[str, Confidence]:
        if name in self.table.gfp:
            position = self.table.gfp[name]
            if position < len(instr.arguments):
                flags = self.flags.get(instr.start, "")
                if WAITS.search(flags) and "GFP_ATOMIC" not in flags and "NOWAIT" not in flags:
                    return f"with {flags} may sleep", Confidence.CERTAIN
            return "", Confidence.POSSIBLE
        if name in self.table.sleepers and name not in self.graph.locals:
            return self.table.sleepers[name], Confidence.CERTAIN
        if name in ("filldir", "actor", "dir_emit"):
            return "copies to user memory and may sleep", Confidence.LIKELY
        summary = self.summary_of(name) if instr.detail else None
        if summary is not None and summary.sleeps:
            chain = "() calls ".join((name, *summary.sleeps))
            surely = summary.sleeps_surely or self.ends_in_kmap(instr)
            sure = Confidence.LIKELY if surely else Confidence.POSSIBLE
            return f"may sleep ({chain}())", sure
        if instr.detail:
            self.asked.add(name)
        return "", Confidence.POSSIBLE


def _rank(confidence: Confidence) -> int:
    return list(Confidence).index(confidence)
