"""``highmem layout``: a kernel's address space."""

from __future__ import annotations

import sys

import click

from highmem import __version__
from highmem.errors import HighmemError, UsageError
from highmem.kernel.layout import memparse

__all__ = ["layout"]

DEFAULT_PROFILE = "debian-6.1-686"
_MIN_RAM, _MAX_RAM = 1 << 20, 64 << 30


class _Refused(click.ClickException):
    """One line for the user, and the exit status of bad usage."""

    exit_code = 2


def _ram(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """The bytes that *value* says, as on the kernel's command line."""
    try:
        size = memparse(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None
    if not _MIN_RAM <= size <= _MAX_RAM:
        raise click.BadParameter(f"{value} of RAM: must be 1M to 64G")
    return size


@click.command()
@click.option(
    "--profile", default=DEFAULT_PROFILE, show_default=True, metavar="NAME",
    help="A built-in profile or a TOML file.",
)  # fmt: skip
@click.option(
    "--ram", callback=_ram, default="2G", show_default=True, metavar="SIZE",
    help="Like 512M, 2G, 4G.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
@click.option("--entries", is_flag=True, help="Also list enum fixed_addresses.")
@click.pass_context
def layout(ctx: click.Context, profile: str, ram: int, form: str, entries: bool) -> None:
    """Show where everything lies in a kernel's address space, and why there.

    Prints the 4 GiB of virtual addresses from the top down, every constant with the formula
    that it comes from, and the zones.  RAM is one piece from physical address 0.
    """
    from highmem.kernel.profile import load_profile
    from highmem.report.layout import layout_document, render_layout

    try:
        chosen = load_profile(profile)
        found = chosen.layout(ram)
    except HighmemError as error:
        raise _Refused(str(error)) from None
    given = ctx.get_parameter_source("profile") is click.core.ParameterSource.COMMANDLINE
    how = "given" if given else "default"
    if form == "json":
        import json

        document = {
            "highmem": __version__,
            "profile": {"name": chosen.name, "chosen": how},
            **layout_document(found, chosen.title, entries=entries),
        }
        click.echo(json.dumps(document, indent=2))
        return
    from highmem.cli.output import make_console

    title = f"{chosen.title}  [profile {chosen.name}, {how}; highmem {__version__}]"
    console = make_console(sys.stdout)
    render_layout(found, title, console, entries=entries)
