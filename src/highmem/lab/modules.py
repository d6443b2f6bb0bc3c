"""Modules of a kernel: what each needs, and the order in which to load them.

Debian's packages have no ``modules.dep`` (it is made when they are installed), so what a module
needs is read from the module itself: the text ``depends=`` in its section ``.modinfo``.
"""

from __future__ import annotations

import gzip
import io
import lzma
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import zstandard

from highmem.errors import InputError

from .errors import LabError

__all__ = ["ModuleTree", "module_bytes", "module_file", "module_info", "module_name", "needs"]

_SIZE_LIMIT = 256 << 20
_SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


def module_name(path: Path) -> str:
    """The kernel's name for the module in *path*: without suffix, ``-`` as ``_``."""
    return path.name.partition(".ko")[0].replace("-", "_")


def module_file(path: Path) -> str:
    """The name of the file *path* once it is unpacked."""
    return path.name.partition(".ko")[0] + ".ko"


def module_bytes(path: Path) -> bytes:
    """The module in the file *path*, unpacked.  Raises InputError."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_SIZE_LIMIT)
    except OSError as error:
        raise InputError(str(path), error.strerror or "cannot be read") from None
    try:
        return _unpacked(data)
    except (lzma.LZMAError, zlib.error, EOFError, OSError, zstandard.ZstdError) as error:
        raise InputError(str(path), f"cannot be unpacked: {error}") from None


def _unpacked(data: bytes) -> bytes:
    """*data*, or what is packed in it, as far as a module may be long."""
    stream = io.BytesIO(data)
    if data.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream).read(_SIZE_LIMIT)
    if data.startswith(b"\xfd7zXZ"):
        return lzma.LZMAFile(stream).read(_SIZE_LIMIT)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().stream_reader(stream).read(_SIZE_LIMIT)
    return data


def module_info(data: bytes, path: str) -> dict[str, str]:
    """What stands in ``.modinfo`` of the module *data*: ``depends``, ``vermagic``, and so on.

    InputError that names *path* where it is no module for a 32-bit little-endian machine.
    """
    if data[:4] != b"\x7fELF":
        raise InputError(path, "not a kernel module: no ELF file")
    if data[4:6] != b"\x01\x01":
        raise InputError(path, "not a module for 32-bit x86: the lab's kernels are i386")
    section = _section(data, b".modinfo")
    if section is None:
        raise InputError(path, "not a kernel module: it has no section .modinfo")
    info: dict[str, str] = {}
    for line in section.split(b"\0"):
        key, equals, value = line.decode("latin-1").partition("=")
        if equals:
            info.setdefault(key, value)
    return info


def _section(data: bytes, wanted: bytes) -> bytes | None:
    """The section *wanted* of the ELF32 file *data* (System V ABI, chapter 4)."""
    try:
        (table,) = struct.unpack_from("<I", data, 32)
        size, count, names = struct.unpack_from("<HHH", data, 46)
        headers = [struct.unpack_from("<10I", data, table + n * size) for n in range(count)]
        start = headers[names][4]
    except (struct.error, IndexError):
        return None
    for header in headers:
        at = start + header[0]
        if data[at : at + len(wanted) + 1] == wanted + b"\0":
            return data[header[4] : header[4] + header[5]]
    return None


class ModuleTree:
    """The modules below a *folder* such as ``/lib/modules/6.1.0-50-686``."""

    __slots__ = ("_files", "_folder")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {
            module_name(path): path
            for path in sorted(folder.rglob("*.ko*"))
            if path.name.endswith(_SUFFIXES) and path.is_file()
        }

    def __contains__(self, name: str) -> bool:
        return name.replace("-", "_") in self._files

    def __len__(self) -> int:
        return len(self._files)

    def closure(self, names: Iterable[str]) -> list[Path]:
        """The files of the modules *names* and of all they need, each after what it needs.

        LabError where one is not there.
        """
        order: dict[str, Path] = {}
        for name in names:
            self._visit(name.replace("-", "_"), order, ())
        return list(order.values())

    def _visit(self, name: str, order: dict[str, Path], above: tuple[str, ...]) -> None:
        if name in order or name in above:
            return
        path = self._files.get(name)
        if path is None:
            needed = f" (needed by {above[-1]})" if above else ""
            raise LabError(f"no module {name}{needed} below {self._folder}")
        for other in needs(module_info(module_bytes(path), str(path))):
            self._visit(other, order, (*above, name))
        order[name] = path


def needs(info: dict[str, str]) -> Iterator[str]:
    """The modules that one with *info* needs."""
    return (name.replace("-", "_") for name in info.get("depends", "").split(",") if name)
