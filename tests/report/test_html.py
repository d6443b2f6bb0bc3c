"""The page as a document; tests/report/test_html_browser.py opens it in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from highmem.replay import Verdict, replay
from highmem.replay.mappings import Mappings
from highmem.report.html import Page
from highmem.trace import read_trace
from support.mapping_rows import LAYOUT, mappings

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "input", "link", "br", "img", "hr", "line", "rect"}


class Document(HTMLParser):
    """The elements of a page, each with its attributes and its own text; tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, list[str]]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own: list[str] = []
        self.elements.append((tag, dict(attrs), own))
        if tag not in VOID:
            self._open.append((tag, own))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][1].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attrs, "".join(text)) for name, attrs, text in self.elements if name == tag]


def page_of(verdict: Verdict, *batches: Mappings) -> str:
    page = Page()
    page.begin(LAYOUT)
    for batch in batches:
        page.add(batch)
    stream = io.StringIO()
    page.write(verdict, stream)
    return stream.getvalue()


def verdict_of(name: str) -> Verdict:
    return replay(read_trace(SAMPLES / "misuse" / f"linux-6.1-686.{name}.trace.zst"))


@pytest.fixture(scope="module")
def evil() -> str:
    """A page all of whose names are hostile."""
    verdict = verdict_of("unmap-order")
    verdict.name = f"{EVIL}.trace"
    verdict.profile_how = EVIL
    verdict.unknown[EVIL] = 1
    for table in (verdict.tasks, verdict.callers):
        first: Any = next(iter(table.values()))
        setattr(first, "task" if hasattr(first, "task") else "caller", EVIL)
    rows = {"comm": EVIL, "caller": f"{EVIL}+0x1"}, {"comm": "$script ${data} </script>"}
    return page_of(verdict, mappings(*rows))


def test_names_of_the_recording_are_text_everywhere(evil: str) -> None:
    document = Document(evil)
    assert [attrs for attrs, _ in document.all("script")] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    for tag in ("title", "span", "dd", "th", "button"):
        assert any(EVIL in text for _, text in document.all(tag)), tag
    data = json.loads(document.all("script")[0][1])
    assert f"{EVIL}-7" in data["exact"]["tasks"]
    assert "$script ${data} </script>-7" in data["exact"]["tasks"]


def test_no_attribute_runs_a_script_or_has_a_style(evil: str) -> None:
    for tag, attrs, _ in Document(evil).elements:
        assert not [name for name in attrs if name.startswith("on")], tag
        assert "style" not in attrs, tag


def test_the_policy_allows_its_own_script_and_style_and_nothing_else(evil: str) -> None:
    document = Document(evil)
    (policy,) = [
        attrs["content"] or ""
        for attrs, _ in document.all("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    for name, tag in (("script-src", "script"), ("style-src", "style")):
        text = document.all(tag)[-1][1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules.pop(name) == f"'sha256-{digest}'"
    assert set(rules.values()) == {"'none'"}


def test_the_page_names_no_other_place(evil: str) -> None:
    assert not re.search(r"https?:|//[\w-]+\.\w|url\(|@import|\bimport\(|fetch\(", evil)
    for tag, attrs, _ in Document(evil).elements:
        assert "src" not in attrs, tag
        assert (attrs.get("href") or "#").startswith("#"), tag


def test_landmarks_headings_and_labels(evil: str) -> None:
    document = Document(evil)
    tags = [tag for tag, _, _ in document.elements]
    for landmark in ("header", "main", "footer"):
        assert tags.count(landmark) == 1, landmark
    ids = {attrs["id"] for _, attrs, _ in document.elements if "id" in attrs}
    assert len(ids) == sum("id" in attrs for _, attrs, _ in document.elements)
    for tag, attrs, _ in document.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attrs.get(name) is None or attrs[name] in ids, tag
        if tag == "section":
            assert "aria-labelledby" in attrs
        if tag in ("canvas", "svg"):
            assert attrs.get("aria-label"), tag
        if tag == "th":
            assert attrs.get("scope") in ("col", "row")
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert document.all("html")[0][0]["lang"] == "en"


@pytest.mark.parametrize("name", ["leak-local", "unmap-order", "sleep-while-atomic", "clean"])
def test_findings_stand_with_all_they_say(name: str) -> None:
    verdict = verdict_of(name)
    text = page_of(verdict)
    document = Document(text)
    everything = {text for _, _, parts in document.elements for text in ["".join(parts)]}
    assert text.count('<li class="finding') == len(verdict.findings)
    for found in verdict.findings:
        assert {found.what, found.kernel_does, found.rule.fix, *found.evidence} <= everything
    word = "clean" if name == "clean" else f"{len(verdict.findings)} finding"
    assert any(found.startswith(word) for _, found in document.all("strong"))


def test_hold_times_say_what_they_mean_for_atomic_windows() -> None:
    local = page_of(verdict_of("clean"))
    assert "kmap_local_page() only keeps its task on its CPU" in local
    verdict = verdict_of("clean")
    stack = replay(read_trace(SAMPLES / "linux-5.10-686.trace.zst"))
    verdict.profile = stack.profile
    assert "preemption and page faults were off" in page_of(verdict)


def test_an_empty_recording_has_a_page() -> None:
    verdict = verdict_of("clean")
    verdict.callers.clear()
    verdict.tasks.clear()
    verdict.depths.clear()
    verdict.holds.clear()
    data = json.loads(Document(page_of(verdict)).all("script")[0][1])
    assert data["mappings"] == 0
