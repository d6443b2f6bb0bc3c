"""``highmem sql`` from its arguments to its output."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from highmem.cli.replay import replay
from highmem.cli.sql import sql
from highmem.errors import UsageError
from highmem.report.table_columns import TABLES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "sql.md").read_text("utf-8")
SAMPLE = str(ROOT / "samples" / "misuse" / "linux-6.1-686.leak-local.trace.zst")
HEADING = re.compile(r"^## (\w+)\n(.*?)(?=^## )", flags=re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", flags=re.MULTILINE)
QUERIES = re.findall(r"^```sql\n(.*?)^```", DOCUMENT, flags=re.MULTILINE | re.DOTALL)


def test_the_document_describes_every_column() -> None:
    described = {
        table: {name: (kind, text) for name, kind, text in ROW.findall(body)}
        for table, body in HEADING.findall(DOCUMENT)
        if table in TABLES
    }
    assert described == TABLES
    for table, columns in TABLES.items():
        assert list(described[table]) == list(columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("duckdb", reason="duckdb is not installed")
    path = tmp_path_factory.mktemp("tables") / "leak"
    result = CliRunner().invoke(replay, [SAMPLE, "--parquet", str(path), "--exit-zero"])
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in path.iterdir()) == sorted(f"{t}.parquet" for t in TABLES)
    return str(path)


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(sql, arguments, env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit | UsageError):
        raise result.exception
    return result


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_the_queries_of_the_document_work(folder: str, number: int) -> None:
    result = run(folder, QUERIES[number], "--format", "json")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)


def test_a_recording_and_its_folder_answer_the_same(folder: str) -> None:
    query = (
        "select cpu, count(*) as n, max(held_ns) as longest from mappings group by cpu order by cpu"
    )
    answers = [run(source, query, "--format", "ndjson").stdout for source in (SAMPLE, folder)]
    assert answers[0] == answers[1]
    assert [json.loads(line)["cpu"] for line in answers[0].splitlines()] == [0, 1]


def test_formats_agree(folder: str) -> None:
    query = "select line, cpu, comm, next_comm from events order by line limit 50"
    as_json = json.loads(run(folder, query, "--format", "json").stdout)
    as_lines = [json.loads(x) for x in run(folder, query, "--format", "ndjson").stdout.splitlines()]
    as_csv = list(csv.DictReader(io.StringIO(run(folder, query, "--format", "csv").stdout)))
    assert as_json == as_lines
    assert len(as_json) == 50
    texts = [{k: "" if v is None else str(v) for k, v in row.items()} for row in as_json]
    assert texts == as_csv
    table = run(folder, query).stdout.splitlines()
    assert table[0].split() == list(as_json[0])
    assert len(table) == 51


def test_json_of_values_that_json_does_not_have(folder: str) -> None:
    query = "select 'nan'::double a, [1, 2] b, {'x': 1.5} c, 1 a, date '2020-01-02' d, 2::hugeint e"
    (row,) = json.loads(run(folder, query, "--format", "json").stdout)
    assert row == {"a": None, "b": [1, 2], "c": {"x": 1.5}, "a_1": 1, "d": "2020-01-02", "e": 2}


def test_no_rows_is_an_empty_list(folder: str) -> None:
    query = "select * from events where false"
    assert json.loads(run(folder, query, "--format", "json").stdout) == []
    assert run(folder, query, "--format", "ndjson").stdout == ""


def test_a_long_table_for_people_is_cut_and_says_so(folder: str) -> None:
    lines = run(folder, "select * from range(10001)").stdout.splitlines()
    assert len(lines) == 10_002
    assert "cut after 10,000 rows" in lines[-1]
    assert "cut" not in run(folder, "select * from range(10000)").stdout


def test_control_characters_do_not_reach_the_terminal(folder: str) -> None:
    assert "\x1b" not in run(folder, "select chr(27) || '[31mred' as x").stdout


def test_output_to_a_file(folder: str, tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    result = run(folder, "select 1 as one", "--format", "csv", "-o", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert target.read_text() == "one\n1\n"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select nope from events", "nope"),
        ("selec 1", "syntax error"),
        ("select * from nothing", "nothing"),
        ("select error('x') from events", "x"),
    ],
)
def test_a_bad_query_is_one_line(folder: str, query: str, message: str) -> None:
    result = run(folder, query, "--format", "csv")
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_without_duckdb_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    result = run(SAMPLE, "select 1")
    assert isinstance(result.exception, UsageError)
    assert "highmem[sql]" in str(result.exception)
