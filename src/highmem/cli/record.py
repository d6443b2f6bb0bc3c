"""``highmem record``: record the windows of a running kernel."""

from __future__ import annotations

import os
import sys

import click

from highmem.cli.output import open_output
from highmem.errors import UsageError

__all__ = ["record"]

DEFAULT_OUT = "highmem.dat"


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help=f"The recording, {DEFAULT_OUT} unless given; with --print-…: where to print.",
)
@click.option(
    "-t", "--time", "seconds", type=click.IntRange(1, 999_999_999), metavar="SECONDS",
    help="Stop after so many seconds, even where COMMAND still runs.",
)  # fmt: skip
@click.option(
    "-b", "--buffer-size", "buffer_kb", type=click.IntRange(1, 999_999_999), metavar="KB",
    help="Of the buffer of each CPU; 8192, or what the kernel has.",
)  # fmt: skip
@click.option("--print-script", is_flag=True, help="Print the sh script that records, for a board.")
@click.option("--print-trace-cmd", is_flag=True, help="Print how trace-cmd records the same.")
@click.option(
    "--kallsyms", metavar="FILE", help="With --print-trace-cmd: that of the kernel to record."
)
@click.option(
    "--arch", type=click.Choice(["x86", "x86_64", "arm"]),
    help="With --kallsyms: of that kernel; x86 unless its addresses are of 64 bits.",
)  # fmt: skip
@click.option(
    "--convert", metavar="PATH", help="Make OUT of the folder or tar that the script made."
)
@click.option("--remove", is_flag=True, help="Remove probes that a killed recording left.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.pass_context
def record(
    ctx: click.Context,
    /,
    command: tuple[str, ...],
    output: str | None,
    seconds: int | None,
    buffer_kb: int | None,
    print_script: bool,
    print_trace_cmd: bool,
    kallsyms: str | None,
    arch: str | None,
    convert: str | None,
    remove: bool,
    quiet: bool,
) -> None:
    """Record the map and unmap calls of this machine's kernel, for highmem replay.

    Needs root and tracefs.  Records while COMMAND runs, for some seconds, or until Ctrl-C, into
    one file that trace-cmd reads too.  The probes are removed again whatever happens.
    """
    _refuse(ctx, print_script, print_trace_cmd, convert, remove)
    if print_script:
        from highmem.record.script import shell_script

        _print(shell_script(seconds=seconds, buffer_kb=buffer_kb), output)
    elif print_trace_cmd:
        from highmem.record.tracecmd import read_kallsyms, trace_cmd_lines

        probes = read_kallsyms(kallsyms or "/proc/kallsyms", arch or _arch(kallsyms))
        lines = trace_cmd_lines(
            probes, DEFAULT_OUT, seconds=seconds, buffer_kb=buffer_kb, command=command
        )
        _print("\n".join(lines) + "\n", output)
        for note in probes.notes:
            click.echo(f"highmem: {note}", err=True)
    elif convert is not None:
        from highmem.record.bring import convert as bring

        bring(convert, output or DEFAULT_OUT)
    elif remove:
        from highmem.record.live import remove_probes

        ctx.exit(remove_probes())
    else:
        _live(ctx, output or DEFAULT_OUT, seconds, buffer_kb, command, quiet)


def _live(
    ctx: click.Context,
    out: str,
    seconds: int | None,
    buffer_kb: int | None,
    command: tuple[str, ...],
    quiet: bool,
) -> None:
    from highmem.record.live import record as run

    if not sys.platform.startswith("linux"):
        raise UsageError("only Linux can be recorded; --print-script prints what to run there")
    if out == "-":
        raise UsageError("a recording is not written to standard output; name a file with -o")
    if not quiet and not command and seconds is None and sys.stderr.isatty():
        click.echo("recording until Ctrl-C", err=True)
    ctx.exit(run(out, seconds=seconds, buffer_kb=buffer_kb, command=command, quiet=quiet))


def _refuse(
    ctx: click.Context, print_script: bool, print_trace_cmd: bool, convert: str | None, remove: bool
) -> None:
    """UsageError for options that do not go together."""
    actions = {
        "--print-script": print_script,
        "--print-trace-cmd": print_trace_cmd,
        "--convert": convert is not None,
        "--remove": remove,
    }
    chosen = [name for name, given in actions.items() if given]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} exclude each other")
    if "--print-trace-cmd" not in chosen:
        for name in ("kallsyms", "arch"):
            if ctx.params[name] is not None:
                raise UsageError(f"--{name} is for --print-trace-cmd")
    if chosen and chosen[0] != "--print-trace-cmd" and ctx.params["command"]:
        raise UsageError(f"{chosen[0]} runs no command")


def _arch(kallsyms: str | None) -> str | None:
    """What this machine is, if it is its own kernel that is asked for."""
    machine = os.uname().machine
    return "arm" if kallsyms is None and machine.startswith("armv") else None


def _print(text: str, output: str | None) -> None:
    with open_output(output) as stream:
        stream.write(text)
