"""Images that the lab takes of real kernels, held to QEMU's and the guest's own words.

Every kernel that is here is started (``highmem lab kernels`` says which); with
``HIGHMEM_WINDOWS`` naming a folder that examples/windows/build filled, windows.ko runs on it.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from highmem.image import ImageKernel, open_image, read_windows
from highmem.image.diff import diff_images
from highmem.image.tables import read_mappings
from highmem.image.windows import PermanentWindow
from highmem.lab import Ended, LabKernel, Result, kernels_here, run
from support.image_samples import as_info_tlb, parse_tlb, parse_windows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="no qemu-system-i386 here"),
]

KERNELS = {kernel.name: kernel for kernel in reversed(kernels_here())}
MODULES = os.environ.get("HIGHMEM_WINDOWS", "")


@pytest.fixture(params=sorted(KERNELS) or ["none"])
def kernel(request: pytest.FixtureRequest) -> LabKernel:
    if not KERNELS:
        pytest.skip("no kernel here: highmem lab run brings one")
    return KERNELS[request.param]


@contextmanager
def open_result(result: Result) -> Iterator[ImageKernel]:
    """The image that the lab took; its gigabyte does not outlive the test."""
    assert result.ended is Ended.DONE, result.why
    (image,) = result.images
    try:
        with open_image(str(image.path)) as opened:
            yield opened
    finally:
        image.path.unlink()


def check_tables(opened: ImageKernel, result: Result) -> None:
    """On every CPU, the set of (address, frame, flags) that QEMU lists, exactly."""
    (image,) = result.images
    assert len(opened.source.claims.cpus) == len(image.tlb)
    for state, listing in zip(opened.source.claims.cpus, image.tlb, strict=True):
        assert state.cr3 is not None
        mappings = read_mappings(opened.source, opened.root.mode, state.cr3)
        theirs = parse_tlb(listing.read_text())
        assert len(theirs) > 1000
        assert as_info_tlb(mappings) == theirs


def check_kernel(opened: ImageKernel, result: Result) -> None:
    """Release, profile and symbols are the guest's."""
    assert opened.known.release == result.kernel.release
    assert opened.root.what == "swapper_pg_dir"
    assert opened.root.is_pae == ("-pae" in result.kernel.name)
    assert any("confirm the windows" in note for note in opened.profile_notes)
    assert opened.known.kallsyms is not None
    said = {
        name: int(address, 16)
        for address, _, name in (
            line.split()
            for line in result.facts["kallsyms"].decode().splitlines()
            if "[" not in line  # a module's
        )
    }
    ours = opened.known.kallsyms.addresses
    assert len(ours) > 20_000
    for name in random.Random(1).sample(sorted(said), 2000):
        assert name in ours
    assert ours["kmap_high"] == said["kmap_high"]


def module_of(kernel: LabKernel) -> Path:
    module = Path(MODULES, kernel.release, "windows.ko")
    if not MODULES or not module.exists():
        pytest.skip("HIGHMEM_WINDOWS names no folder with its windows.ko: examples/windows/build")
    return module


def test_tables_and_symbols_of_a_busy_machine(kernel: LabKernel, tmp_path: Path) -> None:
    result = run(
        ("sh", "-c", "(while :; do md5sum /bin/* > /dev/null; done) & sleep 3; lab-image"),
        kernel=kernel, ram=1 << 30, kaslr=True, image=tmp_path / "busy.elf", timeout=240,
    )  # fmt: skip
    with open_result(result) as opened:
        check_tables(opened, result)
        check_kernel(opened, result)
        assert read_windows(opened).findings == (), "a kernel that does nothing wrong"


def test_exactly_the_windows_that_a_module_holds(kernel: LabKernel, tmp_path: Path) -> None:
    module = module_of(kernel)
    rng = random.Random(kernel.name)
    counts = {"permanent": rng.randint(1, 30), "temporary": rng.randint(1, 14)}
    workload = tmp_path / "image.sh"
    workload.write_text("lab-image\n")
    result = run(
        tuple(f"{word}={count}" for word, count in counts.items()),
        kernel=kernel, module=module, workload=workload, ram=1 << 30, kaslr=True,
        image=tmp_path / "held.elf", timeout=240,
    )  # fmt: skip
    said = parse_windows(result.dmesg)
    with open_result(result) as opened:
        check_tables(opened, result)
        found = read_windows(opened)
        assert {
            ("temporary", w.cpu, w.slot, w.address, w.pfn, w.page) for w in found.temporary if w.cpu
        } == {tuple(window) for window in said if window.kind == "temporary"}
        assert {
            ("permanent", None, None, w.address, w.pfn, w.page)
            for w in found.permanent
            if w.count == 2
        } == {tuple(window) for window in said if window.kind == "permanent"}
        held = {
            ("asleep", slot, opened.entry_pfn(entry))
            for task in found.asleep
            for slot, entry in enumerate(task.held)
        }
        assert held == {(w.kind, w.slot, w.pfn) for w in said if w.kind == "asleep"}
        for word, count in counts.items():
            assert sum(window.kind == word for window in said) == count
        assert found.findings == ()


def test_what_changed_is_what_the_module_gave_back(kernel: LabKernel, tmp_path: Path) -> None:
    workload = tmp_path / "twice.sh"
    workload.write_text("lab-image\nrmmod windows\nlab-image\n")
    result = run(
        ("permanent=4", "temporary=3"), kernel=kernel, module=module_of(kernel),
        workload=workload, ram=1 << 30, kaslr=True, image=tmp_path / "twice.elf", timeout=240,
    )  # fmt: skip
    said = {w.address: w for w in parse_windows(result.dmesg) if w.kind != "asleep"}
    held, after = (image.path for image in result.images)
    with open_image(str(held)) as first, open_image(str(after)) as second:
        found = diff_images(first, second)
        changed = {change.address: change for change in found.windows if change.address in said}
        for address, window in said.items():
            change = changed[address]
            assert change.before is not None and change.before.pfn == window.pfn
            # kunmap() leaves the entry for the next flush, and counts one user less.
            assert change.kind == ("closed" if window.kind == "temporary" else "changed")
            if isinstance(change.after, PermanentWindow):
                assert change.after.count == 1 and change.after.entry == change.before.entry
        assert sum(change.kind == "closed" for change in changed.values()) == 3
    for path in (held, after):
        path.unlink()
