"""Two images of one machine: which windows and mappings changed between them."""

from __future__ import annotations

from dataclasses import dataclass

from highmem.errors import UsageError
from highmem.image.maps import Change, diff_mappings
from highmem.image.view import ImageKernel
from highmem.image.windows import PermanentWindow, TemporaryWindow, Windows, read_windows

__all__ = ["ImageDiff", "WindowChange", "diff_images"]


@dataclass(frozen=True, slots=True)
class WindowChange:
    """One window that is otherwise in the second image; None is closed."""

    address: int
    before: TemporaryWindow | PermanentWindow | None
    after: TemporaryWindow | PermanentWindow | None

    @property
    def kind(self) -> str:
        """``opened``, ``closed`` or ``changed``."""
        if self.before is None:
            return "opened"
        return "closed" if self.after is None else "changed"


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """What changed; windows' entries are among the mappings too."""

    windows: tuple[WindowChange, ...]
    last_pkmap_nr: tuple[int | None, int | None]
    mappings: tuple[Change, ...]

    @property
    def changed(self) -> bool:
        """Whether anything did."""
        before, after = self.last_pkmap_nr
        return bool(self.windows or self.mappings or before != after)


def diff_images(
    before: ImageKernel, after: ImageKernel, start: int = 0, end: int = 1 << 32
) -> ImageDiff:
    """Compare two images; raises UsageError if they are of different kernels."""
    if before.known.release != after.known.release or before.root.is_pae != after.root.is_pae:
        raise UsageError(
            f"the images hold different kernels: {before.known.release or 'unknown'} and "
            f"{after.known.release or 'unknown'}"
        )
    first, second = read_windows(before), read_windows(after)
    changes = tuple(diff_mappings(before, after, start, end))
    return ImageDiff(_windows(first, second), (first.last_pkmap_nr, second.last_pkmap_nr), changes)


def _windows(before: Windows, after: Windows) -> tuple[WindowChange, ...]:
    old, new = _by_address(before), _by_address(after)
    found = []
    for address in sorted(old.keys() | new.keys(), reverse=True):
        a, b = old.get(address), new.get(address)
        if a is None or b is None or _key(a) != _key(b):
            found.append(WindowChange(address, a, b))
    return tuple(found)


def _by_address(windows: Windows) -> dict[int, TemporaryWindow | PermanentWindow]:
    found: dict[int, TemporaryWindow | PermanentWindow] = {}
    found |= {window.address: window for window in windows.temporary}
    found |= {window.address: window for window in windows.permanent}
    return found


def _key(window: TemporaryWindow | PermanentWindow) -> tuple[int, int | bool | None]:
    count = window.count if isinstance(window, PermanentWindow) else window.held
    return window.entry, count
