"""Against QEMU: one stopped machine, written in each of its formats."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import zstandard

from highmem.image.formats.opening import open_source
from highmem.image.formats.source import ImageSource, iter_chunks
from support.image_qemu import (
    DIRECTORY,
    PATTERN,
    PATTERN_AT,
    QEMU,
    QEMU_64,
    Machine,
    stopped_machine,
)
from support.image_reading import check_source

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(QEMU is None, reason="qemu-system-i386 is not installed"),
]

RAM = ((0, 0xA0000), (0x100000, 16 << 20))  # what -m 16 gives a PC; the hole is the graphics card


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("qemu")


@pytest.fixture(scope="module")
def machine(folder: Path) -> Iterator[Machine]:
    with stopped_machine(folder) as machine:
        yield machine


@pytest.fixture(scope="module")
def truth(machine: Machine, folder: Path) -> bytes:
    return machine.raw(folder / "raw").read_bytes()


def check_against(source: ImageSource, truth: bytes) -> None:
    check_source(source)
    assert source.notes == () and not source.damaged
    for start, end in RAM:
        assert source.read(start, end - start) == truth[start:end]
    pfns = np.arange(0, (16 << 20) // 4096)[::-1]
    frames = np.frombuffer(truth, np.uint8).reshape(-1, 4096)[pfns]
    assert np.array_equal(source.pages(pfns)[source.present(pfns)], frames[source.present(pfns)])
    assert source.read(PATTERN_AT, len(PATTERN)) == PATTERN


def check_cpu(source: ImageSource, machine: Machine) -> None:
    printed = dict(re.findall(r"(\w+)=([0-9a-f]{8})", machine.monitor("info registers")))
    (cpu,) = source.claims.cpus
    assert (cpu.cr0, cpu.cr2, cpu.cr3, cpu.cr4) == tuple(
        int(printed[name], 16) for name in ("CR0", "CR2", "CR3", "CR4")
    )
    assert cpu.cr3 == DIRECTORY
    for name in ("eip", "esp", "eax", "ebx"):
        assert cpu.registers[name] == int(printed[name.upper()], 16)
    assert source.claims.machine == "i386"


def test_raw_memory_as_pmemsave_writes_it(truth: bytes, folder: Path) -> None:
    assert truth[PATTERN_AT:][: len(PATTERN)] == PATTERN
    check_against(open_source([str(folder / "raw")]), truth)


def test_a_core_without_paging(machine: Machine, truth: bytes, folder: Path) -> None:
    source = open_source([str(machine.dump(folder / "elf"))])
    assert re.fullmatch("ELF(32|64) core", source.format)
    check_against(source, truth)
    check_cpu(source, machine)
    assert source.claims.linear_offset is None


def test_a_core_with_paging_holds_what_is_mapped(
    machine: Machine, truth: bytes, folder: Path
) -> None:
    source = open_source([str(machine.dump(folder / "paged", paging=True))])
    check_source(source)
    check_cpu(source, machine)
    # The directory maps the first 4 MiB, once at 0 and once at 3 GiB.
    assert source.claims.linear_offset == 0xC0000000
    assert source.ranges[-1].end == 4 << 20 and source.notes == ()
    for at, chunk in iter_chunks(source):
        assert chunk.tobytes() == truth[at : at + len(chunk)]
    assert source.read(PATTERN_AT, len(PATTERN)) == PATTERN


@pytest.mark.parametrize("packing", ["zlib", "lzo", "snappy"])
def test_a_kdump_of_each_packing_that_qemu_has(
    machine: Machine, truth: bytes, folder: Path, packing: str
) -> None:
    kind = f"kdump-{packing}"
    if kind not in machine.ask("query-dump-guest-memory-capability")["formats"]:
        pytest.skip(f"this QEMU does not write {kind}")
    source = open_source([str(machine.dump(folder / kind, kind))])
    assert source.format.startswith(f"kdump ({packing})")
    check_against(source, truth)
    check_cpu(source, machine)
    core = open_source([str(machine.dump(folder / f"{packing}.elf"))])
    assert source.ranges == core.ranges
    assert [chunk.tobytes() for _, chunk in iter_chunks(source)] == [
        chunk.tobytes() for _, chunk in iter_chunks(core)
    ]


@pytest.mark.skipif(QEMU_64 is None, reason="qemu-system-x86_64 is not installed")
def test_a_64_bit_machine_has_other_structures(tmp_path: Path) -> None:
    with stopped_machine(tmp_path, long_mode=True) as machine:
        truth = machine.raw(tmp_path / "raw").read_bytes()
        rip = re.search("[ER]IP=([0-9a-f]+)", machine.monitor("info registers"))
        core = open_source([str(machine.dump(tmp_path / "elf"))])
        dump = open_source([str(machine.dump(tmp_path / "kdump", "kdump-zlib"))])
    assert (core.format, dump.format[:12]) == ("ELF64 core", "kdump (zlib)")
    assert rip is not None
    for source in (core, dump):
        check_against(source, truth)
        (cpu,) = source.claims.cpus
        assert (source.claims.machine, cpu.cr3) == ("x86_64", DIRECTORY)
        assert cpu.registers.get("rip", cpu.registers.get("eip")) == int(rip[1], 16)


def test_a_flattened_kdump_is_what_makedumpfile_makes_of_it(
    machine: Machine, truth: bytes, folder: Path
) -> None:
    program = shutil.which("makedumpfile")
    if program is None:
        pytest.skip("makedumpfile is not installed")
    path = machine.dump(folder / "flat", "kdump-zlib")
    if not path.read_bytes().startswith(b"makedumpfile"):
        pytest.skip("this QEMU does not write the flattened format")
    whole = folder / "whole"
    with path.open("rb") as file:
        subprocess.run([program, "-R", str(whole)], stdin=file, check=True, capture_output=True)
    flat, source = open_source([str(path)]), open_source([str(whole)])
    assert (flat.format, source.format) == ("kdump (zlib), flattened", "kdump (zlib)")
    assert flat.ranges == source.ranges
    check_against(source, truth)
    check_against(flat, truth)


def test_a_compressed_core_is_the_core(machine: Machine, truth: bytes, folder: Path) -> None:
    packed = folder / "core.zst"
    core = machine.dump(folder / "core").read_bytes()
    packed.write_bytes(zstandard.ZstdCompressor(level=1).compress(core))
    source = open_source([str(packed)])
    check_against(source, truth)
    check_cpu(source, machine)
