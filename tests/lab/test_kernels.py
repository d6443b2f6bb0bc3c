from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from highmem import lab
from highmem.errors import InputError, UsageError
from highmem.lab.apt import PrivateApt
from highmem.lab.aptsources import debian_sources, lab_sources
from support import lab_files
from support.lab_archive import Archive

needs_apt = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("apt-get", "dpkg-deb")),
    reason="no apt and dpkg here",
)


def quiet(_line: str) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "highmem" / "lab"


@pytest.fixture
def archive(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    folder = tmp_path / "archive"
    folder.mkdir()
    made = Archive(folder)
    listed = tmp_path / "sources.list"
    listed.write_text(f"deb http://example.org/ubuntu noble main\n{made.source}")
    monkeypatch.setattr("highmem.lab.apt._source_lists", lambda: [listed])
    return made


# -- from a mirror, by the real apt -----------------------------------------------------------


@needs_apt
def test_a_kernel_comes_from_the_mirror_into_the_cache(archive: Archive, cache: Path) -> None:
    archive.kernel("6.1.0-50-686", "6.1.176-1")
    archive.index()
    assert lab.kernels_here() == []
    offered = lab.offers(progress=quiet)
    assert [(o.name, o.release, o.version) for o in offered] == [
        ("6.1-686", "6.1.0-50-686", "6.1.176-1")
    ]
    kernel = lab.find_kernel("6.1-686", progress=quiet)
    assert (kernel.name, kernel.release, kernel.bits) == ("6.1-686", "6.1.0-50-686", 32)
    assert kernel.vmlinuz.read_bytes() == lab_files.bzimage(release="6.1.0-50-686")
    assert kernel.modules is not None
    assert (kernel.modules / "kernel/drivers/virtio/virtio.ko").is_file()
    names = {path.name for path in kernel.vmlinuz.parent.iterdir()}
    assert names == {"vmlinuz", "config", "System.map", "modules", "kernel.json"}
    assert lab.kernels_here() == [kernel]
    assert lab.find_kernel("6.1.0-50-686", progress=quiet) == kernel


@needs_apt
def test_what_is_here_is_kept_and_not_asked_for_again(archive: Archive) -> None:
    archive.kernel("6.1.0-49-686", "6.1.170-3")
    archive.index()
    old = lab.find_kernel("6.1-686", progress=quiet)
    archive.kernel("6.1.0-50-686", "6.1.176-1")
    archive.index()
    assert lab.find_kernel("6.1-686", progress=quiet) == old
    new = lab.find_kernel("6.1-686", progress=quiet, newest=True)
    assert new.release == "6.1.0-50-686"
    assert lab.kernels_here() == [new, old]
    assert lab.find_kernel("6.1-686", progress=quiet) == new
    assert lab.find_kernel("6.1.0-49-686", progress=quiet) == old


@needs_apt
@pytest.mark.parametrize("what", ["gone", "cut", "other"])
def test_a_download_that_is_not_whole_is_never_used(
    archive: Archive, cache: Path, what: str
) -> None:
    archive.kernel("5.10.0-32-686", "5.10.223-1")
    broken = archive.kernel("5.10.0-46-686", "5.10.262-1")
    archive.index()
    content = broken.read_bytes()
    if what == "gone":
        broken.unlink()
    elif what == "cut":
        broken.write_bytes(content[: len(content) // 2])
    else:
        broken.write_bytes(content[:-9000] + b"x" + content[-8999:])
    said: list[str] = []
    kernel = lab.find_kernel("5.10-686", progress=said.append)
    # The next older one is taken, and it is said why.
    assert kernel.release == "5.10.0-32-686"
    assert any("looking for an older one" in line for line in said)
    assert [path.name for path in (cache / "kernels").iterdir()] == ["5.10.0-32-686_5.10.223-1"]
    with pytest.raises(lab.LabError, match=r"5\.10\.0-46-686 cannot be had"):
        lab.find_kernel("5.10.0-46-686", progress=quiet)


@needs_apt
@pytest.mark.parametrize("what", ["cut", "other"])
def test_a_file_that_was_cut_after_apt_had_checked_it_is_not_used(
    archive: Archive, cache: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    archive.kernel("6.1.0-50-686", "6.1.176-1")
    archive.index()
    lab.offers(progress=quiet)
    run = PrivateApt._run

    def tampering(
        self: PrivateApt, command: list[str], timeout: float, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = run(self, command, timeout, cwd)
        for path in (cwd or Path("/nonexistent")).glob("*.deb"):
            content = path.read_bytes()
            path.unlink()  # apt may have made it a link to the mirror's own
            path.write_bytes(content[:-1] if what == "cut" else content[:-1] + b"x")
        return done

    monkeypatch.setattr(PrivateApt, "_run", tampering)
    with pytest.raises(lab.LabError, match=r"cut off|not what the archive says"):
        lab.find_kernel("6.1-686", progress=quiet)
    assert list((cache / "kernels").iterdir()) == []


@needs_apt
def test_a_package_that_lacks_a_kernel_is_not_used(archive: Archive, cache: Path) -> None:
    archive.package("linux-image-686", "6.1.1-1", {}, "linux-image-6.1.0-1-686 (= 6.1.1-1)")
    archive.package("linux-image-6.1.0-1-686", "6.1.1-1", {"boot/readme": b"empty\n"})
    archive.index()
    with pytest.raises(lab.LabError, match="there is no vmlinuz in it"):
        lab.find_kernel("6.1-686", progress=quiet)
    assert list((cache / "kernels").iterdir()) == []


@needs_apt
def test_busybox_comes_from_the_mirror(archive: Archive) -> None:
    archive.package("busybox-static", "1.35-4", {"bin/busybox": lab_files.busybox()})
    archive.index()
    path = lab.find_busybox(progress=quiet)
    assert path.read_bytes() == lab_files.busybox()
    (archive.folder / "pool" / "busybox-static_1.35-4_i386.deb").unlink()
    assert lab.find_busybox(progress=quiet) == path


@needs_apt
def test_a_mirror_without_kernels_is_one_line(archive: Archive) -> None:
    archive.package("other", "1", {})
    archive.index()
    assert lab.offers(progress=quiet) == []
    with pytest.raises(lab.LabError, match=r"kernel 6\.1-686 cannot be had"):
        lab.find_kernel(progress=quiet)
    with pytest.raises(lab.LabError, match="no busybox-static"):
        lab.find_busybox(progress=quiet)


@needs_apt
def test_apt_reads_the_sources_as_they_are_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "debian.sources"
    listed.write_text(
        "Types: deb deb-src\nURIs: http://mirror.example/debian\n"
        "Suites: trixie trixie-updates\nComponents: main non-free\n\n"
        "Types: deb\nURIs: http://security.example/debian-security\n"
        "Suites: trixie-security\nComponents: main\n"
    )
    monkeypatch.setattr("highmem.lab.apt._source_lists", lambda: [listed])
    apt = PrivateApt(tmp_path / "apt")
    apt.prepare()
    told = subprocess.run(
        ["apt-get", "update", "--print-uris"],
        env={"APT_CONFIG": str(tmp_path / "apt" / "apt.conf"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(re.findall(r"'(\S+)/InRelease'", told)) == {
        *(
            f"http://mirror.example/debian/dists/{suite}"
            for suite in ("bookworm", "bookworm-updates", "bullseye", "bullseye-updates")
        ),
        *(
            f"http://security.example/debian-security/dists/{suite}"
            for suite in ("bookworm-security", "bullseye-security")
        ),
    }


def test_a_machine_without_apt_is_told_what_to_give(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(lab.LabError, match=r"no apt-get: .*--kernel VMLINUZ"):
        lab.find_kernel(progress=quiet)


@needs_apt
def test_a_machine_without_debian_sources_is_told_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("highmem.lab.apt._source_lists", lambda: [tmp_path / "none"])
    with pytest.raises(lab.LabError, match="no source of Debian packages"):
        lab.offers(progress=quiet)


# -- sources ----------------------------------------------------------------------------------


def read(tmp_path: Path, name: str, text: str) -> list[tuple[str, bool]]:
    path = tmp_path / name
    path.write_text(text)
    return [(source.uri, source.security) for source in debian_sources([path])]


def test_debian_is_told_from_others_by_its_suites(tmp_path: Path) -> None:
    text = (
        "# deb http://commented.example/debian bookworm main\n"
        "deb http://one.example/debian/ bookworm main contrib # with a remark\n"
        "deb-src http://src.example/debian bookworm main\n"
        "deb [ arch=amd64 signed-by=/k.gpg ] http://sec.example/s bookworm-security main\n"
        "deb http://old.example/s bullseye/updates main\n"
        "deb http://u.example/ubuntu jammy main\n"
        "deb http://flat.example/ ./\n"
        "deb https://third.example/apt cloud-sdk-bookworm main\n"
        "deb http://free.example/debian bookworm non-free\n"
    )
    assert read(tmp_path, "sources.list", text) == [
        ("http://one.example/debian/", False),
        ("http://sec.example/s", True),
        ("http://old.example/s", True),
    ]


def test_stanzas_that_are_off_or_not_debian_are_passed_over(tmp_path: Path) -> None:
    text = (
        "Types: deb\nURIs: http://off.example\nSuites: stable\nComponents: main\nEnabled: no\n"
        "\n"
        "Types: deb\n# a remark\nURIs: http://a.example http://b.example\n"
        "Suites: stable stable-updates\nComponents: main\n"
        "\n"
        "Types: deb\nURIs: http://node.example\nSuites: nodistro\nComponents: main\n"
    )
    assert read(tmp_path, "x.sources", text) == [
        ("http://a.example", False),
        ("http://b.example", False),
    ]


def test_keys_go_along_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "x.sources"
    path.write_text(
        "Types: deb\nURIs: http://a.example\nSuites: stable\nComponents: main\n"
        "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\n"
    )
    text = lab_sources(debian_sources([path]))
    assert "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\n" in text
    assert "Suites: bookworm bookworm-updates bullseye bullseye-updates\n" in text


# -- kernels ----------------------------------------------------------------------------------


def test_a_kernel_of_ones_own_is_known_by_its_header(tmp_path: Path) -> None:
    path = lab_files.write(tmp_path / "vmlinuz", lab_files.bzimage(release="5.4.0-mine"))
    kernel = lab.own_kernel(path)
    assert (kernel.name, kernel.release, kernel.bits) == ("vmlinuz", "5.4.0-mine", 32)
    old = lab_files.write(tmp_path / "old", lab_files.bzimage(flags=1, protocol=0x20B))
    assert lab.own_kernel(old).bits == 32  # the flag came with protocol 2.12


@pytest.mark.parametrize("content", [b"", b"MZ" + bytes(0x1000), b"\x7fELF" + bytes(0x400)])
def test_what_is_no_kernel_is_said(tmp_path: Path, content: bytes) -> None:
    path = lab_files.write(tmp_path / "x", content)
    with pytest.raises(InputError, match="not a kernel that can be started"):
        lab.own_kernel(path)
    with pytest.raises(InputError, match="not a directory"):
        lab.own_kernel(lab_files.write(tmp_path / "k", lab_files.bzimage()), tmp_path / "no")


def test_a_name_that_is_no_kernel_is_refused_without_asking(cache: Path) -> None:
    with pytest.raises(UsageError, match=r"there are 6\.1-686, 6\.1-686-pae"):
        lab.find_kernel("6.6", progress=quiet)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"name": "6.1-686"}', '{"name": 3}'])
def test_rubbish_in_the_cache_is_passed_over(cache: Path, text: str) -> None:
    lab_files.write(cache / "kernels" / "bad" / "kernel.json", text.encode())
    about = {"name": "5.10-686", "release": "5.10.0-32-686", "version": "5.10.223-1"}
    lab_files.write(cache / "kernels" / "good" / "kernel.json", json.dumps(about).encode())
    assert [kernel.release for kernel in lab.kernels_here()] == ["5.10.0-32-686"]


def test_the_newest_is_the_highest_number_not_the_last_letter(cache: Path) -> None:
    for release, version in (("9", "6.1.99-1"), ("10", "6.1.176-1"), ("8", "6.1.9-1")):
        about = {"name": "6.1-686", "release": f"6.1.0-{release}-686", "version": version}
        place = cache / "kernels" / release / "kernel.json"
        lab_files.write(place, json.dumps(about).encode())
    assert [kernel.version for kernel in lab.kernels_here()] == [
        "6.1.176-1",
        "6.1.99-1",
        "6.1.9-1",
    ]


def test_a_cache_that_cannot_be_made_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(lab.LabError, match="cannot be made"):
        lab.kernels_here()
