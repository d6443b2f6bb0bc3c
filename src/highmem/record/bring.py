"""What the script brings back from another machine: a folder, or a tar of one."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path

from highmem.errors import InputError, UsageError
from highmem.trace.printable import printable
from highmem.trace.tracedat_write import write_tracedat

__all__ = ["convert"]

_WANTED = re.compile(
    r"per_cpu/cpu[0-9]{1,4}/(trace_pipe_raw|stats)|events/header_(page|event)"
    r"|events/[\w.-]{1,100}/[\w.-]{1,100}/format|saved_cmdlines|kallsyms|trace_clock|version"
)
_MEMBERS_LIMIT = 100_000
_SIZE_LIMIT = 1 << 36


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str]) -> int:
    """Write *source*, a folder or a tar that the script made, as the trace.dat *out*.

    Returns the bytes of *out*.  Raises InputError for what is no such recording, UsageError
    where *out* cannot be written.
    """
    if os.path.isdir(source):
        return write_tracedat(source, out)
    target = Path(out)
    try:
        folder = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    name = printable(os.fsencode(source))
    try:
        _unpack(os.fspath(source), name, Path(folder))
        return write_tracedat(folder, out)
    except InputError as error:
        raise InputError(name, error.cause, error.where) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(source: str, name: str, folder: Path) -> None:
    """The files of a recording that the tar *source* has, and nothing else that is in it."""
    try:
        with tarfile.open(source, "r|*") as tar:
            left = _SIZE_LIMIT
            for number, member in enumerate(tar):
                inside = member.name.removeprefix("./")
                if number > _MEMBERS_LIMIT or left < member.size:
                    raise InputError(name, "too large for a recording")
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None or not _WANTED.fullmatch(inside):
                    continue
                left -= member.size
                place = folder / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                with open(place, "wb") as copy:
                    shutil.copyfileobj(stream, copy)
    except FileNotFoundError:
        raise InputError(name, "no such file") from None
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        cause = f"no tar of a recording, or cut off: {printable(str(error), 100)}"
        raise InputError(name, cause) from None
    except OSError as error:
        cause = printable(str(error.strerror or error), 100)
        raise InputError(name, f"cannot be unpacked: {cause}") from None
