"""``highmem replay``: the calls of a recording, done again by the exact model and judged.

:func:`replay` is the front door.  Inside, ``detect`` finds the profile, ``_engine`` judges
what is plain on arrays and hands the rest over the ``bridge`` to ``reference``, which drives
the exact model: ``flights`` pairs entries with returns, ``nesting`` (stack and local era),
``typed`` and ``permanent`` predict and judge, ``unmaps`` applies the rules, ``doubt`` holds
back what later events may excuse, ``verdict`` is the result.
"""

from __future__ import annotations

from typing import Protocol

from highmem.compiled import load
from highmem.kernel.profile import Era, Profile
from highmem.replay.detect import Evidence, detect
from highmem.replay.mappings import LayoutSink, MappingSink
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict
from highmem.trace.schema import Batch, Strings, TraceSource

__all__ = ["COMPILED", "Engine", "Verdict", "make_engine", "replay"]

_engine = load("highmem.replay._engine")

COMPILED: bool = _engine.COMPILED
"""Whether the engine runs compiled."""

_EVENTS_TO_DETECT = 200_000
"""Events looked at to find the profile; they are held in memory until it is known."""


class Engine(Protocol):
    """Judges the events of one recording."""

    def feed(self, batch: Batch) -> None:
        """The next events."""

    def finish(self) -> Verdict:
        """The verdict, once all batches are in."""


def replay(
    source: TraceSource,
    profile: Profile | None = None,
    ram: int | None = None,
    sinks: list[MappingSink] | None = None,
) -> Verdict:
    """Replay the recording *source* and judge it.

    Without *profile* it is detected from the recording.  *ram* is the machine's RAM in bytes;
    by default enough for every frame that shows at the start, and at least 2 GiB.  *sinks* get
    every mapping (see ``mappings``) as it is closed.  Raises
    InputError from the reader and UsageError where no known kernel fits.
    """
    batches = iter(source)
    held: list[Batch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= _EVENTS_TO_DETECT:
            break
    if profile is None:
        profile, evidence, how = detect(held, source.account.release)
    else:
        how = "given"
        evidence = Evidence()
        for batch in held:
            evidence.add(batch)
        evidence.settle()
    verdict = Verdict(source.name, source.format, profile, how, source.account)
    for sink in sinks or ():
        if isinstance(sink, LayoutSink):
            sink.begin(profile.layout(ram or evidence.ram))
    engine = make_engine(profile, ram or evidence.ram, source.strings, verdict, sinks)
    held.reverse()
    while held:  # and let go of each: a reader may fill its memory again
        engine.feed(held.pop())
    for batch in batches:
        engine.feed(batch)
    return engine.finish()


def make_engine(
    profile: Profile,
    ram: int,
    strings: Strings,
    verdict: Verdict,
    sinks: list[MappingSink] | None = None,
) -> Engine:
    """What judges a recording: feed it batches, then ask it to finish.

    The typed era, whose windows do not nest, is judged by the reference alone.
    """
    reference = Reference(profile, ram, strings, verdict, sinks)
    if profile.era is Era.TYPED:
        return reference
    engine: Engine = _engine.Engine(reference)
    return engine
