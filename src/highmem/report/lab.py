"""What the lab has to show: its kernels, how a job went, and the table of its check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from highmem import __version__
from highmem.lab import Ended, LabKernel, Offer, Result
from highmem.replay import Verdict
from highmem.trace.printable import printable

__all__ = [
    "CheckRow",
    "check_document",
    "kernel_rows",
    "render_check",
    "render_kernels",
    "result_document",
]


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One kernel of ``lab check``: how the machine ended, and the verdict on its recording."""

    result: Result
    cpus: int
    verdict: Verdict | None

    def exit_code(self, least: int) -> int:
        """0 all predicted and clean, 1 not, 3 not known: fewer than *least* events, or an end
        that was none."""
        if self.verdict is None or self.result.ended is not Ended.DONE:
            return 3
        if self.verdict.wrong or self.verdict.exit_code == 1 or self.result.status:
            return 1
        short = self.verdict.account.events < least
        return 3 if short or not self.verdict.judged else self.verdict.exit_code


def kernel_rows(
    here: Sequence[LabKernel], offers: Sequence[Offer] | None, names: Sequence[str]
) -> list[dict[str, Any]]:
    """For each kernel of *names*, one row for each release that is here or offered."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for offer in offers or ():
        rows[offer.name, offer.release, offer.version] = _row(offer, size=offer.size)
    for kernel in here:
        key = (kernel.name, kernel.release, kernel.version)
        row = rows.setdefault(key, _row(kernel, size=None))
        row["path"] = str(kernel.vmlinuz.parent)
    chosen = [row for row in rows.values() if row["name"] in names]
    return sorted(chosen, key=lambda row: list(names).index(row["name"]))


def _row(kernel: LabKernel | Offer, size: int | None) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "release": kernel.release,
        "version": kernel.version,
        "size": size,
        "path": None,
    }


def render_kernels(rows: Sequence[dict[str, Any]], console: Console, why: str) -> None:
    """Print *rows*; *why* says why the mirror has nothing to tell, if that is so."""
    if rows:
        table = Table(box=None, pad_edge=False)
        for title in ("kernel", "release", "package", "download", "here"):
            table.add_column(title, justify="right" if title == "download" else "left")
        for row in rows:
            size = "" if row["size"] is None else f"{row['size'] / 1e6:.0f} MB"
            shown = (row["name"], row["release"], row["version"], size)
            here = Text("yes") if row["path"] else Text("no", "dim")
            table.add_row(*(printable(text) for text in shown), here)
        console.print(table)
    else:
        console.print("no kernel is here, and none is offered")
    if why:
        console.print(f"not known what can be had: {printable(why)}")


def result_document(result: Result) -> dict[str, Any]:
    """How a job went, for JSON; times are seconds."""
    return {
        "schema": "highmem.lab.result/1",
        "version": __version__,
        "kernel": {
            "name": result.kernel.name,
            "release": result.kernel.release,
            "package": result.kernel.version,
        },
        "ended": result.ended.value,
        "status": result.status,
        "why": result.why,
        "accel": result.accel,
        "seconds": round(result.seconds, 3),
        "recording": None if result.recording is None else str(result.recording),
        "notes": list(result.notes),
        "images": [str(image.path) for image in result.images],
        "facts": sorted(result.facts),
    }


def check_document(rows: Sequence[CheckRow], least: int) -> dict[str, Any]:
    """The table of ``lab check`` for JSON."""
    return {
        "schema": "highmem.lab.check/1",
        "version": __version__,
        "least_events": least,
        "passed": all(row.exit_code(least) == 0 for row in rows),
        "kernels": [
            {
                **result_document(row.result),
                "cpus": row.cpus,
                "exit_code": row.exit_code(least),
                "verdict": None if row.verdict is None else row.verdict.to_dict(),
            }
            for row in rows
        ],
    }


def render_check(rows: Sequence[CheckRow], least: int, console: Console) -> None:
    """Print the table of ``lab check``, and a line for each kernel that did not pass."""
    table = Table(box=None, pad_edge=False)
    for title in ("kernel", "release", "CPUs", "events", "addresses right", "findings", "seconds"):
        table.add_column(title, justify="left" if title in ("kernel", "release") else "right")
    for row in rows:
        table.add_row(*_check_cells(row))
    console.print(table)
    bad = [row for row in rows if row.exit_code(least) != 0]
    for row in bad:
        console.print(Text(f"{row.result.kernel.name}: {_check_trouble(row, least)}", "bold red"))
    if not bad:
        console.print(Text("every address was predicted, nothing was found", "bold green"))


def _check_cells(row: CheckRow) -> list[str]:
    kernel, verdict = row.result.kernel, row.verdict
    cells = [printable(kernel.name), printable(kernel.release), str(row.cpus)]
    if verdict is None:
        cells += ["none", "", ""]
    else:
        share = 100 * verdict.right / verdict.judged if verdict.judged else 0.0
        # Only all is 100 %.
        shown = "100 %" if verdict.judged and not verdict.wrong else f"{min(share, 99.9999):.4f} %"
        cells += [
            f"{verdict.account.events:,}",
            f"{verdict.right:,} of {verdict.judged:,} ({shown})",
            str(len(verdict.findings)),
        ]
    return [*cells, f"{row.result.seconds:.0f}"]


def _check_trouble(row: CheckRow, least: int) -> str:
    verdict, result = row.verdict, row.result
    if verdict is None or result.ended is not Ended.DONE:
        return printable(result.why) or "no recording"
    if verdict.wrong:
        return f"{verdict.wrong} addresses are not those predicted"
    if verdict.findings:
        return f"{len(verdict.findings)} findings: {verdict.findings[0].rule.name} and so on"
    if result.status:
        return f"the workload ended with status {result.status}"
    if verdict.account.events < least:
        return f"{verdict.account.events:,} events are fewer than {least:,}"
    return "events were lost"
