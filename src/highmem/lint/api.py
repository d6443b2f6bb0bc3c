"""The API as data: which calls open, close, step and use windows.

The table shipped is :file:`api.toml`; a user's own file of the same shape is laid over it.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from highmem.errors import InputError

__all__ = [
    "Access",
    "ApiTable",
    "Close",
    "Family",
    "Inside",
    "Iterator",
    "Open",
    "load_api",
]

_BY = ("page", "address", "object")
_DOES = ("open", "next", "close")


@dataclass(frozen=True, slots=True)
class Family:
    """Calls that map and unmap together."""

    name: str
    by: str
    """What the unmap takes: ``page``, ``address`` or ``object``."""
    stack: bool
    """Whether windows must be unmapped in the reverse order of mapping."""
    atomic: bool
    """Whether sleeping is forbidden while one is open."""
    title: str
    unmap: str
    also: tuple[str, ...] = ()
    """Other families whose unmap does the same."""
    quiet: bool = False
    """Windows of page tables, not of data pages."""


@dataclass(frozen=True, slots=True)
class Open:
    """A call that returns a window."""

    name: str
    family: str
    page: int
    """Which argument says what is mapped."""
    kind: str = "page"
    """What that argument is: page, folio, pfn, bvec, bio, walk, pmd."""
    offset: int | None = None
    """Which argument is an offset already added to the result; -1: inside the first."""
    nullable: bool = False
    arguments: int = 1
    """How many it has at least; other functions of the name are none of ours."""


@dataclass(frozen=True, slots=True)
class Close:
    """A call that unmaps one argument."""

    name: str
    family: str
    argument: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Iterator:
    """A call that moves an object which holds a window."""

    name: str
    family: str
    object: int
    does: str
    field: str = ""
    """The member of the object that points into the window."""


@dataclass(frozen=True, slots=True)
class Inside:
    """A call that maps and unmaps by itself."""

    name: str
    page: int | None = None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A call that reads or writes through pointers and keeps none."""

    name: str
    pointers: tuple[int, ...]
    length: int | None = None


@dataclass(frozen=True, slots=True)
class ApiTable:
    """Everything that is known about calls."""

    families: Mapping[str, Family]
    opens: Mapping[str, Open]
    closes: Mapping[str, Close]
    iterators: Mapping[str, Iterator]
    insides: Mapping[str, Inside]
    accesses: Mapping[str, Access]
    inert: frozenset[str]
    page_calls: frozenset[str]
    page_fields: frozenset[str]
    pure: frozenset[str]
    """Calls that answer alike when asked alike."""
    sleepers: Mapping[str, str]
    """Function name to why it sleeps."""
    gfp: Mapping[str, int]
    """Allocating function to the argument that holds its GFP flags."""

    def names(self) -> frozenset[str]:
        """Every call that maps, unmaps or steps."""
        return frozenset((*self.opens, *self.closes, *self.iterators))

    def without(self, names: frozenset[str]) -> ApiTable:
        """It without these calls that map."""
        opens = {name: one for name, one in self.opens.items() if name not in names}
        return replace(self, opens=opens)


def load_api(extra: Iterable[Path | str] = ()) -> ApiTable:
    """The shipped table with the files *extra* laid over it.

    InputError names the file and the entry that is wrong.
    """
    files = tuple(map(str, extra))
    return _shipped() if not files else _build(files)


@functools.cache
def _shipped() -> ApiTable:
    return _build(())


def _build(files: tuple[str, ...]) -> ApiTable:
    here = Path(__file__).parent
    merged: dict[str, dict[str, Any]] = {}
    for path in (here / "api.toml", here / "sleepers.toml", *map(Path, files)):
        document = _read(path)
        try:
            _table(document)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(str(path), f"not a table of calls: {error}") from None
        for section, entries in document.items():
            into = merged.setdefault(section, {})
            for name, entry in entries.items():
                old = into.get(name)
                both = isinstance(old, list) and isinstance(entry, list)
                into[name] = [*old, *entry] if both and old is not None else entry
    try:
        return _table(merged)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(", ".join(files) or "api.toml", f"not a table of calls: {error}") from None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(str(path), f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"not TOML: {error}") from None


def _table(document: Mapping[str, Mapping[str, Any]]) -> ApiTable:
    def entries(section: str) -> Mapping[str, Any]:
        return document.get(section, {})

    families = {n: Family(name=n, **_tuples(e)) for n, e in entries("family").items()}
    iterators = {n: Iterator(name=n, **e) for n, e in entries("iterator").items()}
    for family in families.values():
        if family.by not in _BY:
            raise ValueError(f"family.{family.name}.by is {family.by!r}, not one of {_BY}")
    for iterator in iterators.values():
        if iterator.does not in _DOES:
            raise ValueError(f"iterator.{iterator.name}.does is none of {_DOES}")
    return ApiTable(
        families=families,
        opens={n: Open(name=n, **e) for n, e in entries("open").items()},
        closes={n: Close(name=n, **_tuples(e)) for n, e in entries("close").items()},
        iterators=iterators,
        insides={n: Inside(name=n, **e) for n, e in entries("inside").items()},
        accesses={n: Access(name=n, **_tuples(e)) for n, e in entries("access").items()},
        inert=frozenset(entries("inert").get("names", ())),
        page_calls=frozenset(entries("pages").get("returns", ())),
        pure=frozenset(entries("pages").get("pure", ())),
        page_fields=frozenset(entries("pages").get("fields", ())),
        sleepers={name: why for why, names in entries("sleepers").items() for name in names},
        gfp={name: int(position) for name, position in entries("gfp").items()},
    )


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
