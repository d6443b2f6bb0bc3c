"""The command line.  Each command is a module of its own, imported when it is used."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import sys

# Most of what is made at the start stays to the end: to look for garbage in it is in vain.
gc.set_threshold(200_000, 20, 100)

from typing import Any  # noqa: E402

import click  # noqa: E402

from highmem import __version__  # noqa: E402
from highmem.errors import HighmemError  # noqa: E402

__all__ = ["main"]

_COMMANDS = {
    "replay": "Judge a recording of a real kernel by the exact model.",
    "sql": "Ask a recording in SQL: its events, mappings, findings and callers.",
    "record": "Record the windows of a running kernel, for replay.",
    "layout": "Show where everything lies in a kernel's address space, and why there.",
    "image": "Show a machine's windows and mappings, from an image of its memory.",
    "lint": "Follow the paths of kernel C code and judge its map and unmap calls.",
    "lab": "Start a real kernel with high memory under QEMU, run code on it, record it.",
    "rules": "List the rules, or explain one.",
}


class _Lazy(click.Group):
    """A group whose commands are modules, so that ``--help`` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"highmem.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HighmemError as error:
            from highmem.trace.printable import printable

            # Names of files may hold anything.
            click.echo(f"highmem: {printable(str(error))}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("highmem: interrupted", err=True)
            ctx.exit(130)


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value:
        return
    from highmem.replay import COMPILED as ENGINE
    from highmem.trace import is_compiled

    how = "compiled" if ENGINE and is_compiled() else "interpreted"
    click.echo(f"highmem {__version__} (engine and readers: {how})")
    ctx.exit()


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 nothing found, 1 findings, 2 bad usage or unreadable input, "
    "3 incomplete (events were lost, the input is cut off).",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version and whether the engine is compiled, and exit.",
)  # fmt: skip
def _group() -> None:
    """Linux's mapping system for high memory, exactly: kmap, kmap_atomic, kmap_local_page."""


def main() -> None:
    """The entry point; never lets a broken pipe or Ctrl-C end in a traceback."""
    # Closed ones (>&-) are None: then nobody wants to see anything.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names that this terminal's encoding does not have must not end in a traceback.
            stream.reconfigure(errors="backslashreplace")
    status = _run()
    if _alone():
        # To take everything apart takes longer than the system needs to take it back whole.
        os._exit(status)
    sys.exit(status)


def _alone() -> bool:
    """Whether no other thread runs: nobody starts one without importing that module."""
    threading = sys.modules.get("threading")
    return threading is None or threading.active_count() == 1


def _run() -> int:
    """Run the command and what is registered for the end; its exit status."""
    try:
        try:
            _group(prog_name="highmem")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        # Whoever read our output has enough; point stdout elsewhere so that the
        # interpreter's own flush at exit does not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        # A full disk, most often: what was shown is not all.
        os.write(2, f"highmem: standard output: {error.strerror}\n".encode())
        return 2
    return status
