"""The modelled kernel's memory as an image: both must tell the same of every window."""

from __future__ import annotations

import random
import struct

import pytest

from highmem.image.find.candidates import collect_roots
from highmem.image.find.known import read_known
from highmem.image.find.roots import find_roots
from highmem.image.view import ImageKernel
from highmem.image.windows import read_windows
from highmem.kernel.kernel import Kernel
from highmem.kernel.layout_geometry import PAGE_OFFSETS
from highmem.kernel.profile import load_profile, make_profile
from highmem.machine.entry import PRESENT, PSE
from support.image_memory import FrameSource, source_of

PROFILES = ["debian-5.10-686", "debian-5.10-686-pae", "debian-6.1-686", "debian-6.1-686-pae"]


def image_of(kernel: Kernel) -> ImageKernel:
    source = source_of(kernel.machine.memory)
    known = read_known(source, collect_roots(source, {}), ("", {}))
    return ImageKernel(source, known, kernel.profile)


@pytest.mark.parametrize("profile", [*PROFILES, "text-20", "text-41"])
def test_the_image_shows_the_windows_that_the_kernel_opened(profile: str) -> None:
    rng = random.Random(profile)
    kernel = Kernel.boot(profile, ram=2 << 30, cpus=3)
    expected, permanent = {}, {}
    for cpu in range(3):
        with kernel.on(cpu):
            for _ in range(cpu + 1):
                page = kernel.alloc_page()
                expected[kernel.kmap_atomic(page)] = page.pfn
            for _ in range(rng.randrange(4)):
                page = kernel.alloc_page()
                # kmap() may not be called inside kmap_atomic(), but the model's warning is all.
                permanent[kernel.kmap(page)] = page.pfn
    image = image_of(kernel)
    found = read_windows(image)
    assert {w.address: w.pfn for w in found.temporary} == expected
    assert {w.address: w.pfn for w in found.permanent} == permanent
    for window in found.temporary:
        assert image.window_entry(window.cpu, window.slot) == window.entry
        assert kernel.window_entry(window.cpu, window.slot) == window.entry
        assert kernel.layout.window_of(window.address) == (window.cpu, window.slot)
    assert image.kmap_prot == kernel.kmap_prot
    # Who holds what stands in variables, which the model does not put into its memory.
    assert {window.held for window in found.temporary} == {None}
    assert found.pkmap_count_at is None and {w.count for w in found.permanent} == {None}
    assert not found.findings


@pytest.mark.parametrize("profile", PROFILES)
def test_page_address_and_walks_are_the_kernels(profile: str) -> None:
    kernel = Kernel.boot(profile, ram=2 << 30, cpus=1)
    image = image_of(kernel)
    mapped, other = kernel.alloc_page(), kernel.alloc_page()
    low = kernel.alloc_page(highmem=False)
    kernel.kmap(mapped)
    image = image_of(kernel)
    for page in (mapped, other, low):
        assert image.page_address(page) == kernel.page_address(page)
        assert image.page_address(page.pfn) == kernel.page_address(page)
    address = kernel.page_address(mapped)
    assert address is not None
    for vaddr in (address, 0xC0000000, 0xC1234567, 0, 0xFFFFFFFF):
        assert image.walk(vaddr) == replace_mode(image, kernel, vaddr)


def replace_mode(image: ImageKernel, kernel: Kernel, vaddr: int) -> object:
    """The kernel's walk with the image's paging mode, which knows more address bits."""
    from highmem.machine.paging import walk

    return walk(kernel.machine.memory, image.root.mode, kernel.tables.cr3, vaddr)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_root_is_found_with_its_mode_and_page_offset(profile: str) -> None:
    kernel = Kernel.boot(profile, ram=3 << 30, cpus=1)
    roots = find_roots(source_of(kernel.machine.memory))
    assert roots[0].cr3 == kernel.tables.cr3
    assert roots[0].is_pae == kernel.profile.pae
    evidence = roots[0].evidence
    assert evidence.page_offset == 0xC0000000
    assert evidence.end == evidence.linear == kernel.layout.max_low_pfn
    assert roots[0].reasons


@pytest.mark.parametrize("split", PAGE_OFFSETS)
@pytest.mark.parametrize("pae", [False, True])
def test_other_splits_of_the_address_space_are_seen(split: str, pae: bool) -> None:
    offset = PAGE_OFFSETS[split]
    if pae and offset % (1 << 30):
        pytest.skip("CONFIG_VMSPLIT_*_OPT needs two-level tables")
    geometry = load_profile("debian-6.1-686").geometry.but(page_offset=offset)
    profile = make_profile("L1", geometry=geometry, pae=pae, nx=pae)
    kernel = Kernel.boot(profile, ram=1 << 30, cpus=1)
    image = image_of(kernel)
    assert image.root.evidence.page_offset == image.layout.PAGE_OFFSET == offset
    assert image.layout.high_memory == kernel.layout.high_memory
    assert image.layout.PKMAP_BASE == kernel.layout.PKMAP_BASE


def test_memory_without_page_tables_has_no_root() -> None:
    rng = random.Random(3)
    frames = {n: rng.randbytes(4096) for n in range(0x100, 0x180)}
    frames[0x180] = bytes(4096)
    frames[0x181] = b"\xff" * 4096
    assert find_roots(FrameSource(frames)) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_a_direct_mapping_of_small_pages_is_one_as_well(profile: str) -> None:
    # As with CONFIG_DEBUG_PAGEALLOC, or a CPU without PSE: every large page becomes a table.
    kernel = Kernel.boot(profile, ram=1 << 30, cpus=1)
    memory, mode = kernel.machine.memory, kernel.machine.mode
    directory = mode.levels[-2]
    size, place = mode.entry_size, 0x4000000
    read = memory.read64 if size == 8 else memory.read32
    write = memory.write64 if size == 8 else memory.write32
    split = 0
    for address in range(0xC0000000, kernel.layout.high_memory, 1 << directory.shift):
        step = kernel.walk(address).steps[len(mode.levels) - 2]
        assert step.address is not None
        if not step.entry & PSE:
            continue
        base, flags = step.entry & directory.large_mask, step.entry & 0x163
        count = 1 << mode.levels[-1].bits
        entries = [base + (n << 12) | flags for n in range(count)]
        memory.write(place, b"".join(entry.to_bytes(size, "little") for entry in entries))
        write(step.address, place | 0x63)
        assert read(step.address) == place | 0x63
        place, split = place + 4096, split + 1
    assert split > 200
    roots = find_roots(source_of(memory))
    assert roots[0].cr3 == kernel.tables.cr3
    assert roots[0].evidence.end == kernel.layout.max_low_pfn
    assert (roots[0].mappings.shift == 12).all()


def test_memory_full_of_directories_is_bounded() -> None:
    first = struct.pack("<1024I", *([0] * 768), *(n << 22 | 0x83 for n in range(256)))
    frames = dict.fromkeys(range(3000), first)
    roots = find_roots(FrameSource(frames))
    assert 1 <= len(roots) <= 8
    second = struct.pack("<512Q", *(n << 21 | 0x83 for n in range(512)))
    pointers = struct.pack("<4Q", 0, 0, 0, 0x1000 | PRESENT) * 128
    full = dict.fromkeys(range(1, 1500), second) | dict.fromkeys(range(1500, 3000), pointers)
    roots = find_roots(FrameSource(full))
    assert 1 <= len(roots) <= 8 and roots[0].is_pae


def test_windows_onto_frames_above_4_gib() -> None:
    kernel = Kernel.boot("debian-6.1-686-pae", ram=8 << 30, cpus=1)
    pfns = [0x100000, 0x1FFFFF, 0x180000]
    addresses = [kernel.kmap_local_page(kernel.pfn_to_page(pfn)) for pfn in pfns]
    kept = kernel.kmap(kernel.pfn_to_page(0x123456))
    image = image_of(kernel)
    found = read_windows(image)
    assert {w.address: w.pfn for w in found.temporary} == dict(zip(addresses, pfns, strict=True))
    assert [(w.address, w.pfn) for w in found.permanent] == [(kept, 0x123456)]
    assert image.mappings.translate(addresses).tolist() == [pfn << 12 for pfn in pfns]
    assert image.page_address(0x123456) == kept
    assert not found.findings
