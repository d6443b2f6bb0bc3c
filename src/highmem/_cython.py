"""Stands in for Cython's own shadow module where Cython is not installed.

The modules that :file:`hatch_build.py` compiles are plain Python with Cython's types in
annotations and declarations.  Interpreted, those mean nothing; this module gives the names
that they use and lets ``cython.compiled`` be false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = [
    "boundscheck",
    "cast",
    "ccall",
    "cclass",
    "cdivision",
    "cfunc",
    "compiled",
    "declare",
    "exceptval",
    "final",
    "initializedcheck",
    "inline",
    "locals",
    "nogil",
    "wraparound",
]

T = TypeVar("T")

compiled = False


def _same(thing: T) -> T:
    return thing


cfunc = ccall = cclass = inline = nogil = final = likely = unlikely = _same


def _with_arguments(*_: object, **__: object) -> Callable[[T], T]:
    return _same


boundscheck = wraparound = cdivision = initializedcheck = exceptval = locals = _with_arguments


def declare(_type: object = None, value: Any = None, **_: object) -> Any:
    """A variable's type and first value; interpreted, the value."""
    return value


def cast(_type: object, value: T, **_: object) -> T:
    """A C cast; interpreted, the value as it is."""
    return value


class _Type:
    """A C type (``cython.int``, ``cython.longlong[::1]``), which means nothing here."""

    def __getitem__(self, _shape: object) -> _Type:
        return self


def __getattr__(name: str) -> object:
    """Any C type that is named."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _Type()
