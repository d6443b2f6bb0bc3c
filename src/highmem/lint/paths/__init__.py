"""The paths of a function: what is known at each point, and what callers must know of it."""

from __future__ import annotations

from highmem.compiled import interpreted, load

if interpreted():
    # Each after those that it imports, which would otherwise be taken compiled.
    for _name in (
        "paths.values",
        "paths.evaluate",
        "paths.facts",
        "paths.forget",
        "paths.state",
        "paths.context",
        "rules.guards",
        "rules.windows",
        "rules.exits",
        "rules.access",
        "rules.atomic",
        "rules.calls",
        "syntax.liveness",
        "paths.interp",
    ):
        load(f"highmem.lint.{_name}")
