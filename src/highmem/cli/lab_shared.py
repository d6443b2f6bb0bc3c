"""What the commands of ``highmem lab`` share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from highmem.lab import Result
    from highmem.replay import Verdict

__all__ = ["ended_by_signals", "make_progress", "verdict_of"]

_USUAL_RAM = 1 << 30


def make_progress(quiet: bool) -> Callable[[str], None]:
    """What prints a line of progress, on a terminal only."""
    from highmem.trace.printable import printable

    if quiet or not sys.stderr.isatty():
        return lambda line: None
    return lambda line: click.echo(f"lab: {printable(line)}", err=True)


def verdict_of(result: Result, ram: int, *, kept: bool) -> Verdict:
    """The verdict on the recording of *result*, of a machine with *ram* bytes.

    A recording that is not *kept* goes by the name of its kernel, not of a file soon gone.
    Where the kernel was told to divide its memory otherwise, or has so little that none would
    be high, that is left to the recording.  The profile of one of Debian's kernels is known;
    that of the user's own is detected.
    """
    from highmem.kernel.profile import load_profile
    from highmem.lab import NAMES
    from highmem.replay import replay
    from highmem.trace import read_trace
    from highmem.trace.printable import printable

    assert result.recording is not None
    name = result.kernel.name
    profile = load_profile(f"debian-{name}") if name in NAMES else None
    words = result.facts.get("cmdline", b"")
    usual = ram >= _USUAL_RAM and b"mem=" not in words and b"vmalloc=" not in words
    source = read_trace(result.recording)
    if not kept:
        source.name = printable(result.kernel.release)
    return replay(source, profile, ram if usual else None)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end this process as Ctrl-C does: by way of what cleans up."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    old = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
