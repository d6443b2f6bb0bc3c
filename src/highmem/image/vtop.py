"""One address at a time: its walk level by level, and what lies there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from highmem.errors import BusError, UsageError
from highmem.image.maps import Places
from highmem.image.view import ImageKernel
from highmem.machine.paging import Step

__all__ = ["Translation", "parse_address", "translate"]

_NAMED = re.compile(r"([A-Za-z_.$][\w.$]*)(?:\+(0[xX][0-9a-fA-F]+|\d+))?")


@dataclass(frozen=True, slots=True)
class Translation:
    """The walk of one linear address."""

    address: int
    physical: int | None
    page_size: int
    steps: tuple[Step, ...]
    failure: str | None
    """Why there is no translation."""
    place: str
    symbol: str | None
    page: int | None
    """Address of the frame's ``struct page``."""


def parse_address(kernel: ImageKernel, text: str) -> int:
    """An address: hex with or without 0x, or a symbol with an optional ``+offset``.

    Raises UsageError.
    """
    if re.fullmatch(r"(0[xX])?[0-9a-fA-F]+", text):
        value = int(text, 16)
    else:
        named = _NAMED.fullmatch(text)
        if named is None:
            raise UsageError(f"{text!r} is neither an address in hex nor a symbol")
        base = kernel.symbol(named[1])
        if base is None:
            raise UsageError(f"no symbol {named[1]!r}: the image and --symbols do not know it")
        value = base + int(named[2] or "0", 0)
    if value >= 1 << 32:
        raise UsageError(f"{text} is no 32-bit linear address")
    return value


def translate(kernel: ImageKernel, address: int) -> Translation:
    """The walk of *address*, with the names of what is there."""
    place = Places(kernel).name(address)
    # Only what the kernel's own image has can have a symbol's name.
    symbol = kernel.known.name_of(address) if address in kernel.known.data else None
    try:
        walked = kernel.walk(address)
    except BusError as error:
        return Translation(address, None, 0, (), str(error), place, symbol, None)
    failure = (
        None if walked.failure is None else f"{walked.leaf.level.name}: {walked.failure.value}"
    )
    page = None
    if walked.physical is not None:
        struct = kernel.pfn_to_page(walked.physical >> 12)
        page = None if struct is None else struct.address
    return Translation(
        address, walked.physical, walked.page_size, walked.steps, failure, place, symbol, page
    )
