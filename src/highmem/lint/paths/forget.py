# mypy: disable-error-code="misc, untyped-decorator, name-defined, no-any-return, no-untyped-call"
# mypy: disable-error-code="import-untyped, import-not-found, attr-defined, unused-ignore, no-redef"
"""What no path asks for again is forgotten, so that paths meet.

Of each block it is remembered what becomes of a place or a fact that enters it: most are the
same each time.  Places, values and facts have numbers, so that to compare what two paths know
is to compare numbers.  Plain Python that Cython compiles (pure Python mode); interpreted it
does the same.
"""

from __future__ import annotations

from typing import Any

try:
    import cython
except ImportError:
    from highmem import _cython as cython

from highmem.lint.paths.values import PAGE_SIZE, leaves, mentions_window, names_of

__all__ = ["KNOWN", "Forgetting"]

_PAGE_WORDS = frozenset({"PAGE_SIZE", "PAGE_CACHE_SIZE"})
KNOWN = 48
"""Facts and windows that a state keeps."""

# What becomes of a place.
KEPT = cython.declare(cython.int, 0)  # table
DEAD = cython.declare(cython.int, 1)  # table
NO_CONSTANT = cython.declare(cython.int, 2)  # table
NO_ERROR = cython.declare(cython.int, 3)  # table
SHOWN = cython.declare(cython.int, 4)  # table
ASKED = cython.declare(cython.int, 8)  # table
FATE_BITS = cython.declare(cython.int, 4)  # table
FATE_MASK = cython.declare(cython.int, 7)  # table
NUMBER_BITS = cython.declare(cython.int, 31)  # table


_NONE: frozenset[int] = frozenset()


@cython.cclass
class Forgetting:
    """Forgets, at the entry of each block of one graph, and tells what is left as a key."""

    live: Any
    kept: Any
    returned: Any
    pages: Any
    unasked: Any
    _numbers: dict[Any, Any]
    _fates: list[Any]
    _needs: list[Any]
    _asked: list[Any]
    _others: list[Any]

    def __init__(
        self,
        live: Any,
        kept: frozenset[str],
        returned: frozenset[str],
        pages: frozenset[int],
        unasked: frozenset[str],
    ) -> None:
        """*live*: the liveness; *kept*: variables that others may read; *returned*: those that
        the function returns; *pages*: calls that return pages, by their offsets; *unasked*:
        families whose windows nobody asks for by their page."""
        self.live, self.kept, self.returned, self.pages = live, kept, returned, pages
        self.unasked = unasked
        count = live.blocks
        self._numbers = {}
        self._fates = [None] * count
        self._needs = [None] * count
        self._asked, self._others = [], []

    @cython.ccall
    def places(
        self, number: cython.int, env: dict[Any, Any], windows: dict[Any, Any]
    ) -> frozenset[int]:
        """Forget what the block, and those after it, do not read; the key of the rest."""
        fates: dict[Any, Any] | None = self._fates[number]
        if fates is None:
            fates = {}
            self._fates[number] = fates
        dead: list[Any] = []
        key: list[Any] = []
        asked: list[Any] = []
        others: list[Any] = []
        shown: Any = None
        fate: cython.longlong
        kind: cython.longlong
        place: tuple[Any, ...]
        value: tuple[Any, ...]
        for place, value in env.items():
            known = fates.get(place)
            if known is None:
                known = self._number(place) << FATE_BITS | self._fate(number, place)
                if self._is_asked(number, place):
                    known |= ASKED
                fates[place] = known
            fate = known
            kind = fate & FATE_MASK
            if kind == SHOWN:
                if windows and shown is None:
                    shown = self._shown(windows)
                if not (
                    (value[0] == "c" and value[1] in self.pages)
                    or (windows and value in shown)
                    or mentions_window(value)
                ):
                    kind = DEAD
            elif (kind == NO_CONSTANT and (value[0] == "n" or value[0] == "e")) or (
                kind == NO_ERROR and value[0] == "e"
            ):
                kind = DEAD
            if kind == DEAD:
                dead.append(place)
                continue
            key.append((fate >> FATE_BITS) << NUMBER_BITS | self._number(value))
            if value[0] != "n" and value[0] != "e":
                if fate & ASKED:
                    asked.append(value)
                else:
                    others.append(value)
        for place in dead:
            del env[place]
        self._asked, self._others = asked, others
        return frozenset(key)

    @cython.cfunc
    def _shown(self, windows: dict[Any, Any]) -> Any:
        """Pages that a window shows, or that an unmap may name again; and the structs that hold
        them, through which others may come to them."""
        shown: set[Any] = set()
        what: tuple[Any, ...]
        for window in windows.values():
            if window.status != "closed" or window.family not in self.unasked:
                what = window.what
                shown.add(what)
                if what[0] == "fld" and what[1][0] == "deref":
                    shown.add(what[1][1])
        return shown

    @cython.ccall
    def windows(self, state: Any) -> None:
        """Forget windows that are closed and that nobody can name any more.

        To be called after :meth:`places` of the same state.
        """
        windows: dict[Any, Any] = state.windows
        many: cython.bint = len(windows) > KNOWN
        held: Any = None
        for window in list(windows.values()):
            if window.status == "open":
                continue
            gone: cython.bint = many
            unnamed: cython.bint = window.id[1] or window.family in self.unasked
            if not gone and window.status == "closed" and unnamed:
                if held is None:
                    held = {value[1] for value in state.env.values() if value[0] == "w"}
                gone = window.id not in held
            if gone:
                del windows[window.id]

    @cython.ccall
    def key(self, state: Any) -> tuple[Any, ...]:
        """The key of a whole state: equal for states that know the same."""
        env: dict[Any, Any] = state.env
        facts: dict[Any, Any] = state.facts
        known: list[Any] = []
        said: list[Any] = []
        one: tuple[Any, ...]
        other: tuple[Any, ...]
        for one, other in env.items():
            known.append(self._number(one) << NUMBER_BITS | self._number(other))
        for one, other in facts.items():
            said.append(self._number(one) << NUMBER_BITS | self._number(other))
        return self.whole(frozenset(known), frozenset(said), state)

    @cython.ccall
    def whole(self, places: frozenset[int], facts: frozenset[int], state: Any) -> tuple[Any, ...]:
        """The key of a state, of which that of the places and of the facts are known."""
        windows: dict[Any, Any] = state.windows
        held: Any = frozenset(windows.items()) if windows else _NONE
        return (places, facts, held, state.order, state.locks, state.closes, state.foreign)

    @cython.cfunc
    def _number(self, value: tuple[Any, ...]) -> cython.longlong:
        known = self._numbers.get(value)
        if known is None:
            known = len(self._numbers)
            self._numbers[value] = known
        return known

    @cython.cfunc
    def _fate(self, number: cython.int, place: tuple[Any, ...]) -> cython.int:
        kind = place[0]
        if kind == "v":
            name = place[1]
            if not self.live.reads(number, name) and name not in self.kept:
                return DEAD
            if self.live.tests(number, name):
                return KEPT
            return NO_ERROR if name in self.returned else NO_CONSTANT
        if kind == "tmp":
            return KEPT if self.live.reads(number, f"#{place[1]}") else DEAD
        if kind == "fld" and self.live.tests(number, "." + place[2]):
            return KEPT
        return SHOWN

    @cython.ccall
    def facts(self, number: cython.int, state: Any) -> frozenset[int]:
        """Forget the facts that nobody asks for again; the key of the rest.

        To be called after :meth:`places` and :meth:`windows` of the same state.
        """
        facts: dict[Any, Any] = state.facts
        if not facts:
            return _NONE
        needs: dict[Any, Any] | None = self._needs[number]
        if needs is None:
            needs = {}
            self._needs[number] = needs
        dead: list[Any] = []
        found: list[Any] = []
        held: Any = None
        anywhere: Any = None
        values: Any = None
        key: tuple[Any, ...]
        fact: tuple[Any, ...]
        kept: cython.bint
        for key, fact in facts.items():
            known: tuple[Any, ...] | None = needs.get(key)
            if known is None:
                known = (self._need(number, key), self._number(key) << NUMBER_BITS)
                needs[key] = known
            need = known[0]
            kept = need is True or (key[0] != "p" and 0 < fact[1] <= PAGE_SIZE)
            if not kept and need is not False:
                if held is None:
                    held = self._held(state)
                kept = held.issuperset(need)
            if not kept and key[0] == "bin":
                # A condition may ask for the variable that holds it, whatever it is made of.
                if values is None:
                    values = set(self._asked)
                kept = key in values
            if not kept and key[0] == "call" and key[1] == "IS_ERR":
                if anywhere is None:
                    anywhere = _leaves_of(self._asked) | _leaves_of(self._others)
                kept = anywhere.issuperset(leaves(key))
            if kept:
                found.append(known[1] | self._number(fact))
            else:
                dead.append(key)
        for key in dead:
            del facts[key]
        if len(facts) > KNOWN:
            state.facts = dict(list(facts.items())[-KNOWN:])
            found = found[-KNOWN:]
        return frozenset(found)

    @cython.cfunc
    def _need(self, number: cython.int, key: tuple[Any, ...]) -> Any:
        """The symbols that some place must still hold so that somebody can ask; True where it
        is asked for anyway, False where it is not."""
        names = names_of(key)
        if key[0] == "p" and names & _PAGE_WORDS:
            return True
        for name in names:
            if name.startswith(".") and not self.live.asks(number, name):
                return False
        need = [
            leaf for leaf in leaves(key) if leaf[0] != "v" or not self.live.asks(number, leaf[1])
        ]
        return frozenset(need) if need else True

    @cython.cfunc
    def _is_asked(self, number: cython.int, place: tuple[Any, ...]) -> bool:
        """Whether conditions still ask for what is in a place."""
        if place[0] == "tmp":
            return True
        asked = False
        for name in names_of(place):
            asked = asked or self.live.asks(number, name)
        return asked

    @cython.cfunc
    def _held(self, state: Any) -> Any:
        """Symbols in places that conditions still ask for."""
        held = _leaves_of(self._asked)
        for window in state.windows.values():
            held |= leaves(window.what)
        return held


@cython.cfunc
def _leaves_of(values: list[Any]) -> Any:
    found: set[Any] = set()
    value: tuple[Any, ...]
    for value in values:
        if value[0] == "v":
            found.add(value)
        else:
            found |= leaves(value)
    return found
