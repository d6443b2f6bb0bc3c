# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""What is known at one point of one path.

Plain Python that Cython compiles (pure Python mode); interpreted it does the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.lint.paths.values import (
    Value,
    WindowId,
    mentions_window,
    rename,
    rename_all,
    root,
    window_of,
    young,
)

__all__ = ["State", "Trail", "Window"]


class Window(NamedTuple):
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

    def but(self, **changes: Any) -> Window:
        """It with something else known."""
        values = list(self)
        for name, value in changes.items():
            values[_FIELDS[name]] = value
        return Window._make(values)


_FIELDS = {name: at for at, name in enumerate(Window._fields)}


class Trail(NamedTuple):
    """The path so far, last step first."""

    before: Trail | None
    offset: int
    text: str
    """What happens there; ``yes`` and ``no`` are answers to the condition there."""
    end: int = 0


_NONE: frozenset[Any] = frozenset()


@cython.final
@cython.cclass
class State:
    """One path's knowledge.  Copied before it is changed.

    ``env``: places to what they hold.  ``windows``: by their ids.  ``order``: open windows of
    families that nest, the top one last.  ``facts``: value to lowest, highest, and whether it is
    known not to be 0; ``("p", a, b)`` to a mask of what may hold between two values: 1 less, 2
    equal, 4 greater.  ``locks``: offsets of the calls that took them.  ``trail``: the path so
    far.  ``closes``: addresses or pages from outside that were unmapped, with the family.
    ``foreign``: unmaps of something from outside while a window of that family was open: span,
    family.  ``merged``: knowledge was dropped for the budget.  ``mapped``: a window was opened at
    some time; where none was, no value has one in it.
    """

    env = cython.declare(dict, visibility="public")
    windows = cython.declare(dict, visibility="public")
    order = cython.declare(tuple, visibility="public")
    facts = cython.declare(dict, visibility="public")
    locks = cython.declare(tuple, visibility="public")
    trail = cython.declare(object, visibility="public")
    closes = cython.declare(frozenset, visibility="public")
    foreign = cython.declare(tuple, visibility="public")
    merged = cython.declare(cython.bint, visibility="public")
    mapped = cython.declare(cython.bint, visibility="public")

    def __init__(
        self,
        env: dict[Any, Any],
        windows: dict[Any, Any],
        order: tuple[Any, ...],
        facts: dict[Any, Any],
    ) -> None:
        self.env, self.windows, self.order, self.facts = env, windows, order, facts
        self.locks, self.foreign = (), ()
        self.trail = None
        self.closes = _NONE
        self.merged = self.mapped = False

    def copy(self) -> State:
        """A state that can be changed apart."""
        new: State = State(self.env.copy(), self.windows.copy(), self.order, self.facts.copy())
        new.locks, new.trail = self.locks, self.trail
        new.closes, new.foreign = self.closes, self.foreign
        new.merged, new.mapped = self.merged, self.mapped
        return new

    def note(self, offset: int, text: str, end: int = 0) -> None:
        """Add a step to the path."""
        self.trail = Trail(self.trail, offset, text, end)

    # Windows.

    def change(self, window: Window, **changes: object) -> Window:
        """Replace what is known of a window."""
        new = window.but(**changes)
        self.windows[window.id] = new
        if new.status != "open" and window.id in self.order:
            self.order = tuple(one for one in self.order if one != window.id)
        return new

    def close(self, window: Window, at: int) -> None:
        """A call at *at* unmaps it: what was only told of open windows is told no more."""
        self.change(
            window, status="closed", closed_at=at,
            given="", guarded="", handed=False, used=False, slot="",
        )  # fmt: skip

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
            self.windows[earlier] = window.but(id=earlier)
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
        if self.facts:
            self.facts = {rename(k, old, new): fact for k, fact in self.facts.items()}
        for window in list(self.windows.values()):
            what = rename(window.what, old, new)
            if what != window.what:
                self.windows[window.id] = window.but(what=what)

    def replace_symbols(self, names: dict[Value, Value]) -> None:
        """Several symbols of this turn of a loop at once."""
        env = {
            rename_all(place, names): rename_all(value, names) for place, value in self.env.items()
        }
        facts = {rename_all(key, names): fact for key, fact in self.facts.items()}
        if len(env) < len(self.env) or len(facts) < len(self.facts):
            for old, new in names.items():  # what falls together does so one after the other
                self.replace_symbol(old, new)
            return
        self.env, self.facts = env, facts
        for window in list(self.windows.values()):
            what = rename_all(window.what, names)
            if what != window.what:
                self.windows[window.id] = window.but(what=what)

    def holders(self, window: WindowId) -> list[Value]:
        """Places that hold an address in the window."""
        return [place for place, value in self.env.items() if window_of(value) == window]

    def young(self) -> set[tuple[Any, ...]]:
        """Every symbol in it that belongs to this turn of a loop."""
        found: set[Any] = set()
        some: tuple[Any, ...]
        for place, value in self.env.items():
            some = young(place)
            if some:
                found.update(some)
            some = young(value)
            if some:
                found.update(some)
        for window in self.windows.values():
            found.update(young(window.what))
        for key in self.facts:
            some = young(key)
            if some:
                found.update(some)
        return found

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
