"""``highmem replay``: the calls of a recording, done again by the exact model and judged.

:func:`replay` is the front door.  Inside, ``detect`` finds the profile, ``reference`` drives
the model, ``flights`` pairs entries with returns, ``nesting`` (stack and local era),
``typed`` and ``permanent`` predict and judge, ``unmaps`` applies the rules, ``doubt`` holds
back what later events may excuse, ``verdict`` is the result.
"""

from __future__ import annotations

from itertools import chain

from highmem.kernel.profile import Profile
from highmem.replay.detect import Evidence, detect
from highmem.replay.mappings import MappingSink
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict
from highmem.trace.schema import Batch, TraceSource

__all__ = ["Verdict", "replay"]

_EVENTS_TO_DETECT = 200_000
"""Events looked at to find the profile; they are held in memory until it is known."""


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
        profile, evidence, how = detect(held)
    else:
        how = "given"
        evidence = Evidence()
        for batch in held:
            evidence.add(batch)
    verdict = Verdict(source.name, source.format, profile, how, source.account)
    engine = Reference(profile, ram or evidence.ram, source.strings, verdict, sinks)
    for batch in chain(held, batches):
        engine.feed(batch)
    return engine.finish()
