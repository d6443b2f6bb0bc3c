"""Which files belong together: ``compile_commands.json``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from highmem.errors import InputError

__all__ = ["compiled_sources"]

_LIMIT = 1 << 30


def compiled_sources(path: str) -> list[str]:
    """The C sources that a compilation database names, each once, by name.

    The format is Clang's *JSON Compilation Database*.  InputError where the file is none.
    """
    try:
        if Path(path).stat().st_size > _LIMIT:
            raise InputError(path, "too large for a compilation database")
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InputError(path, "not a compilation database: not JSON") from None
    if not isinstance(document, list):
        raise InputError(path, "not a compilation database: not a list of commands")
    here = os.path.dirname(os.path.abspath(path))
    found = set()
    for number, entry in enumerate(document):
        name = entry.get("file") if isinstance(entry, dict) else None
        folder = entry.get("directory", "") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not isinstance(folder, str):
            raise InputError(path, "an entry without file and directory", f"entry {number}")
        if name.endswith((".c", ".h")):
            found.add(os.path.normpath(os.path.join(here, folder, name)))
    return sorted(found)
