"""The exceptions of highmem.

::

    HighmemError                 everything that highmem raises on purpose
    ├── UsageError               the caller asked for something that makes no sense
    │   └── ProfileError         a profile that does not exist or contradicts itself
    ├── InputError               a file that cannot be read as what it should be
    ├── MachineError             the hardware model was driven outside its limits
    │   ├── PageFault            the walk refused an access (as the silicon reports it)
    │   └── BusError             an address beyond the machine's physical memory
    └── KernelOops               the modelled kernel would not have survived this
        ├── KernelBug            a BUG_ON() was hit
        ├── KernelPageFault      the kernel touched an address that is not mapped
        └── KernelDeadlock       a task waits and nothing can wake it

    NotAnAddressError            a ``struct page *`` handed to an unmap call; the kernel's
                                 own check is at compile time, so this is a TypeError

An exception of this tree has one line of text, fit to be shown to a user as it is.
``PageFault`` lives in :mod:`highmem.machine.paging` and the ``Kernel…`` family in
:mod:`highmem.kernel.bug`, beside the state that they carry.
"""

from __future__ import annotations

__all__ = [
    "BusError",
    "HighmemError",
    "InputError",
    "MachineError",
    "ProfileError",
    "UsageError",
]


class HighmemError(Exception):
    """Root of all exceptions that highmem raises on purpose."""


class UsageError(HighmemError):
    """The caller asked for something that makes no sense; the text says what to do instead."""


class ProfileError(UsageError):
    """A profile that does not exist, cannot be read, or contradicts itself."""


class InputError(HighmemError):
    """A file that cannot be read as what it should be.

    ``path`` names the input, ``where`` the place in it (a line, an offset) or is empty,
    ``cause`` says what is likely wrong.
    """

    def __init__(self, path: str, cause: str, where: str = "") -> None:
        self.path = path
        self.cause = cause
        self.where = where
        super().__init__(f"{path}{':' + where if where else ''}: {cause}")


class MachineError(HighmemError):
    """The hardware model was driven outside its limits."""


class BusError(MachineError):
    """A physical address beyond the machine's memory; ``address`` holds it."""

    def __init__(self, address: int, limit: int) -> None:
        self.address = address
        super().__init__(f"physical address {address:#x} is beyond the machine's {limit:#x} bytes")
