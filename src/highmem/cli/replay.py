"""``highmem replay``: judge recordings of real kernels."""

from __future__ import annotations

import json

import click

from highmem.cli.exports import Exports, export_options
from highmem.cli.output import make_console, open_output, size_option

__all__ = ["replay"]


@click.command()
@click.argument("traces", metavar="TRACE...", nargs=-1, required=True)
@click.option("--profile", metavar="NAME|FILE", help="The kernel, instead of detecting it.")
@click.option("--ram", callback=size_option, metavar="SIZE", help="The machine's RAM, like 2G.")
@click.option("--probes", metavar="FILE", help="A TOML file that maps probe names to functions.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "ndjson"]),
    default="text",
    show_default=True,
)
@click.option("-o", "--output", metavar="FILE", help="Write the result here.")
@export_options
@click.option("-q", "--quiet", is_flag=True, help="Print findings only.")
@click.option("--exit-zero", is_flag=True, help="Exit 0 whatever was found.")
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    traces: tuple[str, ...],
    profile: str | None,
    ram: int | None,
    probes: str | None,
    form: str,
    output: str | None,
    quiet: bool,
    exit_zero: bool,
    **exports: str | None,
) -> None:
    """Replay recordings of map and unmap calls through the exact model and judge them.

    TRACE is ftrace text (trace, trace_pipe, trace-cmd report), plain or .gz, .zst, .xz, or -
    for standard input.  Every address that the recorded kernel chose is predicted, every call
    is held to the rules (highmem rules), and what the recording does not show is counted as
    unknown.
    """
    from highmem.kernel.profile import load_profile
    from highmem.replay import replay as run
    from highmem.trace import load_probes, read_trace

    chosen = load_profile(profile) if profile else None
    mapping = load_probes(probes) if probes else None
    verdicts = []
    with Exports(exports, len(traces)) as files:
        for name in traces:
            source = files.tap(read_trace(name, probes=mapping))
            verdicts.append(run(source, chosen, ram, files.sinks))
            files.finish(verdicts[-1])
    with open_output(output) as stream:
        if form == "json":
            documents = [verdict.to_dict() for verdict in verdicts]
            shown = documents[0] if len(documents) == 1 else documents
            stream.write(json.dumps(shown, indent=2) + "\n")
        elif form == "ndjson":
            from highmem.report.ndjson import write_ndjson

            for verdict in verdicts:
                write_ndjson(verdict, stream)
        else:
            from highmem.report.text import render_verdict

            console = make_console(stream)
            for verdict in verdicts:
                render_verdict(verdict, console, quiet=quiet)
    codes = {verdict.exit_code for verdict in verdicts}
    if not exit_zero:
        ctx.exit(1 if 1 in codes else max(codes))
