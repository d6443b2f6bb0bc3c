"""Images that lie: whatever the memory holds, the answer is an answer or one line of error."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.errors import HighmemError
from highmem.image.maps import map_rows
from highmem.image.tables import read_mappings
from highmem.image.vtop import translate
from highmem.image.windows import read_windows
from support.image_memory import Overlay
from support.image_samples import SAMPLES, Sample, changed, sample


def table_frames(one: Sample) -> list[int]:
    """Physical addresses of the frames that hold page tables."""
    found = set()
    mappings = one.kernel.mappings
    for address in mappings.address[:: max(1, len(mappings) // 200)].tolist():
        found |= {(step.address or 0) >> 12 for step in one.kernel.walk(address).steps}
    for window in one.windows("temporary") | one.windows("permanent"):
        found |= {(step.address or 0) >> 12 for step in one.kernel.walk(window.address).steps}
    return sorted(frame << 12 for frame in found)


def variable_frames(one: Sample) -> list[int]:
    """Physical addresses of the frames that hold what windows are judged by."""
    kernel = one.kernel
    names = ("nr_cpu_ids", "__per_cpu_offset", "init_task", "mem_map", "high_memory", "max_mapnr",
             "__FIXADDR_TOP", "__supported_pte_mask", "__default_kernel_pte_mask")  # fmt: skip
    found = {kernel.walk(kernel.symbol(name) or 0).physical or 0 for name in names}
    found.add(kernel.walk(kernel.pkmap_count_at or 0).physical or 0)
    return sorted(found)


def garbage(rng: random.Random, one: Sample) -> dict[int, bytes]:
    patches: dict[int, bytes] = {}
    tables, variables = table_frames(one), variable_frames(one)
    for _ in range(rng.choice([1, 3, 30])):
        if rng.random() < 0.6:
            at, size = rng.choice(tables) + rng.randrange(0, 4096, 8), 8
            word = rng.choice(
                [0, rng.getrandbits(64), rng.choice(tables) | 0x67, 0xFFFFFFFFFFFFFFFF]
            )
        else:
            at, size = rng.choice(variables), rng.choice([1, 4, 8])
            word = rng.choice([0, rng.getrandbits(64), 0xFFFFFFFF, 0x7FFFFFFF, 1 << 31])
        patches[at] = (word & (1 << 8 * size) - 1).to_bytes(size, "little")
    return patches


@pytest.mark.parametrize("name", SAMPLES)
@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=25, deadline=None)
def test_overwritten_tables_and_variables_never_end_in_a_traceback(name: str, seed: int) -> None:
    rng = random.Random(seed)
    one = sample(name)
    try:
        kernel = changed(one, garbage(rng, one))
        windows = read_windows(kernel)
    except HighmemError as error:
        assert "\n" not in str(error)
        return
    for finding in windows.findings:
        assert finding.what and finding.kernel_does
    assert sum(row.size for row in map_rows(kernel)) <= 1 << 32
    for address in (0, 0xC0000000, 0xFFFFFFFF, rng.getrandbits(32)):
        translate(kernel, address)
    for window in windows.temporary[:5]:
        kernel.page_address(window.pfn)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_directory_that_holds_only_itself_is_bounded(name: str) -> None:
    one = sample(name)
    root = one.kernel.root.cr3
    size = one.kernel.root.mode.entry_size
    loop = (root | 0x23).to_bytes(size, "little") * (4096 // size)
    if one.kernel.root.is_pae:
        loop = (root | 1).to_bytes(8, "little") * 4 + loop[32:]
    mappings = read_mappings(Overlay(one.kernel.source, {root: loop}), one.kernel.root.mode, root)
    assert len(mappings) <= 1 << 20
    assert mappings.tables <= 4
