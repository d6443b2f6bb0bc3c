"""``highmem lab``: real kernels with high memory, under QEMU, on demand.

:func:`run` is the front door: it starts a kernel, does a job on it, and gives what came of it.
Inside, ``kernels`` finds or downloads the kernel (``apt``), ``initramfs`` builds what it starts
with (``cpio``, ``modules``, ``guest``), ``vm`` is the machine, ``session`` follows it,
``snapshot`` takes its memory, ``results`` reads what it brought back, ``work`` ties them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .errors import LabError
from .job import Ended, Image, Job, Listener, Result
from .kernels import (
    DEFAULT_KERNEL,
    NAMES,
    LabKernel,
    Offer,
    find_busybox,
    find_kernel,
    kernels_here,
    offers,
    own_kernel,
)
from .vm import Machine, MachineConfig
from .work import do
from .workloads import mixed_workload

__all__ = [
    "DEFAULT_KERNEL",
    "NAMES",
    "Ended",
    "Image",
    "Job",
    "LabError",
    "LabKernel",
    "Listener",
    "Machine",
    "MachineConfig",
    "Offer",
    "Result",
    "do",
    "find_busybox",
    "find_kernel",
    "kernels_here",
    "mixed_workload",
    "offers",
    "own_kernel",
    "run",
]


def run(
    command: Sequence[str] = (),
    *,
    kernel: str | LabKernel = DEFAULT_KERNEL,
    busybox: Path | None = None,
    listener: Listener | None = None,
    **wishes: Any,
) -> Result:
    """Start *kernel*, run *command* on it, and return what came of it.

    *wishes* are the other fields of :class:`Job`: ``module=Path("x.ko")`` (then *command* is the
    module's arguments), ``workload``, ``record``, ``image``, ``cpus``, ``ram``, ``timeout`` and
    so on.  The kernel and busybox are downloaded where they are not here.  Raises LabError,
    InputError, UsageError; nothing is left behind either way.
    """
    listener = listener or Listener()
    if isinstance(kernel, str):
        kernel = find_kernel(kernel, progress=listener.progress)
    if busybox is None:
        busybox = find_busybox(progress=listener.progress)
    return do(Job(kernel, busybox, command=tuple(command), **wishes), listener)
