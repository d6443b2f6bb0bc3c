"""Results of earlier runs, by content; safe to delete at any time.

One SQLite file holds two tables: what the analysis of some bytes gave, under a key that the
caller makes of everything it depends on, and which files (by path, size, time and inode) held no
call that matters, so that an unchanged tree is not even read.  Whatever goes wrong with the file
costs time, never a result: it is said in :attr:`Cache.notes`, and the run goes on without.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from pathlib import Path
from typing import Any

__all__ = ["Cache", "Stamp", "default_folder"]

_FORMAT = 1
_TOO_LARGE = 1 << 30
_SECONDS = 5.0

Stamp = tuple[int, int, int]
"""Size, time of change in ns, inode."""


def default_folder() -> Path:
    """Where caches of this user belong."""
    base = os.environ.get("XDG_CACHE_HOME") or ""
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "highmem" / "lint"


class Cache:
    """Opened for one run; :meth:`close` writes what it learned."""

    def __init__(self, folder: Path | None = None) -> None:
        self.notes: list[str] = []
        self.hits = 0
        self._put: list[tuple[bytes, bytes]] = []
        self._skipped: list[tuple[bytes, bytes, int, int, int]] = []
        self._path = (folder or default_folder()) / f"results-{_FORMAT}.sqlite3"
        self._base: sqlite3.Connection | None = None
        self._base = self._open()

    def get(self, key: bytes) -> dict[str, Any] | None:
        """What was put under *key*."""
        if self._base is None:
            return None
        try:
            row = self._base.execute(
                "SELECT document FROM results WHERE key = ?", (key,)
            ).fetchone()
            document = json.loads(zlib.decompress(row[0])) if row else None
        except (sqlite3.Error, zlib.error, ValueError, TypeError) as error:
            self._failed(error)
            return None
        if not isinstance(document, dict):
            return None
        self.hits += 1
        return document

    def put(self, key: bytes, document: dict[str, Any]) -> None:
        """Keep *document* (JSON-able) under *key*."""
        if self._base is not None:
            text = json.dumps(document, separators=(",", ":")).encode()
            self._put.append((key, zlib.compress(text, 1)))

    def skips(self, table: bytes) -> dict[str, Stamp]:
        """The files known to hold no call of the API with the digest *table*."""
        if self._base is None:
            return {}
        try:
            rows = self._base.execute(
                "SELECT path, size, time, inode FROM skips WHERE api = ?", (table,)
            )
            return {os.fsdecode(path): (size, time, inode) for path, size, time, inode in rows}
        except (sqlite3.Error, TypeError, ValueError) as error:
            self._failed(error)
            return {}

    def skip(self, table: bytes, path: str, stamp: Stamp) -> None:
        """Remember that the file at the absolute *path* holds no call of that API."""
        if self._base is not None:
            self._skipped.append((table, os.fsencode(path), *stamp))

    def close(self) -> None:
        """Write what was learned, and close the file."""
        if self._base is None:
            return
        try:
            with self._base:
                self._base.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", self._put)
                self._base.executemany(
                    "INSERT OR REPLACE INTO skips VALUES (?, ?, ?, ?, ?)", self._skipped
                )
            self._base.close()
        except sqlite3.Error as error:
            self._failed(error)
        self._base = None

    def _open(self) -> sqlite3.Connection | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > _TOO_LARGE:
                self._path.unlink()
            return self._connect()
        except sqlite3.OperationalError as error:
            self._failed(error)  # busy, read-only, disk full
            return None
        except sqlite3.DatabaseError as error:
            self._failed(error)
            return self._anew()
        except OSError as error:
            self.notes.append(f"no cache at {self._path}: {error.strerror}")
            return None

    def _anew(self) -> sqlite3.Connection | None:
        """Begin again where the file is damaged."""
        try:
            self._path.unlink(missing_ok=True)
            return self._connect()
        except (sqlite3.Error, OSError):
            return None

    def _connect(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, timeout=_SECONDS)
        try:
            # A crash may lose what this run learned, which is only time.
            base.execute("PRAGMA synchronous = OFF")
            with base:
                base.execute(
                    "CREATE TABLE IF NOT EXISTS results"
                    " (key BLOB PRIMARY KEY, document BLOB) WITHOUT ROWID"
                )
                base.execute(
                    "CREATE TABLE IF NOT EXISTS skips (api BLOB, path BLOB, size INTEGER,"
                    " time INTEGER, inode INTEGER, PRIMARY KEY (api, path)) WITHOUT ROWID"
                )
        except BaseException:
            base.close()
            raise
        return base

    def _failed(self, error: Exception) -> None:
        self.notes.append(f"the cache {self._path} is not used further: {error}")
        if self._base is not None:
            self._base.close()
        self._base = None
