"""``highmem rules``: what can be found, and what it means."""

from __future__ import annotations

import json
import sys

import click

from highmem.cli.output import make_console
from highmem.findings import RULES, rule

__all__ = ["rules"]


@click.command()
@click.argument("name", required=False)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def rules(name: str | None, form: str) -> None:
    """List the rules, or explain the one called NAME with an example."""
    chosen = [rule(name)] if name else list(RULES.values())
    if form == "json":
        rows = [{**r._asdict(), "level": r.level.value} for r in chosen]
        click.echo(json.dumps(rows[0] if name else rows, indent=2))
        return
    from highmem.report.text import render_rule, render_rules

    console = make_console(sys.stdout)
    if name:
        render_rule(chosen[0], console)
    else:
        render_rules(chosen, console)
