"""``highmem lab check``: the proof that a reader can repeat."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from highmem.cli.lab_shared import ended_by_signals, make_progress, verdict_of
from highmem.cli.output import make_console, open_output, size_option
from highmem.errors import UsageError

if TYPE_CHECKING:
    from highmem.lab import Job, LabKernel, Listener
    from highmem.report.lab import CheckRow

__all__ = ["check"]

_LEAST_EVENTS = 200_000


@click.command()
@click.option("--fetch", is_flag=True, help="Download those kernels that are not here.")
@click.option("--cpus", type=int, default=4, show_default=True, metavar="N")
@click.option("--ram", callback=size_option, default="1280M", show_default=True, metavar="SIZE")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
    help="Do the workload N times over.",
)  # fmt: skip
@click.option(
    "--timeout", type=float, default=900, show_default=True, metavar="S", help="For each kernel."
)
@click.option(
    "--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True
)
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep the recordings here."
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option("-o", "--output", metavar="FILE", help="Write the result here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.argument("names", metavar="[KERNEL]...", nargs=-1)
@click.pass_context
def check(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    fetch: bool,
    cpus: int,
    ram: int,
    rounds: int,
    timeout: float,
    accel: str,
    keep: Path | None,
    form: str,
    output: str | None,
    quiet: bool,
) -> None:
    """Start each kernel that is here (or KERNEL...), record a mixed workload, replay it.

    File copies, symbolic links, pipes, fork and exec, memory pressure without swap, permanent
    mappings.  Exit 0 only if every address was predicted on every kernel, nothing was found, and
    each recording has at least 200 000 events; 1 if not; 3 if a machine did not come to its end
    or a recording is shorter.
    """
    from highmem import lab as rooms
    from highmem.report.lab import check_document, render_check

    listener = rooms.Listener(progress=make_progress(quiet))
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="highmem-lab-") as private:
        folder = _folder(keep, private)
        kernels = _kernels(names, fetch, listener)
        busybox = rooms.find_busybox(progress=listener.progress)
        workload = rooms.mixed_workload(Path(private), rounds)
        rows = [
            _check(
                rooms.Job(
                    kernel=kernel,
                    busybox=busybox,
                    cpus=cpus,
                    ram=ram,
                    workload=workload,
                    record=folder / f"linux-{kernel.name}.dat",
                    timeout=timeout,
                    accel=accel,
                ),
                listener,
                keep=keep is not None,
            )
            for kernel in kernels
        ]
    with open_output(output) as stream:
        if form == "json":
            stream.write(json.dumps(check_document(rows, _LEAST_EVENTS), indent=2) + "\n")
        else:
            render_check(rows, _LEAST_EVENTS, make_console(stream))
    codes = {row.exit_code(_LEAST_EVENTS) for row in rows}
    ctx.exit(1 if 1 in codes else max(codes))


def _folder(keep: Path | None, private: str) -> Path:
    if keep is None:
        return Path(private)
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{keep}: cannot be made: {error.strerror}") from None
    return keep


def _kernels(names: Sequence[str], fetch: bool, listener: Listener) -> list[LabKernel]:
    from highmem import lab as rooms

    if names or fetch:
        wanted = names or rooms.NAMES
        return [rooms.find_kernel(name, progress=listener.progress) for name in wanted]
    newest: dict[str, LabKernel] = {}
    for kernel in rooms.kernels_here():
        newest.setdefault(kernel.name, kernel)
    if not newest:
        raise UsageError("no kernel is here yet: highmem lab check --fetch downloads them")
    return list(newest.values())


def _check(job: Job, listener: Listener, *, keep: bool) -> CheckRow:
    """Do *job* and replay what it recorded."""
    from highmem import lab as rooms
    from highmem.report.lab import CheckRow

    result = rooms.do(job, listener)
    verdict = None
    if result.recording is not None:
        listener.progress("replaying")
        verdict = verdict_of(result, job.ram, kept=keep)
        if not keep:
            result.recording.unlink()
    return CheckRow(result, job.cpus, verdict)
