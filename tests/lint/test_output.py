from __future__ import annotations

import io
import json
import os
import re
import urllib.parse
from pathlib import Path

import jsonschema
import pytest
from rich.console import Console

from highmem.findings import RULES, Confidence
from highmem.lint.result import LintFinding, Step
from highmem.lint.shown.excerpt import Excerpts
from highmem.lint.shown.fingerprint import fingerprints
from highmem.lint.shown.select import Shown
from highmem.report.lint import (
    gcc_lines,
    github_lines,
    level_of,
    lint_document,
    render_lint,
    summary_lines,
)
from highmem.report.sarif import sarif_document
from support.lint_findings import SOURCE, finding, shown_of

HOSTILE = "x\x1b[31m\n::error::y"


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return "a.c"


def text_of(shown: Shown) -> str:
    stream = io.StringIO()
    render_lint(shown, Console(file=stream, width=120), Excerpts())
    return stream.getvalue()


def test_text_shows_the_path_through_the_source(where: str) -> None:
    text = text_of(shown_of(where, finding(where)))
    assert "leaked-window  a.c:6:3  in copy_one()" in text
    assert re.search(r"3 +char \*p = kmap_local_page\(page\); +mapped here", text)
    assert re.search(r"6 +return -EIO; +here", text)
    assert "read 3 files = 1 analysed + 1 without such calls + 1 rejected" in text
    assert "rejected huge.c: a line of 50 MiB" in text


def test_gcc_lines_are_what_editors_parse(where: str) -> None:
    lines = list(gcc_lines(shown_of(where, finding(where))))
    assert lines[0].startswith("a.c:6:3: error: the window")
    assert lines[0].endswith("[leaked-window]")
    assert lines[1:] == ["a.c:3:12: note: mapped here", "a.c:5:6: note: bad is true"]
    pattern = re.compile(r"^[^:]+:\d+:\d+: (error|warning|note): .+$")
    assert all(pattern.match(line) for line in lines)


def test_less_than_certain_is_no_error(where: str) -> None:
    likely = finding(where, confidence=Confidence.LIKELY)
    assert level_of(likely).value == "warning"
    assert next(gcc_lines(shown_of(where, likely))).endswith("[leaked-window, likely]")


def test_github_annotations_cannot_be_broken_out_of(where: str) -> None:
    hostile = finding(where, what=HOSTILE + " 100%", function=HOSTILE)
    lines = list(github_lines(shown_of(where, hostile)))
    assert len(lines) == 1
    assert lines[0].startswith("::error file=a.c,line=6,endLine=6,col=3,title=highmem%3A leaked")
    assert "\x1b" not in lines[0] and "100%25" in lines[0]
    message = lines[0].split("::", 2)[2]
    assert "%0A" in message and "\n" not in message


@pytest.mark.parametrize("lines", [gcc_lines, github_lines])
def test_names_and_texts_are_shown_printable(where: str, lines: object) -> None:
    odd = Path("\x1b]0;evil\x07.c")
    shown = shown_of(str(odd), finding(str(odd), what=HOSTILE, steps=(Step(3, 1, HOSTILE),)))
    text = "\n".join(lines(shown)) + text_of(shown)  # type: ignore[operator]
    assert "\x1b" not in text and "\x07" not in text


def test_json_has_everything(where: str) -> None:
    shown = shown_of(where, finding(where))
    document = json.loads(json.dumps(lint_document(shown, fingerprints(shown.findings))))
    assert document["summary"]["files"] == 3
    assert document["summary"]["shown"] == 1
    assert document["findings"][0]["steps"][0] == {"line": 3, "column": 12, "text": "mapped here"}
    assert LintFinding.from_dict(document["findings"][0]) == shown.findings[0]
    assert document["rejected"] == [{"path": "huge.c", "why": "a line of 50 MiB"}]


def test_json_is_as_the_schema_says(where: str) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "lint.schema.json").read_bytes())
    checker = jsonschema.Draft202012Validator(schema)
    one = finding(where)
    shown = Shown(
        shown_of(where, one).report, (one,), ((one, "why"),), {"of other rules": 2}, ("n",)
    )
    document = json.loads(json.dumps(lint_document(shown, fingerprints(shown.findings))))
    checker.validate(document)
    assert not checker.is_valid({**document, "more": 1})
    rules = schema["properties"]["findings"]["items"]["properties"]["rule"]["enum"]
    assert set(rules) == set(RULES)


def test_sarif_is_what_the_models_of_the_standard_accept(where: str) -> None:
    sarif = pytest.importorskip("sarif_pydantic", reason="no sarif-pydantic here")
    shown = shown_of(where, finding(where), finding(where, rule="stale-access", line=7))
    document = sarif_document(shown, fingerprints(shown.findings), Excerpts())
    log = sarif.Sarif.model_validate(document)
    run = log.runs[0]
    assert [one.rule_id for one in run.results] == ["leaked-window", "stale-access"]
    assert len(run.tool.driver.rules) == len(RULES)
    for one in run.results:
        assert run.tool.driver.rules[one.rule_index].id == one.rule_id
    flow = document["runs"][0]["results"][0]["codeFlows"][0]["threadFlows"][0]["locations"]
    assert [step["location"]["message"]["text"] for step in flow] == ["mapped here", "bad is true"]


@pytest.mark.skipif("SARIF_SCHEMA" not in os.environ, reason="no SARIF_SCHEMA=FILE given")
def test_sarif_keeps_to_the_schema_of_the_standard(where: str) -> None:
    schema = json.loads(Path(os.environ["SARIF_SCHEMA"]).read_bytes())
    one = finding(where)
    shown = Shown(
        shown_of(where, one).report, (one,), ((finding(where, line=7), "why"),), {}, ("n",)
    )
    document = sarif_document(shown, ["0"], Excerpts(), ["1"])
    jsonschema.Draft7Validator(schema).validate(document)


def test_sarif_says_which_findings_the_source_allows(where: str) -> None:
    one = finding(where)
    shown = Shown(shown_of(where, one).report, (), ((one, "known to be harmless"),))
    run = sarif_document(shown, [], Excerpts(), fingerprints([one]))["runs"][0]
    assert run["results"][0]["suppressions"] == [
        {"kind": "inSource", "justification": "known to be harmless"}
    ]


def test_sarif_columns_count_utf16_units(where: str) -> None:
    line = '\tputs("\U0001f600é"); x();'
    at = line.encode().index(b"x()") + 1
    shown = shown_of(where, finding(where, line=1, column=at, statement="x();", steps=()))
    Path(where).write_text(line + "\n", encoding="utf-8")
    run = sarif_document(shown, ["0"], Excerpts())["runs"][0]
    region = run["results"][0]["locations"][0]["physicalLocation"]["region"]
    assert region["startColumn"] == len(line[: line.index("x()")].encode("utf-16-le")) // 2 + 1


def test_sarif_paths_are_uris(where: str) -> None:
    name = "dir with blank#1.c"
    shown = shown_of(name, finding(name))
    run = sarif_document(shown, ["0"], Excerpts())["runs"][0]
    uri = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert " " not in uri and "#" not in uri
    assert urllib.parse.unquote(uri) == name


def test_what_could_not_be_analysed_is_in_the_summary(where: str) -> None:
    lines = list(summary_lines(shown_of(where)))
    assert "rejected huge.c: a line of 50 MiB" in lines
    assert lines[-1].startswith("lint: nothing found")


def test_fingerprints_stay_when_lines_move_and_differ_among_alike(where: str) -> None:
    Path(where).write_text(SOURCE, encoding="utf-8")
    first, moved = finding(where), finding(where, line=60, column=9)
    assert fingerprints([first]) == fingerprints([moved])
    assert len(set(fingerprints([first, moved]))) == 2
    assert fingerprints([finding(where, function="other")]) != fingerprints([first])
    assert fingerprints([finding(str(Path(where).resolve()))]) == fingerprints([first])
