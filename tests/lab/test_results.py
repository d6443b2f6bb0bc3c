from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from highmem import lab
from highmem.lab.results import new_disk, unpack


def disk(tmp_path: Path, members: dict[str, bytes | str], *, whole: bool = True) -> Path:
    """A disk with an archive; a member whose content is text is a symbolic link to it."""
    path = tmp_path / "disk"
    new_disk(path, 0)
    with open(path, "r+b") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in {**members, **({"zz-end": b""} if whole else {})}.items():
            about = tarfile.TarInfo(name)
            if isinstance(content, str):
                about.type, about.linkname = tarfile.SYMTYPE, content
                archive.addfile(about)
            else:
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    return path


def test_a_new_disk_takes_no_space(tmp_path: Path) -> None:
    new_disk(tmp_path / "disk", 1 << 30)
    about = (tmp_path / "disk").stat()
    assert about.st_size > 1 << 31 and about.st_blocks == 0
    with pytest.raises(lab.LabError, match="cannot be made"):
        new_disk(tmp_path / "disk", 0)


def test_facts_and_folders_are_told_apart(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"./dmesg": b"log", "./recording/per_cpu/cpu0/x": b"raw"}
    facts = unpack(disk(tmp_path, members), tmp_path / "back")
    assert facts == {"dmesg": b"log"}
    assert (tmp_path / "back/recording/per_cpu/cpu0/x").read_bytes() == b"raw"


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/absolute"])
def test_a_name_that_leads_out_writes_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(lab.LabError, match="leads out"):
        unpack(disk(tmp_path, {name: b"x"}), tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) in (["disk"], ["back", "disk"])


def test_links_are_passed_over(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"a/link": "/etc", "a/link/passwd": b"x"}
    unpack(disk(tmp_path, members), tmp_path / "back")
    assert not (tmp_path / "back/a/link").is_symlink()
    assert (tmp_path / "back/a/link/passwd").read_bytes() == b"x"


@pytest.mark.parametrize("content", [b"", b"\xff" * 2048, bytes(1 << 16)])
def test_a_disk_without_an_archive_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "disk"
    path.write_bytes(content)
    with pytest.raises(lab.LabError, match="brought back"):
        unpack(path, tmp_path / "back")


def test_an_archive_without_its_end_is_not_whole(tmp_path: Path) -> None:
    with pytest.raises(lab.LabError, match="not whole"):
        unpack(disk(tmp_path, {"dmesg": b"log"}, whole=False), tmp_path / "back")
    (tmp_path / "cut").mkdir()
    path = disk(tmp_path / "cut", {"x/y": b"z" * 9000})
    with open(path, "r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(lab.LabError, match="brought back"):
        unpack(path, tmp_path / "back")
