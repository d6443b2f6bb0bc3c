from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.errors import InputError, UsageError
from highmem.lab.cache import cache_folder
from highmem.lab.cpio import CpioWriter
from support.lab_cpio import Entry, read_newc


def written(*, tree: Path | None = None, files: dict[str, bytes] | None = None) -> bytes:
    stream = io.BytesIO()
    archive = CpioWriter(stream)
    for name, content in (files or {}).items():
        archive.data(name, content)
    if tree is not None:
        archive.tree(tree)
    archive.finish()
    return stream.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "etc" / "deep").mkdir(parents=True)
    (folder / "etc" / "deep").chmod(0o700)
    (folder / "etc" / "empty").touch()
    (folder / "etc" / "deep" / "run").write_bytes(b"#!/bin/sh\n" * 500)
    (folder / "etc" / "deep" / "run").chmod(0o755)
    (folder / "link").symlink_to("etc/deep/run")
    (folder / "dirlink").symlink_to("etc")
    return folder


def test_a_tree_is_written_with_its_modes_and_links(tree: Path) -> None:
    entries = {entry.name: entry for entry in read_newc(written(tree=tree))}
    assert set(entries) == {
        *("dirlink", "etc", "etc/deep", "etc/deep/run", "etc/empty", "link"),
    }
    assert entries["etc/deep"].mode == stat.S_IFDIR | 0o700
    assert entries["etc/deep/run"].mode == stat.S_IFREG | 0o755
    assert entries["etc/deep/run"].content == b"#!/bin/sh\n" * 500
    assert entries["link"].content == b"etc/deep/run"
    assert stat.S_ISLNK(entries["dirlink"].mode) and entries["dirlink"].content == b"etc"
    assert entries["etc/empty"].content == b""


def test_a_directory_comes_before_what_is_in_it() -> None:
    names = [entry.name for entry in read_newc(written(files={"a/b/c": b"x", "a/d": b"y"}))]
    assert names == ["a", "a/b", "a/b/c", "a/d"]


def test_a_device_has_its_numbers() -> None:
    stream = io.BytesIO()
    archive = CpioWriter(stream)
    archive.device("dev/console", 5, 1)
    archive.finish()
    console = read_newc(stream.getvalue())[-1]
    assert (console.mode, console.major, console.minor) == (stat.S_IFCHR | 0o600, 5, 1)


_CONTENT = st.dictionaries(
    st.text("abc", min_size=1, max_size=9), st.binary(max_size=40), max_size=8
)


@given(_CONTENT)
def test_what_was_written_is_read_back_whole(files: dict[str, bytes]) -> None:
    entries = read_newc(written(files=files))
    assert [(entry.name, entry.content) for entry in entries] == list(files.items())
    assert len({entry.inode for entry in entries}) == len(entries)


@pytest.mark.parametrize("name", ["../up", "a/../../b"])
def test_a_name_that_climbs_out_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name inside"):
        written(files={name: b""})


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="this long"):
        written(files={"x" * 5000: b""})


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    archive = CpioWriter(io.BytesIO())
    with pytest.raises(InputError, match="No such file"):
        archive.file("x", tmp_path / "none")
    with pytest.raises(InputError, match="directory"):
        archive.file("x", tmp_path)


def unpacker() -> list[str] | None:
    """A program that is not ours and unpacks such archives, if one is here."""
    if found := shutil.which("cpio"):
        return [found]
    if found := shutil.which("busybox"):
        return [found, "cpio"]
    ours = cache_folder() / "busybox" / "busybox"
    try:
        subprocess.run([ours, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [str(ours), "cpio"]


def test_cpio_itself_unpacks_the_same(tree: Path, tmp_path: Path) -> None:
    program = unpacker()
    if program is None:
        pytest.skip("neither cpio nor a busybox is here")
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        [*program, "-i", "-d"], input=written(tree=tree), cwd=out, check=True, capture_output=True
    )
    assert (out / "etc/deep/run").read_bytes() == b"#!/bin/sh\n" * 500
    assert stat.S_IMODE((out / "etc/deep/run").stat().st_mode) == 0o755
    assert os.readlink(out / "link") == "etc/deep/run"
    assert sorted(path.name for path in out.iterdir()) == ["dirlink", "etc", "link"]


def test_the_reader_of_these_tests_sees_a_wrong_archive() -> None:
    good = written(files={"a": b"12345"})
    assert read_newc(good) == [Entry("a", stat.S_IFREG | 0o644, b"12345", 1, 0, 0)]
    with pytest.raises(AssertionError):
        read_newc(good[:-4])
    with pytest.raises(AssertionError):
        read_newc(b"070702" + good[6:])
