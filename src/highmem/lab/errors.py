"""What can go wrong in the lab."""

from __future__ import annotations

from highmem.errors import HighmemError

__all__ = ["LabError"]


class LabError(HighmemError):
    """A machine could not be built, started or asked; the text says what is missing."""
