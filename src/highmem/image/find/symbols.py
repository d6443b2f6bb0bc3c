"""Names of a kernel's addresses: from System.map, kallsyms text, vmlinux, or the image itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np

from highmem.errors import InputError, UsageError
from highmem.image.find.kallsyms import Kallsyms
from highmem.image.tables import Ints

__all__ = ["Symbols", "load_symbols"]

_LARGEST = 256 << 20
"""Bytes of a System.map or kallsyms text; real ones have three million."""
_KINDS = ("STT_NOTYPE", "STT_OBJECT", "STT_FUNC")
_LINE = re.compile(rb"^([0-9a-fA-F]{8,16}) ([A-Za-z?]) (\S+)", re.M)


@dataclass(frozen=True)
class Symbols:
    """Virtual addresses by name, and names by address; ``origin`` says where they are from."""

    origin: str
    addresses: Mapping[str, int]
    ordered: Ints
    """All addresses, ascending."""
    names: tuple[str, ...]
    """The names in that order."""

    @classmethod
    def of(cls, origin: str, pairs: Iterable[tuple[int, str]]) -> Symbols:
        """From (address, name) in any order; of two with one name the first counts."""
        kept = sorted(pairs, key=itemgetter(0))
        ordered = np.array([address for address, _ in kept], np.int64)
        return cls._sorted(origin, ordered, tuple([name for _, name in kept]))

    @classmethod
    def _sorted(cls, origin: str, ordered: Ints, names: tuple[str, ...]) -> Symbols:
        # Backwards, so that of two with one name the first stays.
        addresses = dict(zip(reversed(names), reversed(ordered.tolist()), strict=True))
        return cls(origin, addresses, ordered, names)

    @classmethod
    def of_kallsyms(cls, origin: str, found: Kallsyms) -> Symbols:
        """From a table read out of an image."""
        return cls._sorted(origin, found.addresses, found.names)

    def __len__(self) -> int:
        return len(self.names)

    def moved(self, distance: int) -> Symbols:
        """The same *distance* bytes further on (a kernel that KASLR moved)."""
        moved = {name: address + distance & 0xFFFFFFFF for name, address in self.addresses.items()}
        return Symbols(self.origin, moved, self.ordered + distance, self.names)

    def extent(self, name: str, limit: int = 1 << 16) -> tuple[int, int] | None:
        """Where *name* begins and the next symbol does, at most *limit* bytes on."""
        start = self.addresses.get(name)
        if start is None:
            return None
        at = int(np.searchsorted(self.ordered, start, "right"))
        end = int(self.ordered[at]) if at < len(self.ordered) else start + limit
        return start, min(end, start + limit)

    def name_of(self, address: int, farthest: int = 1 << 20) -> str | None:
        """*address* as ``name+0x10``, None if no symbol is near before it."""
        at = int(np.searchsorted(self.ordered, address, "right")) - 1
        if at < 0 or address - int(self.ordered[at]) >= farthest:
            return None
        distance = address - int(self.ordered[at])
        return self.names[at] + (f"+{distance:#x}" if distance else "")


def load_symbols(path: str) -> Symbols:
    """The symbols in a file: an ELF kernel with a symbol table, or lines ``address type name``.

    Raises InputError for what is neither, UsageError where pyelftools is needed and missing.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(4)
    except OSError as error:
        raise InputError(path, error.strerror or "cannot be read") from None
    return _from_elf(path) if head == b"\x7fELF" else _from_text(path)


def _from_text(path: str) -> Symbols:
    file = Path(path)
    if file.stat().st_size > _LARGEST:
        raise InputError(path, "far too large for a System.map or kallsyms")
    pairs = []
    for found in _LINE.finditer(file.read_bytes()):
        address = int(found[1], 16)
        if 0 < address < 1 << 32:
            pairs.append((address, found[3].decode("ascii", "backslashreplace")))
    if not pairs:
        raise InputError(
            path,
            "has no symbol of a 32-bit kernel; kallsyms shows zeros to who is not root, and "
            "Debian's System.map is in the -dbg package",
        )
    return Symbols.of(path, pairs)


def _from_elf(path: str) -> Symbols:
    try:
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection
    except ImportError:
        raise UsageError(
            f"{path}: reading an ELF file needs pyelftools: pip install 'highmem[image]'"
        ) from None
    try:
        with open(path, "rb") as stream:
            elf = ELFFile(stream)
            table = elf.get_section_by_name(".symtab")
            if elf.elfclass != 32 or not isinstance(table, SymbolTableSection):
                raise InputError(path, "is no 32-bit ELF file with a symbol table")
            pairs = [
                (symbol["st_value"], symbol.name)
                for symbol in table.iter_symbols()
                if symbol.name and symbol["st_value"] and symbol["st_info"]["type"] in _KINDS
            ]
    except (ELFError, OSError, ValueError, KeyError) as error:
        raise InputError(path, f"is damaged: {str(error) or type(error).__name__}") from None
    if not pairs:
        raise InputError(path, "its symbol table is empty")
    return Symbols.of(path, pairs)
