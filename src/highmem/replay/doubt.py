"""Judgements that wait: one that rests on an event *not* being there is final only once a
later event of that kind has been seen.

Probes are switched on and off one after another on a running system.  After the last unmap
event of a recording, a window that stays open says nothing: the unmap's probe was off.  So
a finding that rests on a missing unmap waits for a later unmap anywhere, one that rests on
a missing map for a later return of a map function; what still waits at the end is counted
as unknown.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Doubts"]


class Doubts:
    """The judgements that wait for one kind of event."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def wait(self, confirm: Callable[[], None], drop: Callable[[], None]) -> None:
        """Call *confirm* at the next event of the kind, or *drop* if none comes."""
        self._waiting.append((confirm, drop))

    def seen(self) -> None:
        """An event of the kind is here: all that waited holds."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for confirm, _ in waiting:
                confirm()

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._waiting)

    def end(self) -> None:
        """The recording ended: what waits can not be known."""
        waiting, self._waiting = self._waiting, []
        for _, drop in waiting:
            drop()
