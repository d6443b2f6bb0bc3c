from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from highmem import lab
from highmem.errors import InputError
from highmem.lab.modules import ModuleTree, module_bytes, module_info, module_name
from support import lab_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "modules" / "kernel"
    for name, depends in {
        "virtio": "",
        "virtio_ring": "",
        "virtio_pci": "virtio_pci_legacy_dev,virtio,virtio-ring",
        "virtio-pci-legacy_dev": "",
        "lonely": "nobody",
        "round": "about",
        "about": "round",
    }.items():
        lab_files.write(place / "drivers" / f"{name}.ko", lab_files.module(depends))
    return tmp_path / "modules"


def test_what_a_module_needs_is_loaded_before_it(folder: Path) -> None:
    order = [module_name(path) for path in ModuleTree(folder).closure(["virtio-pci", "virtio"])]
    assert order == ["virtio_pci_legacy_dev", "virtio", "virtio_ring", "virtio_pci"]


def test_a_missing_module_is_told_with_who_needs_it(folder: Path) -> None:
    with pytest.raises(lab.LabError, match=r"no module nobody \(needed by lonely\)"):
        ModuleTree(folder).closure(["lonely"])


def test_modules_that_need_each_other_come_to_an_end(folder: Path) -> None:
    assert len(ModuleTree(folder).closure(["round"])) == 2


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".ko.gz", gzip.compress),
        (".ko.xz", lzma.compress),
        (".ko.zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_packed_modules_are_unpacked(tmp_path: Path, suffix: str, pack: object) -> None:
    assert callable(pack)
    path = lab_files.write(tmp_path / f"x{suffix}", pack(lab_files.module("y")))
    assert module_info(module_bytes(path), "x")["depends"] == "y"
    assert module_name(path) == "x" and "x" in ModuleTree(tmp_path)


@pytest.mark.parametrize("start", [b"\x1f\x8b", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"])
def test_a_packed_module_that_is_broken_is_one_line(tmp_path: Path, start: bytes) -> None:
    path = lab_files.write(tmp_path / "x.ko.xz", start + b"broken" * 9)
    with pytest.raises(InputError, match="cannot be unpacked"):
        module_bytes(path)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"#!/bin/sh", "no ELF file"),
        (lab_files.module(bits=2), "32-bit x86"),
        (lab_files.module()[:60], "modinfo"),
    ],
)
def test_what_is_no_module_is_said(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        module_info(data, "x.ko")


@given(st.integers(0, 300), st.binary(max_size=8), st.integers(0, 300))
def test_no_broken_module_is_more_than_one_line(cut: int, noise: bytes, at: int) -> None:
    data = bytearray(lab_files.module("a,b"))
    data[at : at + len(noise)] = noise
    try:
        info = module_info(bytes(data[:cut]), "x.ko")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(value, str) for value in info.values())
