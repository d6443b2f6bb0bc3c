from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from highmem.replay import Verdict, replay
from highmem.report.ndjson import envelopes, write_ndjson
from highmem.trace import read_trace

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "ndjson.schema.json").read_text("utf-8"))
MISUSE = ("clean", "leak-local", "unmap-order", "sleep-while-atomic")


def verdict_of(name: str) -> Verdict:
    return replay(read_trace(ROOT / "samples" / "misuse" / f"linux-6.1-686.{name}.trace.zst"))


def lines_of(verdict: Verdict) -> list[dict[str, Any]]:
    stream = io.StringIO()
    write_ndjson(verdict, stream)
    text = stream.getvalue()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n")[:-1]]


def test_the_schema_itself_is_valid() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", MISUSE)
def test_each_line_is_what_the_schema_says(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for line in lines_of(verdict_of(name)):
        # The branch of its own type: its errors name the member, those of oneOf do not.
        own = {"$ref": f"#/$defs/{line['type']}", "$defs": SCHEMA["$defs"]}
        errors = list(jsonschema.Draft202012Validator(own).iter_errors(line))
        assert errors == [], line
        assert validator.is_valid(line)


def test_the_schema_refuses_lines_that_are_not_ours() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(SCHEMA)
    line = next(line for line in lines_of(verdict_of("clean")) if line["type"] == "cpu")
    assert validator.is_valid(line)
    for member in line:
        assert not validator.is_valid({key: line[key] for key in line if key != member})
    assert not validator.is_valid(line | {"cpu": "0"})
    assert not validator.is_valid(line | {"type": "other"})


@pytest.mark.parametrize("name", MISUSE)
def test_nothing_of_the_document_is_left_out(name: str) -> None:
    verdict = verdict_of(name)
    document, lines = verdict.to_dict(), lines_of(verdict)
    count = Counter(line["type"] for line in lines)
    for kind, part in {
        "cpu": "cpus",
        "task": "tasks",
        "caller": "callers",
        "finding": "findings",
        "held": "held_at_end",
        "hold": "held_ns",
        "depth": "depths",
        "unknown": "unknown",
    }.items():
        assert count[kind] == len(document[part]), kind
    for kind in ("input", "profile", "predictions", "calls", "permanent", "verdict"):
        assert count[kind] == 1, kind
    found = [line for line in lines if line["type"] == "finding"]
    assert [line["what"] for line in found] == [f["what"] for f in document["findings"]]


def test_the_last_line_says_that_it_is_whole() -> None:
    verdict = verdict_of("leak-local")
    last = lines_of(verdict)[-1]
    assert last["type"] == "verdict"
    assert last["exit_code"] == 1
    assert last["findings"] == len(verdict.findings)


def test_a_name_with_line_ends_stays_on_one_line() -> None:
    verdict = verdict_of("clean")
    verdict.name = 'two\nlines\u2028"quoted"'
    assert {line["input"] for line in lines_of(verdict)} == {verdict.name}
    assert len(lines_of(verdict)) == len(list(envelopes(verdict)))
