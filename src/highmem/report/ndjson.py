"""Verdicts as NDJSON: one envelope a line, for tools that read line by line.

Each line is a JSON object with ``schema`` (``highmem.ndjson/1``), ``type``, ``input`` (the
name of the recording) and the members of that type.  ``docs/ndjson.schema.json`` describes
them; the members are those of ``--format json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TextIO

from highmem.replay.verdict import Verdict

__all__ = ["SCHEMA", "envelopes", "write_ndjson"]

SCHEMA = "highmem.ndjson/1"

# Members of the verdict's document that are lists: one line for each of their items.
_ITEMS = {
    "cpus": "cpu",
    "tasks": "task",
    "callers": "caller",
    "held_ns": "hold",
    "held_at_end": "held",
    "findings": "finding",
}
# Members whose keys are data (reasons, kinds, depths): one line for each, with a count.
_COUNTS = {"unknown": ("unknown", "what", "times"), "depths": ("depth", "depth", "maps")}


def envelopes(verdict: Verdict) -> Iterator[dict[str, Any]]:
    """The lines of *verdict* as objects: its parts in the order of the document, then one
    line of type ``verdict`` that says that it is complete."""
    document = verdict.to_dict()
    document.pop("schema")
    name = verdict.name
    # What the document says of itself at its top goes to the last line.
    about = {k: v for k, v in document.items() if not isinstance(v, dict | list)}
    for part, value in document.items():
        if part in about:
            continue
        for kind, members in _lines(part, value):
            yield {"schema": SCHEMA, "type": kind, "input": name, **members}
    worth = [found for found in verdict.findings if found.rule.name != "lost-events"]
    yield {
        "schema": SCHEMA,
        "type": "verdict",
        "input": name,
        **about,
        "exit_code": verdict.exit_code,
        "findings": len(worth),
    }


def _lines(part: str, value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if part in _ITEMS:
        for item in value:
            yield _ITEMS[part], item
    elif part in _COUNTS:
        kind, key, count = _COUNTS[part]
        for member, number in value.items():
            yield kind, {key: int(member) if key == "depth" else member, count: number}
    else:
        yield part, value


def write_ndjson(verdict: Verdict, stream: TextIO) -> None:
    """Write the lines of *verdict* to *stream*."""
    for envelope in envelopes(verdict):
        stream.write(json.dumps(envelope, ensure_ascii=False, separators=(",", ":")) + "\n")
