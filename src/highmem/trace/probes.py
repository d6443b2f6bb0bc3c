"""Which event of a recording stands for which kernel function.

There is no tracepoint in the kernel's mapping functions: recordings are made with probes,
and whoever sets a probe names it.  The names that are understood without being told:

=====================================  ==================================================
``m_SYMBOL`` ``r_SYMBOL`` ``u_SYMBOL``  as ``highmem record`` names them: a map function
                                       entered, a map function returned, an unmap entered
``f_SYMBOL``                           ``kmap_flush_unused`` entered
``SYMBOL``                             entered
``p_SYMBOL_0`` ``r_SYMBOL_0``          ftrace's own names for kprobes without a name
``SYMBOL__entry`` ``SYMBOL__exit``     ftrace's own names for fprobes without a name
``SYMBOL__return``                     perf probe's name for a return
``r_SYMBOL__return``                   and what it makes of a return that is to be ``r_SYMBOL``
``GROUP:NAME``                         any of these with the group before it
=====================================  ==================================================

SYMBOL is any name of :data:`highmem.trace.schema.SYMBOLS`.  Everything else is told by a
mapping file (see :func:`load_probes`).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from highmem.errors import InputError

from .printable import printable
from .schema import SYMBOLS, Argument, Function, Kind
from .source import os_error

_T = TypeVar("_T")

__all__ = ["DEFAULT_PROBES", "Probe", "ProbeTable", "load_probes"]

_PFN_FUNCTIONS = frozenset(
    {
        Function.KMAP_ATOMIC_PFN,
        Function.KMAP_ATOMIC_PROT_PFN,
        Function.IOMAP_ATOMIC_PROT_PFN,
        Function.KMAP_LOCAL_PFN_PROT,
    }
)
_PAGE_UNMAPS = frozenset({Function.KUNMAP, Function.KUNMAP_HIGH})
_ADDRESS_UNMAPS = frozenset(
    {
        Function.KUNMAP_ATOMIC,
        Function.KUNMAP_ATOMIC_HIGH,
        Function.IOUNMAP_ATOMIC,
        Function.KUNMAP_LOCAL_INDEXED,
    }
)

_FIELDS: Mapping[str, Argument] = MappingProxyType(
    {
        "page": Argument.PAGE,
        "pfn": Argument.PFN,
        "vaddr": Argument.ADDRESS,
        "addr": Argument.ADDRESS,
    }
)
_RETURN_FIELDS: Mapping[str, Argument] = MappingProxyType(
    dict.fromkeys(("vaddr", "addr", "ret", "arg1"), Argument.ADDRESS)
)

_KINDS = {
    "map": Kind.MAP,
    "return": Kind.MAP_RETURN,
    "unmap": Kind.UNMAP,
    "flush": Kind.FLUSH,
}
_ARGUMENTS = {"page": Argument.PAGE, "pfn": Argument.PFN, "address": Argument.ADDRESS}
_BASES = {"auto": 0, "dec": 10, "hex": 16}


class Probe(NamedTuple):
    """What an event says, and under which names its fields go."""

    function: Function
    kind: Kind
    fields: Mapping[str, Argument]
    """Names that the page, the frame number or the address may have, and which it is."""
    prot: str = "prot"
    km_type: str = "type"
    base: int = 0
    """Base of numbers without ``0x``: 10, 16, or 0 to tell by their digits."""


class ProbeTable:
    """The probes of a recording by the names of their events."""

    __slots__ = ("_probes",)

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        self._probes = dict(probes)

    def find(self, event: str) -> Probe | None:
        """The probe of *event* (``NAME`` or ``GROUP:NAME``), None if it is none of ours."""
        found = self._probes.get(event)
        if found is None and ":" in event:
            found = self._probes.get(event.partition(":")[2])
        return found

    def extended(self, probes: Mapping[str, Probe]) -> ProbeTable:
        """This table with *probes* added; they win over those of the same name."""
        return ProbeTable({**self._probes, **probes})

    def __len__(self) -> int:
        return len(self._probes)


def _entry_kind(function: Function) -> Kind:
    if function is Function.KMAP_FLUSH_UNUSED:
        return Kind.FLUSH
    unmaps = function in _PAGE_UNMAPS or function in _ADDRESS_UNMAPS
    return Kind.UNMAP if unmaps else Kind.MAP


def _argument(function: Function, kind: Kind) -> Argument:
    """What the kernel function itself takes or gives."""
    if kind is Kind.FLUSH:
        return Argument.NONE
    if kind is Kind.MAP_RETURN or function in _ADDRESS_UNMAPS:
        return Argument.ADDRESS
    return Argument.PFN if function in _PFN_FUNCTIONS else Argument.PAGE


def _default_probes() -> ProbeTable:
    letters = {Kind.MAP: "m", Kind.UNMAP: "u", Kind.FLUSH: "f"}
    probes: dict[str, Probe] = {}
    for symbol, function in SYMBOLS.items():
        kind = _entry_kind(function)
        entry = Probe(function, kind, _FIELDS)
        names = (f"{letters[kind]}_{symbol}", symbol, f"p_{symbol}_0", f"{symbol}__entry")
        probes.update(dict.fromkeys(names, entry))
        if kind is Kind.MAP:
            back = Probe(function, Kind.MAP_RETURN, _RETURN_FIELDS)
            names = (f"r_{symbol}", f"r_{symbol}_0", f"{symbol}__return", f"{symbol}__exit")
            probes.update(dict.fromkeys((*names, f"r_{symbol}__return"), back))
    return ProbeTable(probes)


DEFAULT_PROBES = _default_probes()
"""The names that are understood without being told."""


# -- the mapping file -----------------------------------------------------------------


def load_probes(path: str | os.PathLike[str]) -> ProbeTable:
    """The default probes and those of the mapping file *path*.

    The file is TOML, one table for each event::

        [probes.my_map]          # the event's name; with its group: [probes."perf:my_map"]
        function = "kmap_high"   # the kernel's symbol
        kind = "map"             # map, return, unmap or flush; may be left out where the
                                 # function leaves no doubt and it is no return
        value = "arg1"           # the field with the page, frame number or address
        argument = "page"        # page, pfn or address; default: what the function takes
        prot = "arg2"            # the field with the protection bits, if recorded
        type = "arg3"            # the field with the km_type, if recorded
        base = "auto"            # of numbers without 0x: auto, hex or dec

    A field without a name in the probe's definition (``$retval``, ``%ax``) is called
    ``arg1``, ``arg2``, ... in the recording.  Raises InputError.
    """
    name = printable(os.fsencode(os.fspath(path)))
    try:
        with open(path, "rb") as stream:
            document = tomllib.load(stream)
    except OSError as error:
        raise os_error(name, error) from None
    except UnicodeDecodeError:
        raise InputError(name, "not a TOML file: it is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(name, f"not a TOML file: {printable(str(error), 120)}") from None
    except ValueError:
        raise InputError(name, "no such file: a NUL byte is in its name") from None
    tables = document.pop("probes", None)
    if document:
        known = printable(next(iter(document)), 40)
        raise InputError(name, f"unknown table or key {known!r}; all probes go under [probes.NAME]")
    if not isinstance(tables, dict) or not tables:
        raise InputError(name, "no probes in it; each goes under [probes.NAME]")
    return DEFAULT_PROBES.extended({key: _probe(name, key, tables[key]) for key in tables})


def _probe(path: str, event: str, table: object) -> Probe:
    where = f"probes.{printable(event, 80)}"
    if not isinstance(table, dict):
        raise InputError(path, "must be a table", where)
    known = ("function", "kind", "value", "argument", "prot", "type", "base")
    for key, value in table.items():
        if key not in known:
            raise InputError(
                path, f"unknown key {printable(key, 40)!r}; known are {', '.join(known)}", where
            )
        if not isinstance(value, str) or not value:
            raise InputError(path, f"{key} must be a text", where)
    if "function" not in table:
        raise InputError(path, "function is missing: the kernel symbol that is probed", where)
    function = _choice(path, where, table, "function", SYMBOLS)
    kind = _entry_kind(function)
    if "kind" in table:
        kind = _kind(path, where, function, _choice(path, where, table, "kind", _KINDS))
    argument = _argument(function, kind)
    if "argument" in table:
        argument = _choice(path, where, table, "argument", _ARGUMENTS)
    fields = _RETURN_FIELDS if kind is Kind.MAP_RETURN else _FIELDS
    if "value" in table:
        fields = MappingProxyType({table["value"]: argument})
    elif "argument" in table:
        raise InputError(path, "argument needs value: the field that it speaks of", where)
    prot, km_type = table.get("prot", "prot"), table.get("type", "type")
    names = [*fields, prot, km_type]
    if len(set(names)) != len(names):
        raise InputError(path, "value, prot and type must be different fields", where)
    return Probe(
        function=function,
        kind=kind,
        fields=fields,
        prot=prot,
        km_type=km_type,
        base=_choice(path, where, table, "base", _BASES) if "base" in table else 0,
    )


def _kind(path: str, where: str, function: Function, kind: Kind) -> Kind:
    """*kind* if *function* can have it: its entry's, or the return of a map function."""
    entry = _entry_kind(function)
    if kind is not entry and not (kind is Kind.MAP_RETURN and entry is Kind.MAP):
        words = {value: word for word, value in _KINDS.items()}
        other = f"{words[entry]} or return" if entry is Kind.MAP else words[entry]
        raise InputError(path, f"kind cannot be {words[kind]!r} here, only {other}", where)
    return kind


def _choice(path: str, where: str, table: Mapping[str, Any], key: str, of: Mapping[str, _T]) -> _T:
    if table[key] not in of:
        given = printable(table[key], 40)
        raise InputError(path, f"{key} {given!r} is not known; known are {', '.join(of)}", where)
    return of[table[key]]
