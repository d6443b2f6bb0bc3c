"""The report of a page fault in kernel mode, in the kernel's own form.

Source: arch/x86/mm/fault.c, ``show_fault_oops`` and ``__die`` (5.10; the older form up to
4.20).  Registers, stack and code bytes are not modelled and not invented.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from highmem.kernel.bug import KernelPageFault, Severity
from highmem.kernel.pgtable import PAGE_SIZE
from highmem.machine.paging import PageFault

if TYPE_CHECKING:
    from highmem.kernel.kernel import Kernel

__all__ = ["kernel_page_fault"]


def kernel_page_fault(kernel: Kernel, fault: PageFault) -> KernelPageFault:
    """The exception for *fault*, with the lines that this kernel would print."""
    modern = kernel.profile.features.modern_oops_text
    code, address = fault.error_code, fault.address
    null = address < PAGE_SIZE
    if modern:
        lines = [
            f"BUG: kernel NULL pointer dereference, address: {address:08x}"
            if null
            else f"BUG: unable to handle page fault for address: {address:08x}"
        ]
        what = "instruction fetch" if code & 16 else "write access" if code & 2 else "read access"
        why = "reserved bit violation" if code & 8 else "permissions violation"
        who = "user" if code & 4 else "supervisor"
        lines.append(f"#PF: {who} {what} in kernel mode")
        lines.append(f"#PF: error_code({code:#06x}) - {why if code & 1 else 'not-present page'}")
    else:
        what = "NULL pointer dereference" if null else "paging request"
        lines = [f"BUG: unable to handle kernel {what} at {address:08x}"]
    lines.append(_tables_line(kernel, address))
    options = "".join(" SMP" if kernel.profile.smp else "")
    lines.append(f"Oops: {code:04x} [#1]{options}")
    this = kernel.context.this
    lines.append(f"CPU: {this.id} PID: {this.current.pid} Comm: {this.current.comm}")
    state: dict[str, int | str] = {"address": address, "error_code": code}
    splat = kernel.context.splat(Severity.OOPS, "do_page_fault", str(fault), state)
    kernel.log.add(splat)
    return KernelPageFault(splat, fault, "\n".join(lines))


def _tables_line(kernel: Kernel, address: int) -> str:
    """``*pde = … *pte = …`` (``*pdpt`` first on PAE), as far as the walk got."""
    digits = 16 if kernel.profile.pae else 8
    names = ["*pdpt", "*pde", "*pte"] if kernel.profile.pae else ["*pde", "*pte"]
    steps = kernel.walk(address).steps
    return " ".join(
        f"{name} = {step.entry:0{digits}x}" for name, step in zip(names, steps, strict=False)
    )
