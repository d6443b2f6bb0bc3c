"""What functions do to windows, as far as their callers must know.

Places and pages are values in terms of the function's own parameters (``("v", name)``); a
caller puts its arguments in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from highmem.lint.paths.values import Value, arithmetic, leaves

__all__ = ["Summaries", "Summary", "comes_with", "parts", "portable", "resolve", "resolve_place"]

_MOST = 12


@dataclass(frozen=True, slots=True)
class Summary:
    """One function, seen from its callers."""

    name: str
    parameters: tuple[str, ...] = ()
    returns: str = ""
    """Family of the window that it returns."""
    returns_page: bool = False
    """It returns the page, mapped, instead of the address."""
    what: Value = ()
    """The page shown by the window returned, where that can be told."""
    nullable: bool = False
    """Whether it may also return NULL or an error, with nothing mapped."""
    closes: tuple[tuple[Value, str, bool], ...] = ()
    """Address or page that it unmaps, family, and whether on every path."""
    opens: tuple[tuple[Value, Value, str, str], ...] = ()
    """Place that gets the address (empty where none does), page, family, and when: ``always``,
    where the result is ``zero``, where it is ``there`` (not NULL), or ``sometimes``."""
    sleeps: tuple[str, ...] = ()
    """The calls that lead to sleeping, outermost first; empty where none is known."""
    sleeps_surely: bool = False

    @property
    def matters(self) -> bool:
        """Whether a caller's windows change by calling it."""
        return bool(self.returns or self.closes or self.opens)

    def to_list(self) -> list[Any]:
        """For JSON."""
        return [getattr(self, name) for name in self.__slots__]

    @classmethod
    def from_list(cls, document: list[Any]) -> Summary:
        """The value that :meth:`to_list` made the document of."""
        return cls(*map(_tuples, document))


@dataclass(slots=True)
class Summaries:
    """Summaries by name; those of static functions hold in their file only."""

    shared: dict[str, Summary] = field(default_factory=dict)
    local: dict[str, dict[str, Summary]] = field(default_factory=dict)

    def get(self, name: str, path: str) -> Summary | None:
        """What is known of the function that a call in the file *path* means."""
        own = self.local.get(path)
        found = own.get(name) if own else None
        return found or self.shared.get(name)

    def put(self, summary: Summary, path: str, *, static: bool) -> bool:
        """Note a summary; whether it says anything new about windows."""
        into = self.local.setdefault(path, {}) if static else self.shared
        old = into.get(summary.name)
        if old is not None and not summary.sleeps:
            summary = replace(summary, sleeps=old.sleeps, sleeps_surely=old.sleeps_surely)
        if old == summary or (old is None and not summary.matters and not summary.sleeps):
            return False
        into[summary.name] = summary
        return True

    def names(self, path: str) -> Iterator[str]:
        """Functions that matter to a file."""
        for table in (self.local.get(path, {}), self.shared):
            yield from (name for name, summary in table.items() if summary.matters)


def portable(value: Value, parameters: tuple[str, ...]) -> bool:
    """Whether a value can be told in terms of the parameters alone, in not too many words."""
    return comes_with(value, parameters) and parts(value) <= _MOST


def comes_with(value: Value, parameters: tuple[str, ...]) -> bool:
    """Whether a value is made of the parameters, and of constants, which are the same to all."""
    names = [leaf[1] if leaf[0] == "v" else "" for leaf in leaves(value)]
    return any(name in parameters for name in names) and all(
        name in parameters or name.isupper() for name in names
    )


def parts(value: Value) -> int:
    """How many values it is made of, itself counted."""
    return 1 + sum(parts(part) for part in value if isinstance(part, tuple))


def resolve(value: Value, given: Mapping[str, Value], content: Callable[[Value], Value]) -> Value:
    """A value of the callee as the caller sees it; *content* tells what a place holds."""
    kind = value[0] if value else ""
    if kind == "v":
        return given.get(value[1], value)
    if kind in ("fld", "deref"):
        return content(resolve_place(value, given, content))
    if kind == "addr":
        return ("addr", resolve_place(value[1], given, content))
    if kind == "bin":
        left, right = (resolve(part, given, content) for part in value[2:])
        known: Value = arithmetic(value[1], left, right)
        return known
    return tuple(
        resolve(part, given, content) if isinstance(part, tuple) else part for part in value
    )


def resolve_place(
    place: Value, given: Mapping[str, Value], content: Callable[[Value], Value]
) -> Value:
    """A place of the callee as the caller sees it."""
    if place[0] == "fld":
        return ("fld", resolve_place(place[1], given, content), place[2])
    if place[0] == "deref":
        pointer = resolve(place[1], given, content)
        if pointer[0] == "addr":
            inner: Value = pointer[1]
            return inner
        return ("deref", pointer)
    return place


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
