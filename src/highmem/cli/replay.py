"""``highmem replay``: judge recordings of real kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import click

from highmem.cli.exports import Exports, export_options
from highmem.cli.output import make_console, open_output, size_option
from highmem.errors import UsageError

if TYPE_CHECKING:
    from highmem.kernel.profile import Profile
    from highmem.replay import Verdict
    from highmem.trace import ProbeTable

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
@click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Replay N recordings at a time, in processes of their own.  A single recording is never "
    "split: where windows are open across the cut, that would not be exact.",
)
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
    jobs: int,
    quiet: bool,
    exit_zero: bool,
    **exports: str | None,
) -> None:
    """Replay recordings of map and unmap calls through the exact model and judge them.

    TRACE is ftrace text (trace, trace_pipe, trace-cmd report), plain or .gz, .zst, .xz, or -
    for standard input.  Every address that the recorded kernel chose is predicted, every call
    is held to the rules (highmem rules), and what the recording does not show is counted as
    unknown.  Of several recordings one that cannot be read is reported, and the others judged.
    """
    from highmem.kernel.profile import load_profile
    from highmem.trace import load_probes

    if jobs > 1:
        _refuse_jobs(traces, exports)
    chosen = load_profile(profile) if profile else None
    mapping = load_probes(probes) if probes else None
    if len(traces) == 1:
        verdicts = [_judge_one(traces[0], chosen, ram, mapping, exports)]
    else:
        verdicts = _judge_several(traces, chosen, ram, mapping, exports, jobs)
    if verdicts:
        with open_output(output) as stream:
            _write(verdicts, form, stream, quiet=quiet, several=len(traces) > 1)
    codes = {verdict.exit_code for verdict in verdicts}
    if len(verdicts) < len(traces):
        ctx.exit(2)
    if not exit_zero:
        ctx.exit(1 if 1 in codes else max(codes))


def _refuse_jobs(traces: Sequence[str], exports: Mapping[str, str | None]) -> None:
    if "-" in traces:
        raise UsageError("-j is for files: other processes cannot read this one's standard input")
    for name, path in exports.items():
        if path is not None:
            raise UsageError(
                f"-j and --{name} exclude each other: that file is written from each mapping as it "
                "is closed, which stays in the process that replays"
            )


def _judge_one(
    name: str,
    profile: Profile | None,
    ram: int | None,
    probes: ProbeTable | None,
    exports: Mapping[str, str | None],
) -> Verdict:
    """The verdict on the recording *name*, and the files of *exports*."""
    from highmem.replay import replay as run
    from highmem.trace import read_trace

    with Exports(exports, 1) as files:
        verdict = run(files.tap(read_trace(name, probes=probes)), profile, ram, files.sinks)
        files.finish(verdict)
    return verdict


def _judge_several(
    traces: Sequence[str],
    profile: Profile | None,
    ram: int | None,
    probes: ProbeTable | None,
    exports: Mapping[str, str | None],
    jobs: int,
) -> list[Verdict]:
    """The verdicts on those of *traces* that can be judged; a line for each of the others."""
    from highmem.cli.jobs import Judge, judge_all
    from highmem.trace.printable import printable

    Exports(exports, len(traces))  # refuses them
    verdicts = []
    for judged in judge_all(Judge(profile, ram, probes), traces, jobs):
        if isinstance(judged, str):
            click.echo(f"highmem: {printable(judged)}", err=True)
        else:
            verdicts.append(judged)
    return verdicts


def _write(
    verdicts: Sequence[Verdict], form: str, stream: TextIO, *, quiet: bool, several: bool
) -> None:
    """Write *verdicts*; *several* recordings were asked for, so JSON has a list."""
    if form == "json":
        import json

        documents = [verdict.to_dict() for verdict in verdicts]
        stream.write(json.dumps(documents if several else documents[0], indent=2) + "\n")
    elif form == "ndjson":
        from highmem.report.ndjson import write_ndjson

        for verdict in verdicts:
            write_ndjson(verdict, stream)
    elif not quiet or any(verdict.findings for verdict in verdicts):
        from highmem.report.text import render_verdict

        console = make_console(stream)
        for verdict in verdicts:
            render_verdict(verdict, console, quiet=quiet)
