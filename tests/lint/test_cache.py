from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from highmem.lint.cache import Cache, default_folder

DOCUMENT = {"path": "a.c", "findings": [], "words": "ä\x1b"}


def test_what_was_put_is_there_in_the_next_run(tmp_path: Path) -> None:
    first = Cache(tmp_path)
    assert first.get(b"key") is None
    first.put(b"key", DOCUMENT)
    first.skip(b"api", "/odd/\udce4.c", (5, 6, 7))
    first.close()
    second = Cache(tmp_path)
    assert second.get(b"key") == DOCUMENT
    assert second.hits == 1
    assert second.skips(b"api") == {"/odd/\udce4.c": (5, 6, 7)}
    assert second.skips(b"other api") == {}
    second.close()
    assert first.notes == second.notes == []


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_cache_costs_time_only(tmp_path: Path, content: bytes) -> None:
    first = Cache(tmp_path)
    first.put(b"key", DOCUMENT)
    first.close()
    (file,) = tmp_path.glob("*.sqlite3")
    file.write_bytes(content)
    damaged = Cache(tmp_path)
    assert damaged.get(b"key") is None
    damaged.put(b"key", DOCUMENT)
    damaged.close()
    third = Cache(tmp_path)
    assert third.get(b"key") == DOCUMENT
    third.close()


def test_a_damaged_entry_is_no_result(tmp_path: Path) -> None:
    first = Cache(tmp_path)
    first.put(b"key", DOCUMENT)
    first.close()
    (file,) = tmp_path.glob("*.sqlite3")
    with sqlite3.connect(file) as base:
        base.execute("UPDATE results SET document = ?", (b"not zlib",))
    base.close()
    second = Cache(tmp_path)
    assert second.get(b"key") is None
    second.close()
    assert len(second.notes) == 1


def test_a_busy_cache_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("highmem.lint.cache._SECONDS", 0.05)
    first = Cache(tmp_path)
    first.put(b"key", DOCUMENT)
    first.close()
    (file,) = tmp_path.glob("*.sqlite3")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    busy = Cache(tmp_path)
    assert busy.get(b"key") is None
    busy.close()
    assert busy.notes
    other.execute("ROLLBACK")
    other.close()
    again = Cache(tmp_path)
    assert again.get(b"key") == DOCUMENT
    again.close()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = Cache(tmp_path / "file" / "below")
    cache.put(b"key", DOCUMENT)
    assert cache.get(b"key") is None
    cache.close()
    assert len(cache.notes) == 1


def test_the_place_follows_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/highmem/lint")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder() == Path(os.path.expanduser("~/.cache/highmem/lint"))
