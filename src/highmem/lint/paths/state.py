"""What is known at one point of one path."""

from __future__ import annotations

from dataclasses import dataclass, replace

from highmem.lint.paths.values import Value, WindowId, mentions_window, rename, root, window_of

__all__ = ["State", "Trail", "Window"]


@dataclass(frozen=True, slots=True)
class Window:
    """One mapping on a path."""

    id: WindowId
    family: str
    what: Value
    """The page, or whatever the map call was given."""
    status: str = "open"
    """``open``; ``closed``; ``maybe`` where a callee or a condition may have closed it."""
    nullable: bool = False
    """Whether the map call may have failed, which nobody has tested yet."""
    given: str = ""
    """A function that we do not know and that got the address (or the page)."""
    guarded: str = ""
    """``likely`` or ``possible``: a conditional unmap was passed by."""
    closed_at: int = -1
    handed: bool = False
    """Stored where others find it."""
    by_result: str = ""
    """It is there only where the call that opened it returned ``zero``, or something that is
    ``there``."""
    used: bool = False
    """Read, written, or given to somebody who may."""
    slot: str = ""
    """The km_type that a caller named before 3.4."""
    call: str = ""
    """Name of the call that opened it."""


@dataclass(frozen=True, slots=True)
class Trail:
    """The path so far, last step first."""

    before: Trail | None
    offset: int
    text: str
    """What happens there; ``yes`` and ``no`` are answers to the condition there."""
    end: int = 0


@dataclass(slots=True)
class State:
    """One path's knowledge.  Copied before it is changed."""

    env: dict[Value, Value]
    windows: dict[WindowId, Window]
    order: tuple[WindowId, ...]
    """Open windows of families that nest, the top one last."""
    facts: dict[Value, tuple[int, int, bool]]
    """Value to lowest, highest, and whether it is known not to be 0; ``("p", a, b)`` to a mask
    of what may hold between two values: 1 less, 2 equal, 4 greater."""
    locks: tuple[int, ...] = ()
    trail: Trail | None = None
    closes: frozenset[tuple[Value, str]] = frozenset()
    """Addresses or pages from outside that were unmapped, with the family."""
    maybe_closes: frozenset[tuple[Value, str]] = frozenset()
    foreign: tuple[tuple[int, int, str], ...] = ()
    """Unmaps of something from outside while a window of that family was open: span, family."""
    merged: bool = False
    """Whether knowledge was dropped for the budget."""

    def copy(self) -> State:
        """A state that can be changed apart."""
        return State(
            dict(self.env),
            dict(self.windows),
            self.order,
            dict(self.facts),
            self.locks,
            self.trail,
            self.closes,
            self.maybe_closes,
            self.foreign,
            self.merged,
        )

    def key(self) -> tuple[object, ...]:
        """Equal for states that know the same, whatever way led there."""
        return (
            frozenset(self.env.items()),
            frozenset(self.windows.items()),
            self.order,
            frozenset(self.facts.items()),
            self.locks,
            self.closes,
            self.foreign,
        )

    def note(self, offset: int, text: str, end: int = 0) -> None:
        """Add a step to the path."""
        self.trail = Trail(self.trail, offset, text, end)

    # Windows.

    def change(self, window: Window, **changes: object) -> Window:
        """Replace what is known of a window."""
        new = replace(window, **changes)  # type: ignore[arg-type]
        self.windows[window.id] = new
        if new.status != "open" and window.id in self.order:
            self.order = tuple(one for one in self.order if one != window.id)
        return new

    def forget(self, window: WindowId) -> None:
        """The map call failed: there is no such window."""
        self.windows.pop(window, None)
        self.order = tuple(one for one in self.order if one != window)

    def open_windows(self) -> list[Window]:
        """Those surely open, in the order of mapping."""
        return [window for window in self.windows.values() if window.status == "open"]

    def window(self, value: Value) -> Window | None:
        """The window that an address points into."""
        found = window_of(value)
        return self.windows.get(found) if found is not None else None

    def age(self, old: WindowId) -> None:
        """Make room for a new window of the same call: the last one is an earlier one now."""
        window = self.windows.pop(old, None)
        if window is None:
            return
        earlier = (old[0], 1)
        kept = self.windows.get(earlier)
        if kept is None or kept.status != "open":
            self.windows[earlier] = replace(window, id=earlier)
        if earlier in self.order:
            self.order = tuple(one for one in self.order if one != old)
        else:
            self.order = tuple(earlier if one == old else one for one in self.order)
        self.replace_symbol(("w", old, 0), ("w", earlier, 0))

    def replace_symbol(self, old: Value, new: Value) -> None:
        """One symbol for another, in everything that is known."""
        env: dict[Value, Value] = {}
        for place, value in self.env.items():
            to, holds = rename(place, old, new), rename(value, old, new)
            beaten = window_of(env[to]) if to in env else None
            if beaten is not None and beaten in self.windows and env[to] != holds:
                # Two elements of an array cannot be told apart any more: nor their windows.
                self.change(self.windows[beaten], guarded="possible")
            env[to] = holds
        self.env = env
        self.facts = {rename(k, old, new): fact for k, fact in self.facts.items()}
        for window in list(self.windows.values()):
            what = rename(window.what, old, new)
            if what != window.what:
                self.windows[window.id] = replace(window, what=what)

    def holders(self, window: WindowId) -> list[Value]:
        """Places that hold an address in the window."""
        return [place for place, value in self.env.items() if window_of(value) == window]

    def drop_unknown(self, *, all_facts: bool = False) -> None:
        """Forget values that are neither windows nor constants, and facts but those about what
        came in as it was, or these too."""
        self.facts = {
            key: fact for key, fact in self.facts.items() if key[0] == "v" and not all_facts
        }
        shown = {window.what for window in self.windows.values() if window.status != "closed"}
        self.env = {
            place: value
            for place, value in self.env.items()
            if mentions_window(value)
            or value in shown
            or (value[0] in ("n", "e") and root(place)[0] == "v")
        }
        self.merged = True
