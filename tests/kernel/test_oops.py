"""What the kernel prints (arch/x86/mm/fault.c), and complaints as values."""

from __future__ import annotations

import pytest

from highmem.kernel.bug import (
    KernelBug,
    KernelLog,
    KernelOops,
    KernelPageFault,
    NotAnAddressError,
    Severity,
    Splat,
)
from highmem.kernel.kernel import Kernel
from support.kernel_machine import boot, high_pages


def report(kernel: Kernel, address: int, *, write: bool = False) -> list[str]:
    with pytest.raises(KernelPageFault) as caught:
        if write:
            kernel.write32(address, 1)
        else:
            kernel.read32(address)
    assert str(caught.value) == caught.value.report
    assert caught.value.fault.address == address
    return caught.value.report.splitlines()


def test_modern_report() -> None:
    kernel = Kernel.boot("debian-5.10-686", cpus=2)
    page = high_pages(kernel, 1)[0]
    with kernel.on(1, kernel.spawn("cp", pid=321)):
        address = kernel.kmap_atomic(page)
        kernel.kunmap_atomic(address)
        lines = report(kernel, address + 0x123, write=True)
    directory = kernel.walk(address).steps[0].entry
    assert lines == [
        "BUG: unable to handle page fault for address: fffa7123",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0002) - not-present page",
        f"*pde = {directory:08x} *pte = 00000000",
        "Oops: 0002 [#1] SMP",
        "CPU: 1 PID: 321 Comm: cp",
    ]
    splat = kernel.log.splats[-1]
    assert (splat.severity, splat.cpu, splat.task) == (Severity.OOPS, 1, "cp/321")
    assert splat.state == {"address": 0xFFFA7123, "error_code": 2}


def test_report_of_a_read_only_window_with_pae() -> None:
    kernel = boot("S4", True, nr_cpus=1, cpus=1)
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic_prot(page, 0x161)
    lines = report(kernel, address, write=True)
    assert lines[1:3] == [
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0003) - permissions violation",
    ]
    steps = [step.entry for step in kernel.walk(address).steps]
    assert lines[3] == "*pdpt = {:016x} *pde = {:016x} *pte = {:016x}".format(*steps)
    assert lines[4] == "Oops: 0003 [#1]"


@pytest.mark.parametrize(("family", "first"), [
    ("S4", "BUG: kernel NULL pointer dereference, address: 00000010"),
    ("S3", "BUG: unable to handle kernel NULL pointer dereference at 00000010"),
])  # fmt: skip
def test_the_page_address_of_a_high_page_is_null(family: str, first: str) -> None:
    kernel = boot(family)
    assert kernel.page_address(high_pages(kernel, 1)[0]) is None
    lines = report(kernel, 0x10)
    assert lines[0] == first
    assert "*pde = 00000000" in lines


def test_older_report() -> None:
    kernel = boot("S0")
    address = kernel.layout.PKMAP_BASE
    lines = report(kernel, address)
    assert lines[0] == f"BUG: unable to handle kernel paging request at {address:08x}"
    assert lines[1].endswith("*pte = 00000000")
    assert lines[2] == "Oops: 0000 [#1] SMP"


def test_every_access_reports() -> None:
    kernel = boot("S4")
    page = high_pages(kernel, 1)[0]
    address = kernel.kmap_atomic(page)
    kernel.write8(address + 5, 0xAB)
    kernel.write(address + 6, b"\xcd\xef")
    assert kernel.read8(address + 5) == 0xAB
    assert kernel.read(address + 4, 4) == b"\0\xab\xcd\xef"
    kernel.kunmap_atomic(address)
    for access in (
        lambda: kernel.read8(address),
        lambda: kernel.write8(address, 1),
        lambda: kernel.read(address, 4),
        lambda: kernel.write(address, b"1234"),
    ):
        with pytest.raises(KernelPageFault):
            access()


def test_a_write_over_the_end_of_a_window_reaches_the_neighbour() -> None:
    """I25: higher addresses are lower slots."""
    kernel = boot("S4")
    above, below = high_pages(kernel, 2)
    kernel.kmap_atomic(above)
    address = kernel.kmap_atomic(below)
    kernel.write(address + 0xFFC, b"overflow")
    assert kernel.machine.memory.read(above.pfn << 12, 4) == b"flow"
    only = boot("S4")
    page = high_pages(only, 1)[0]
    address = only.kmap_atomic(page)
    with pytest.raises(KernelPageFault):
        only.write(address + 0xFFC, b"overflow")


def test_splat_as_text() -> None:
    splat = Splat(Severity.BUG, "f", "a < b", 2, "cp/7", {"idx": 3, "vaddr": 0xFFFBB000, "n": "x"})
    text = "kernel BUG in f() on CPU 2, task cp/7: a < b [idx=3, vaddr=0xfffbb000, n=x]"
    assert str(splat) == text
    assert str(KernelBug(splat)) == text
    assert isinstance(KernelBug(splat), KernelOops)
    assert str(Splat(Severity.WARN, "f", "c", 0, "t")) == "WARNING in f() on CPU 0, task t: c"


def test_log_counts_what_warn_on_once_keeps_to_itself() -> None:
    log = KernelLog()
    splat = Splat(Severity.WARN, "f", "c", 0, "t")
    log.add_once("here", splat)
    log.add_once("here", splat)
    log.add_once("there", splat)
    log.add(splat)
    assert (len(log), log.silent_repeats, list(log)) == (3, 1, [splat] * 3)


def test_not_an_address_is_a_type_error_that_quotes_the_check() -> None:
    error = NotAnAddressError("kunmap_local")
    assert isinstance(error, TypeError)
    assert "kunmap_local() takes the address" in str(error)
    assert "BUILD_BUG_ON" in str(error)


@pytest.mark.parametrize("pae", [False, True])
def test_stale(pae: bool) -> None:
    kernel = boot("S4", pae)
    page, other = high_pages(kernel, 2)
    address = kernel.kmap_atomic(page)
    assert not kernel.stale(address)  # never touched
    kernel.read32(address)
    assert not kernel.stale(address)
    where = kernel.temporary.pte_of(0)
    kernel.ptes.set_pte(where, kernel.ptes.pfn_pte(other.pfn, kernel.kmap_prot))
    assert kernel.stale(address + 0x10)  # another frame
    kernel.ptes.pte_clear(where)
    assert kernel.stale(address) and not kernel.stale(address, cpu=1)
    kernel.context.this.cpu.invlpg(address)
    assert not kernel.stale(address)
    # A translation of a large page that is still right.
    kernel.read32(0xC0812345)
    assert not kernel.stale(0xC0812345)
