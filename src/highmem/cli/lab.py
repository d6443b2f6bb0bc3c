"""``highmem lab``: real kernels with high memory, under QEMU."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from highmem.cli.lab_check import check
from highmem.cli.lab_shared import ended_by_signals, make_progress, verdict_of
from highmem.cli.output import make_console, open_output, size_option
from highmem.errors import UsageError

if TYPE_CHECKING:
    from highmem.lab import LabKernel, Listener, Result

__all__ = ["lab"]

_PATH = click.Path(path_type=Path)


@click.group()
def lab() -> None:
    """Real HIGHMEM kernels on demand: start one under QEMU, run code on it, record it.

    Debian's own i386 kernels, 6.1 and 5.10, with and without PAE, come through this machine's
    apt into a cache, without root; or name your own.  Needs qemu-system-i386.
    """


lab.add_command(check)


# -- kernels --------------------------------------------------------------------------------


@lab.command()
@click.option("--fetch", is_flag=True, help="Download those that are not here, and newer ones.")
@click.option("--offline", is_flag=True, help="Do not ask the mirror.")
@click.option("--update", is_flag=True, help="Have the mirror's lists fetched again.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option("-o", "--output", metavar="FILE", help="Write the result here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.argument("names", metavar="[KERNEL]...", nargs=-1)
def kernels(
    names: tuple[str, ...],
    fetch: bool,
    offline: bool,
    update: bool,
    form: str,
    output: str | None,
    quiet: bool,
) -> None:
    """Which kernels can be had, and which are here."""
    from highmem import lab as rooms
    from highmem.report.lab import kernel_rows, render_kernels

    progress = make_progress(quiet)
    if unknown := [name for name in names if name not in rooms.NAMES]:
        raise UsageError(f"{unknown[0]}: no such kernel; there are {', '.join(rooms.NAMES)}")
    offers: list[rooms.Offer] | None = None
    why = "the mirror was not asked"
    if not offline:
        try:
            offers = rooms.offers(progress=progress, update=update)
        except rooms.LabError as error:
            if fetch:
                raise
            why = str(error)
    if fetch:
        with ended_by_signals():
            for name in names or rooms.NAMES:
                rooms.find_kernel(name, progress=progress, newest=True)
            rooms.find_busybox(progress=progress)
    rows = kernel_rows(rooms.kernels_here(), offers, names or rooms.NAMES)
    with open_output(output) as stream:
        if form == "json":
            document = {"schema": "highmem.lab.kernels/1", "kernels": rows}
            stream.write(json.dumps(document, indent=2) + "\n")
        else:
            render_kernels(rows, make_console(stream), "" if offers is not None else why)


# -- run ------------------------------------------------------------------------------------


@lab.command(context_settings={"allow_interspersed_args": False})
@click.option("--kernel", metavar="K", help="6.1-686 (default), 5.10-686-pae ..., or a VMLINUZ.")
@click.option("--modules", type=_PATH, metavar="DIR", help="The modules of your own kernel.")
@click.option("--busybox", type=_PATH, metavar="FILE", help="A static busybox for i386.")
@click.option("--cpus", type=int, default=2, show_default=True, metavar="N")
@click.option("--ram", callback=size_option, default="2G", show_default=True, metavar="SIZE")
@click.option("--workload", type=_PATH, metavar="FILE.sh", help="A script to run.")
@click.option(
    "--module",
    type=_PATH,
    metavar="FILE.ko",
    help="A module to load, with COMMAND as its arguments, and to take away after the workload.",
)
@click.option("--init", type=_PATH, metavar="DIR", help="Files to lay over the first file system.")
@click.option(
    "--modprobe", multiple=True, metavar="NAME", help="Load a module of the kernel first."
)
@click.option("--record", type=_PATH, metavar="OUT", help="Record to OUT, a trace.dat.")
@click.option("--buffer-size", callback=size_option, metavar="SIZE", help="Each CPU's, for events.")
@click.option("--verdict", is_flag=True, help="Record, replay, and print the verdict.")
@click.option(
    "--image",
    type=_PATH,
    metavar="OUT",
    help="Take a memory image (a core where OUT ends in .elf, else raw) with OUT.tlb, OUT.mem, "
    "OUT.registers: when the job runs lab-image, when the kernel prints 'highmem-lab: image', "
    "or else at the job's end.",
)
@click.option("--results", type=_PATH, metavar="DIR", help="Put dmesg, meminfo, kallsyms... here.")
@click.option(
    "--timeout", type=float, default=600, show_default=True, metavar="S",
    help="End the job after S seconds.",
)  # fmt: skip
@click.option(
    "--accel", type=click.Choice(["auto", "kvm", "tcg"]), default="auto", show_default=True
)
@click.option("--kaslr", is_flag=True, help="Leave address randomization on.")
@click.option("--append", default="", metavar="WORDS", help="More for the kernel's command line.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="Of the verdict.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Write the verdict here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; of the verdict the findings only.")
@click.option("--exit-zero", is_flag=True, help="Exit 0 whatever the job or the verdict says.")
@click.argument("command", metavar="[--] [COMMAND]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, /, command: tuple[str, ...], exit_zero: bool, **given: Any) -> None:
    """Start a kernel, do a job on it, and bring back what there is.

    The job is COMMAND, a workload, or a module.  What it prints is printed here; with --verdict
    stdout carries the verdict, and the job's goes to stderr.  Probes are set before the job
    starts, so that no mapping is missed.

    Exit status: 0 the job ended well (and the verdict is clean), 1 it did not (or there are
    findings), 2 it could not be run, 3 the machine did not come to its end.
    """
    code = _run(command, **given)
    ctx.exit(0 if exit_zero and code == 1 else code)


def _run(command: tuple[str, ...], *, verdict: bool, record: Path | None, **given: Any) -> int:
    """Do it with what was *given* on the command line; the exit status."""
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="highmem-lab-") as folder:
        if verdict and record is None:
            record = Path(folder, "recording.dat")
        result = _do(command, record, verdict, given)
        if given["results"] is not None:
            _write_results(result, given["results"])
        _tell(result, given["quiet"])
        code = _code(result)
        if verdict:
            kept = Path(folder) not in (record or Path()).parents
            found = _judge(result, given, kept=kept)
            if found == 1 and not kept:
                click.echo("highmem: the recording is not kept: --record OUT keeps it", err=True)
            code = max(code, found)
    return code


def _do(command: tuple[str, ...], record: Path | None, verdict: bool, given: Any) -> Result:
    from highmem import lab as rooms

    listener = _listener(given["quiet"], to_stderr=verdict)
    kernel = _kernel(given["kernel"], given["modules"], listener)
    busybox = given["busybox"] or rooms.find_busybox(progress=listener.progress)
    size = given["buffer_size"]
    return rooms.do(
        rooms.Job(
            kernel=kernel,
            busybox=busybox,
            cpus=given["cpus"],
            ram=given["ram"],
            command=command,
            workload=given["workload"],
            module=given["module"],
            tree=given["init"],
            modprobe=given["modprobe"],
            record=record,
            buffer_kb=None if size is None else max(4, size // 1024),
            image=given["image"],
            timeout=given["timeout"],
            accel=given["accel"],
            kaslr=given["kaslr"],
            append=given["append"],
        ),
        listener,
    )


def _kernel(name: str | None, modules: Path | None, listener: Listener) -> LabKernel:
    from highmem import lab as rooms

    if name is not None and (modules is not None or "/" in name or Path(name).is_file()):
        return rooms.own_kernel(Path(name), modules)
    if modules is not None:
        raise UsageError("--modules is for a kernel of your own: give --kernel VMLINUZ too")
    return rooms.find_kernel(name or rooms.DEFAULT_KERNEL, progress=listener.progress)


def _code(result: Result) -> int:
    from highmem.lab import Ended

    if result.ended is Ended.DONE:
        return 1 if result.status else 0
    return 3


def _tell(result: Result, quiet: bool) -> None:
    """One line on how it ended, where that is not simply well, and what the recorder said."""
    from highmem.trace.printable import printable

    if result.why:
        click.echo(f"highmem: {printable(result.why)}", err=True)
    elif result.status:
        click.echo(f"highmem: the job ended with status {result.status}", err=True)
    if not quiet:
        for note in result.notes:
            click.echo(f"highmem: {printable(note)}", err=True)


def _write_results(result: Result, folder: Path) -> None:
    from highmem.report.lab import result_document

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in result.facts.items():
            (folder / name).write_bytes(content)
        (folder / "console").write_text(result.console, encoding="utf-8", errors="replace")
        if "dmesg" not in result.facts:
            (folder / "dmesg").write_text(result.dmesg, encoding="utf-8", errors="replace")
        document = json.dumps(result_document(result), indent=2)
        (folder / "result.json").write_text(document + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {error.strerror}") from None


# -- verdicts -------------------------------------------------------------------------------


def _judge(result: Result, given: Any, *, kept: bool) -> int:
    """Replay the recording of *result*, print the verdict; its exit status."""
    if result.recording is None:
        return 3
    verdict = verdict_of(result, given["ram"], kept=kept)
    with open_output(given["output"]) as stream:
        if given["form"] == "json":
            document = {**_document(result), "verdict": verdict.to_dict()}
            stream.write(json.dumps(document, indent=2) + "\n")
        else:
            from highmem.report.text import render_verdict

            render_verdict(verdict, make_console(stream), quiet=given["quiet"])
    return verdict.exit_code


def _document(result: Result) -> dict[str, Any]:
    from highmem.report.lab import result_document

    return result_document(result)


# -- what they share ------------------------------------------------------------------------


def _listener(quiet: bool, *, to_stderr: bool) -> Listener:
    from highmem.lab import Listener

    def write(data: bytes, *, error: bool) -> None:
        stream = sys.stderr if error else sys.stdout
        stream.buffer.write(data)
        stream.buffer.flush()

    return Listener(
        progress=make_progress(quiet),
        stdout=lambda data: write(data, error=to_stderr),
        stderr=lambda data: write(data, error=True),
    )
