"""The page in a real browser: the system's Chromium, driven by playwright."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from highmem.replay import replay
from highmem.replay.mappings import MAPPING_COLUMNS, Mappings
from highmem.report.html import Page
from highmem.trace import read_trace
from highmem.trace.schema import Strings
from support.mapping_rows import LAYOUT, mappings, window

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)

# Playwright's own event loop is closed by the garbage collector in some versions.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
EVIL = "<script>alert(1)</script>"
MANY = 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Opened:
    """A page that is open, and everything that it did which it should not."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        context = browser.new_context(
            viewport={"width": 1400, "height": 1000}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready]", timeout=60_000)
        self.uri = path.as_uri()

    def view(self) -> tuple[float, float, str]:
        """From, to, and how mappings are drawn, once the page has drawn."""
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        data = self.page.evaluate("() => ({...document.getElementById('timeline').dataset})")
        return float(data["from"]), float(data["to"]), data["mode"]

    def press(self, *keys: str) -> tuple[float, float, str]:
        self.page.focus("#timeline")
        for key in keys:
            self.page.keyboard.press(key)
        return self.view()

    def ink(self) -> int:
        """How many different colours the timeline shows."""
        return int(
            self.page.evaluate(
                """() => {
                    const canvas = document.getElementById("timeline");
                    const pen = canvas.getContext("2d");
                    const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
                    return new Set(new Uint32Array(data.buffer)).size;
                }"""
            )
        )

    def close(self) -> None:
        """Nothing was complained about, nothing but the file was asked for."""
        assert self.complaints == []
        assert self.requests == [self.uri]
        self.page.context.close()


def write(path: Path, page: Page, verdict: Any) -> Path:
    stream = io.StringIO()
    page.write(verdict, stream)
    path.write_text(stream.getvalue(), "utf-8")
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 400 000 events of a real kernel."""
    page = Page()
    verdict = replay(read_trace(SAMPLES / "linux-5.10-686.trace.zst"), sinks=[page])
    return write(tmp_path_factory.mktemp("pages") / "recorded.html", page, verdict)


@pytest.fixture(scope="module")
def misuse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real misuse, one of whose tasks and callers has a hostile name."""
    page = Page()
    source = read_trace(SAMPLES / "misuse" / "linux-6.1-686.unmap-order.trace.zst")
    verdict = replay(source, sinks=[page])
    row = {"open_ns": verdict.first_ns, "close_ns": verdict.last_ns, "comm": EVIL, "caller": EVIL}
    row |= {"cpu": 1, "address": window(1, 5)}
    page.add(mappings(row, strings=source.strings))
    next(iter(verdict.tasks.values())).task = EVIL
    next(iter(verdict.callers.values())).caller = EVIL
    return write(tmp_path_factory.mktemp("pages") / "misuse.html", page, verdict)


def million() -> Iterator[Mappings]:
    """A million mappings on four CPUs, three deep."""
    strings = Strings()
    for text in ("cp", "copy_page+0x10", "zero_user+0x8"):
        strings.number(text)
    rng = np.random.default_rng(1)
    addresses = np.array([[window(cpu, slot) for slot in range(3)] for cpu in range(4)], np.uint64)
    for start in range(0, MANY, 10_000):
        number = np.arange(start, start + 10_000)
        columns = {name: np.zeros(10_000, dtype) for name, dtype in MAPPING_COLUMNS.items()}
        columns["open_ns"][:] = 10**9 + number * 13_000
        columns["close_ns"][:] = columns["open_ns"] + rng.exponential(6000, 10_000).astype(int)
        columns["open_line"][:] = 2 * number + 1
        columns["close_line"][:] = 2 * number + 2
        columns["cpu"][:] = cpu = rng.integers(0, 4, 10_000)
        columns["depth"][:] = depth = rng.integers(1, 4, 10_000)
        columns["address"][:] = addresses[cpu, depth - 1]
        columns["caller"][:] = rng.integers(1, 3, 10_000)
        columns["page"][:] = rng.integers(0x36BFE, 0x80000, 10_000)
        columns["argument"][:] = 2
        yield Mappings(columns, strings)


def test_a_recording_opens_without_a_word_or_a_request(browser: Any, recorded: Path) -> None:
    opened = Opened(browser, recorded)
    _, _, mode = opened.view()
    assert mode == "tiles"  # more mappings than can be told apart
    assert opened.ink() > 5
    opened.close()


def test_keys_zoom_and_move(browser: Any, recorded: Path) -> None:
    opened = Opened(browser, recorded)
    low, high, _ = opened.view()
    from_, to, _ = opened.press("+", "+")
    assert to - from_ == pytest.approx((high - low) / 4)
    later = opened.press("ArrowRight")
    assert later[0] > from_
    assert later[1] - later[0] == pytest.approx(to - from_)
    assert opened.press("Home")[0] == low
    assert opened.press("End")[1] == high
    assert opened.press("0")[:2] == (low, high)
    *_, mode = opened.press(*"++++++")
    assert mode == "exact"
    opened.close()


def test_wheel_and_buttons_zoom(browser: Any, recorded: Path) -> None:
    opened = Opened(browser, recorded)
    low, high, _ = opened.view()
    opened.page.hover("#timeline", position={"x": 700, "y": 100})
    opened.page.mouse.wheel(0, -300)
    from_, to, _ = opened.view()
    assert to - from_ < (high - low) / 2
    opened.page.click("#zoom-out")
    opened.page.click("#fit")
    assert opened.view()[:2] == (low, high)
    opened.close()


def test_next_mapping_is_told_in_words(browser: Any, recorded: Path) -> None:
    opened = Opened(browser, recorded)
    opened.press(*"++++++++nn")
    words = opened.page.inner_text("#tip")
    for part in ("CPU ", "window ", "depth ", "line ", "held "):
        assert part in words
    first = words
    opened.press("n")
    assert opened.page.inner_text("#tip") != first
    opened.press("p")
    assert opened.page.inner_text("#tip") == first
    opened.press("Escape")
    assert not opened.page.is_visible("#tip")
    opened.close()


def test_the_table_of_mappings_in_view(browser: Any, recorded: Path) -> None:
    opened = Opened(browser, recorded)
    opened.page.click("#in-view summary")
    opened.page.wait_for_selector("#in-view-body p")
    assert "zoom in to list them" in opened.page.inner_text("#in-view-body p")
    opened.press(*"+++++++++")
    opened.page.wait_for_selector("#in-view-body tbody tr")
    cells = opened.page.locator("#in-view-body tbody tr >> nth=0").locator("td").all_inner_texts()
    assert len(cells) == 8
    assert cells[2].startswith("CPU ")
    opened.close()


def test_a_hostile_name_is_text(browser: Any, misuse: Path) -> None:
    opened = Opened(browser, misuse)
    assert opened.page.locator("script").count() == 2
    assert opened.page.locator(f'th:text-is("{EVIL}")').count() >= 1
    opened.press("n")
    assert f"in {EVIL}-7" in opened.page.inner_text("#tip")
    opened.page.click("#in-view summary")
    opened.page.wait_for_selector("#in-view-body tbody tr")
    assert EVIL in opened.page.inner_text("#in-view-body")
    opened.page.click(f'.pick:text-is("{EVIL}")')
    opened.view()
    opened.close()


def test_a_script_that_gets_in_does_not_run(browser: Any, misuse: Path, tmp_path: Path) -> None:
    """The policy as the second wall: even markup that was not escaped stays dead."""
    broken = tmp_path / "broken.html"
    bad = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    broken.write_text(misuse.read_text("utf-8").replace("<main>", f"<main>{bad}"), "utf-8")
    opened = Opened(browser, broken)
    assert "run" not in opened.page.title()
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.page.context.close()


def test_a_finding_leads_to_its_place_in_the_timeline(browser: Any, misuse: Path) -> None:
    opened = Opened(browser, misuse)
    low, high, _ = opened.view()
    opened.page.click(".show >> nth=0")
    from_, to, _ = opened.view()
    assert to - from_ < (high - low) / 100
    assert opened.page.evaluate("document.activeElement.id") == "timeline"
    opened.close()


def test_callers_sort_and_filter(browser: Any, recorded: Path) -> None:
    opened = Opened(browser, recorded)

    def column(number: int) -> list[int]:
        script = (
            "n => [...document.querySelectorAll('#callers-table tbody tr')]"
            ".map(row => Number(row.cells[n].dataset.value))"
        )
        values: list[int] = opened.page.evaluate(script, number)
        return values

    assert column(1) == sorted(column(1), reverse=True)
    opened.page.click("#callers-table th:nth-child(6) button")
    assert column(5) == sorted(column(5), reverse=True)
    opened.page.click("#callers-table th:nth-child(6) button")
    assert column(5) == sorted(column(5))
    assert opened.page.get_attribute("#callers-table th:nth-child(6)", "aria-sort") == "ascending"
    opened.page.fill("#filter", "copy_page_to")
    shown = opened.page.locator("#callers-table tbody tr:visible").all_inner_texts()
    assert shown
    assert all("copy_page_to" in text for text in shown)
    opened.close()


def luminance(opened: Opened) -> int:
    script = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    return sum(opened.page.evaluate(script))


def test_light_and_dark(browser: Any, misuse: Path) -> None:
    light, dark = (Opened(browser, misuse, scheme) for scheme in ("light", "dark"))
    assert luminance(light) > 600
    assert luminance(dark) < 150
    assert (light.page.inner_text("#theme"), dark.page.inner_text("#theme")) == ("Dark", "Light")
    for opened in (light, dark):
        opened.page.click("#theme")
    assert luminance(light) < 150
    assert luminance(dark) > 600
    for opened in (light, dark):
        opened.close()


def test_what_a_screen_reader_meets(browser: Any, misuse: Path) -> None:
    opened = Opened(browser, misuse)
    tree = opened.page.locator("body").aria_snapshot()
    for words in ("banner", "main", "contentinfo", 'heading "Findings"', "Windows over time"):
        assert words in tree
    opened.page.keyboard.press("Tab")
    assert opened.page.evaluate("document.activeElement.textContent") == "Skip to the findings"
    opened.close()


def test_a_million_mappings(browser: Any, tmp_path: Path) -> None:
    page = Page()
    page.begin(LAYOUT)
    for batch in million():
        page.add(batch)
    verdict = replay(read_trace(SAMPLES / "misuse" / "linux-6.1-686.clean.trace.zst"))
    path = write(tmp_path / "million.html", page, verdict)
    assert path.stat().st_size < 8 << 20
    opened = Opened(browser, path)
    low, high, mode = opened.view()
    assert mode == "tiles"
    assert high - low == pytest.approx(MANY * 13_000, rel=0.01)
    assert "1,000,000 mappings" in opened.page.inner_text("#exactness")
    spent = opened.page.evaluate(
        "() => { const from = performance.now(); for (let i = 0; i < 20; i++) draw();"
        " return (performance.now() - from) / 20; }"
    )
    assert spent < 500  # milliseconds a frame, with room for a busy machine: still usable
    *_, mode = opened.press(*"+++++++")
    assert mode == "exact"
    opened.press("n")
    assert "held " in opened.page.inner_text("#tip")
    opened.close()
