"""The verdict as text: a screen, and nothing raw from a recording."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.console import Console

from highmem.findings import RULES
from highmem.kernel.profile import load_profile, make_profile
from highmem.replay.verdict import Verdict
from highmem.report.text import render_rule, render_rules, render_verdict
from support.recordings import Recorder, header_of, judge, sample

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/verdict.schema.json").read_text("utf-8"))


def shown(verdict: Verdict, *, width: int = 100, quiet: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    render_verdict(verdict, console, quiet=quiet)
    return stream.getvalue()


def with_task(comm: bytes) -> bytes:
    """The recording of a leak, its task renamed."""
    lines = sample("misuse/linux-6.1-686.leak-local")
    return b"".join(line.replace(b"insmod", comm) for line in lines)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_clean_verdict_fits_a_screen(width: int) -> None:
    verdict = judge(sample("misuse/linux-6.1-686.clean"))
    text = shown(verdict, width=width)
    assert text.count("\n") <= 40
    assert "verdict: clean" in text
    assert f"{verdict.right:,} of {verdict.judged:,} right" in text
    assert verdict.profile.title in " ".join(text.split())


def test_quiet_shows_findings_only() -> None:
    assert shown(judge(sample("misuse/linux-6.1-686.clean")), quiet=True) == ""
    text = shown(judge(sample("misuse/linux-6.1-686.unmap-order")), quiet=True)
    assert text.startswith("error unmap-order  test.trace:2425")
    assert "verdict" not in text


def test_a_finding_shows_all_that_it_has() -> None:
    verdict = judge(sample("misuse/linux-6.1-686.unmap-order"))
    text = " ".join(shown(verdict).split())
    found = verdict.findings[0]
    for part in (found.what, found.kernel_does, *found.evidence, found.rule.fix, "CPU 1"):
        assert part in text
    assert "verdict: 1 finding" in text


def test_many_findings_are_cut_and_counted() -> None:
    rec = Recorder(make_profile("L1", nr_cpus=4))
    rec.warm_up()
    for number in range(25):
        rec.run(0, f"leaky{number}")
        rec.map(rec.page())
        rec.exit()
    rec.go_on()
    verdict = rec.verdict()
    assert len(verdict.findings) == 25
    assert "and 5 more findings" in shown(verdict)


def test_losses_and_rejections_show() -> None:
    lines = sample("misuse/linux-6.1-686.clean")
    text = [*lines[:3000], b"CPU:0 [LOST 7 EVENTS]\n", b"\x1b[2Jgarbage\n", *lines[3000:]]
    verdict = judge(text)
    out = shown(verdict)
    assert "7 events, as the recording says" in " ".join(out.split())
    assert "verdict: incomplete" in out
    assert "\x1b" not in out and "\\x1b[2Jgarbage" in out
    assert verdict.exit_code == 3


def test_the_reader_s_notes_show_three_at_most_and_dim() -> None:
    verdict = judge(sample("misuse/linux-6.1-686.clean"))
    assert "\nnote " not in shown(verdict)
    verdict.account.notes += ["the clock is 'global'", "evil \x1b[2J", "third", "fourth"]
    stream = io.StringIO()
    console = Console(
        file=stream, width=100, highlight=False, emoji=False, markup=False, force_terminal=True,
        color_system="standard",
    )  # fmt: skip
    render_verdict(verdict, console)
    lines = [line for line in stream.getvalue().splitlines() if "\x1b[1mnote" in line]
    assert [line.split("\x1b[2m")[1].split("\x1b[0m")[0].strip() for line in lines] == [
        "the clock is 'global'", "evil \\x1b[2J", "third",
    ]  # fmt: skip
    assert "fourth" not in stream.getvalue()
    assert "third" not in shown(verdict, quiet=True)


def test_notes_are_in_the_document_all_of_them() -> None:
    verdict = judge(sample("misuse/linux-6.1-686.clean"))
    assert verdict.to_dict()["input"]["notes"] == []
    notes = [f"note {n}" for n in range(5)]
    verdict.account.notes += notes
    document = verdict.to_dict()
    assert document["input"]["notes"] == notes
    Draft202012Validator(SCHEMA).validate(document)
    del document["input"]["notes"]
    assert not Draft202012Validator(SCHEMA).is_valid(document)


HOSTILE = [b"\x1b[31mred", b"\x07\x08\r", b"\xe2\x80\xaeevil", b"\xff\xfe", b"\xc2\x9b1m", b"a\tb"]


@pytest.mark.parametrize("comm", HOSTILE)
def test_a_task_s_name_never_reaches_the_terminal_raw(comm: bytes) -> None:
    verdict = judge(with_task(comm))
    text = shown(verdict)
    assert "leaked-window" in text
    for character in text:
        assert character == "\n" or unicodedata.category(character)[0] != "C", ascii(character)
    assert text.isascii() or comm.isascii() or "…" in text


@pytest.mark.parametrize("comm", [b"<script>", b"[bold]x[/]", b":smile:"])
def test_markup_in_a_task_s_name_is_text(comm: bytes) -> None:
    assert comm.decode() in shown(judge(with_task(comm)))


@settings(max_examples=30, deadline=None)
@given(comm=st.binary(min_size=1, max_size=15).filter(lambda b: b"\n" not in b and b" " not in b))
def test_no_name_breaks_the_text_or_the_json(comm: bytes) -> None:
    lines = sample("misuse/linux-6.1-686.clean")
    body = b"".join(line.replace(b"insmod", comm) for line in lines[2300:2700])
    verdict = judge(b"".join(header_of(lines)) + body, load_profile("debian-6.1-686"))
    text = shown(verdict)
    assert all(c == "\n" or unicodedata.category(c)[0] != "C" for c in text)
    json.loads(json.dumps(verdict.to_dict()))


def test_the_name_of_the_input_and_of_the_profile_are_escaped_too() -> None:
    verdict = judge(sample("misuse/linux-6.1-686.clean"))
    verdict.name = "a\x1b]0;title\x07.trace"
    verdict.profile = make_profile("L1", name="x", title="\x1b[5mblink")
    assert "\x1b" not in shown(verdict) and "\x07" not in shown(verdict)


# The schema.


def test_the_schema_is_one_and_describes_everything() -> None:
    Draft202012Validator.check_schema(SCHEMA)

    def described(node: object, path: str) -> None:
        if isinstance(node, dict):
            for name, value in node.get("properties", {}).items():
                assert value.get("description"), f"{path}.{name}"
            for name, value in node.items():
                described(value, f"{path}.{name}")

    described(SCHEMA, "")
    assert set(SCHEMA["$defs"]["verdict"]["properties"]["findings"]["items"]["properties"]["rule"][
        "enum"]) == set(RULES)  # fmt: skip


@pytest.mark.parametrize("name", ["clean", "unmap-order", "leak-local", "sleep-while-atomic"])
def test_verdicts_are_as_the_schema_says(name: str) -> None:
    document = judge(sample(f"misuse/linux-6.1-686.{name}")).to_dict()
    Draft202012Validator(SCHEMA).validate(document)
    Draft202012Validator(SCHEMA).validate([document, document])


def test_a_verdict_with_losses_rejections_and_open_windows_is_as_the_schema_says() -> None:
    rec = Recorder(make_profile("S4", nr_cpus=4))
    rec.warm_up()
    rec.run(0, "holder")
    rec.kmap(rec.page())
    rec.map(rec.page())
    rec.run(1, "other")
    rec.unmap(rec.map(rec.page()))
    document = judge(rec.text() + b"garbage\nCPU:3 [LOST EVENTS]\n").to_dict()
    Draft202012Validator(SCHEMA).validate(document)
    assert document["input"]["rejections"] and document["held_at_end"]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: d.pop("findings"),
        lambda d: d.update(surprise=1),
        lambda d: d["predictions"].update(wrong=-1),
        lambda d: d["findings"][0].update(rule="no-such-rule"),
    ],
)
def test_the_schema_refuses_what_is_no_verdict(break_it: object) -> None:
    document = judge(sample("misuse/linux-6.1-686.unmap-order")).to_dict()
    assert callable(break_it)
    break_it(document)
    assert not Draft202012Validator(SCHEMA).is_valid(document)


# Rules.


def test_the_list_of_rules_has_one_line_each() -> None:
    stream = io.StringIO()
    render_rules(RULES.values(), Console(file=stream, width=200, highlight=False))
    lines = [line.split()[0] for line in stream.getvalue().splitlines()]
    assert lines == list(RULES)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_explained(name: str) -> None:
    stream = io.StringIO()
    render_rule(RULES[name], Console(file=stream, width=400, highlight=False))
    text = stream.getvalue()
    assert RULES[name].explanation in text and RULES[name].fix in text
    if RULES[name].example:
        assert RULES[name].example.splitlines()[0].strip() in text
