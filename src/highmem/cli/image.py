"""``highmem image``: the mapping system of a machine, from an image of its memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from highmem.cli.output import make_console, open_output
from highmem.errors import UsageError

if TYPE_CHECKING:
    from highmem.image.view import ImageKernel

__all__ = ["image"]

_4G = 1 << 32


@click.group()
def image() -> None:
    """The windows and mappings of a 32-bit x86 Linux machine, from its memory.

    IMAGE is raw memory, LiME, an ELF vmcore, or a kdump, plain or compressed; raw memory in
    pieces is several FILE@ADDRESS, or one and --with.  The kernel, its page tables and its
    variables are found in the image; what is given outweighs what is found.
    """


def _number(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """An address in hex."""
    if value is None:
        return None
    try:
        return int(value, 16)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no address in hex") from None


def _range(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int]:
    """``A-B`` in hex: from A up to, not including, B."""
    if value is None:
        return 0, _4G
    first, dash, last = value.partition("-")
    try:
        start, end = int(first, 16), int(last, 16)
    except ValueError:
        start, end = 1, 0
    if not dash or not 0 <= start < end <= _4G:
        raise click.BadParameter(f"{value!r} is no range like c0000000-f7000000")
    return start, end


_OPENING = (
    click.option("--with", "pieces", multiple=True, metavar="FILE@ADDRESS",
                 help="A further piece of raw memory."),
    click.option("--cr3", callback=_number, metavar="ADDRESS",
                 help="Physical address of the page tables, instead of finding them."),
    click.option("--paging", type=click.Choice(["32-bit", "pae"]),
                 help="The kind of page tables, instead of finding out."),
    click.option("--profile", metavar="NAME|FILE", help="The kernel, instead of detecting it."),
    click.option("--symbols", metavar="FILE",
                 help="Symbols: a System.map, a copy of /proc/kallsyms, or a vmlinux."),
)  # fmt: skip


def _opening(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for opening an image; the command gets ``open_it``, a function of paths."""

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        pieces: tuple[str, ...],
        cr3: int | None,
        paging: str | None,
        profile: str | None,
        symbols: str | None,
        **rest: Any,
    ) -> Any:
        def open_it(*paths: str) -> ImageKernel:
            from highmem.image import open_image

            return open_image(
                *paths, *pieces, cr3=cr3, paging=paging, profile=profile, symbols=symbols
            )

        return command(*args, open_it=open_it, **rest)

    for option in reversed(_OPENING):
        wrapped = option(wrapped)
    return wrapped


def _results(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--format`` and ``-o``."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        command = click.option(
            "-o", "--output", metavar="FILE", help="Write the result here."
        )(command)  # fmt: skip
        return click.option(
            "--format", "form", type=click.Choice(formats), default=formats[0], show_default=True
        )(command)

    return add


_exit_zero = click.option("--exit-zero", is_flag=True, help="Exit 0 whatever was found.")


def _write(document: dict[str, Any], form: str, command: str, stream: Any) -> None:
    from highmem.report.image_documents import write_document, write_lines

    if form == "json":
        write_document(document, stream)
    else:
        write_lines(document, command, stream)


def _incomplete(kernel: ImageKernel) -> bool:
    """Whether part of the answer is missing: a damaged file, or tables that it lacks."""
    return kernel.source.damaged or len(kernel.mappings.missing) > 0


@image.command()
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True)
@_opening
@_results("text", "json", "ndjson")
@click.pass_context
def info(
    ctx: click.Context, paths: tuple[str, ...], open_it: Callable[..., ImageKernel], form: str,
    output: str | None,
) -> None:  # fmt: skip
    """Say what the image is, which kernel it holds, and how each thing is known."""
    with open_it(*paths) as kernel, open_output(output) as stream:
        if form == "text":
            from highmem.report.image import render_info

            render_info(kernel, make_console(stream))
        else:
            from highmem.report.image_documents import info_document

            _write(info_document(kernel), form, "info", stream)
        ctx.exit(3 if _incomplete(kernel) else 0)


@image.command()
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True)
@_opening
@_results("text", "json", "ndjson")
@click.option("-q", "--quiet", is_flag=True, help="Print findings only.")
@_exit_zero
@click.pass_context
def windows(
    ctx: click.Context, paths: tuple[str, ...], open_it: Callable[..., ImageKernel], form: str,
    output: str | None, quiet: bool, exit_zero: bool,
) -> None:  # fmt: skip
    """Show the temporary windows of each CPU and the permanent ones, and judge them.

    Held says whether the index of the CPU (up to 5.10) or of the task that runs there (5.11
    on) covers the slot.  Exits 1 if something is wrong.
    """
    from highmem.image.windows import read_windows

    with open_it(*paths) as kernel, open_output(output) as stream:
        found = read_windows(kernel)
        if form == "text":
            from highmem.report.image import render_windows

            render_windows(kernel, found, make_console(stream), quiet=quiet)
        else:
            from highmem.report.image_documents import windows_document

            _write(windows_document(kernel, found), form, "windows", stream)
        code = 1 if found.findings else 3 if _incomplete(kernel) else 0
        ctx.exit(0 if exit_zero else code)


@image.command("map")
@click.argument("paths", metavar="IMAGE...", nargs=-1, required=True)
@_opening
@_results("text", "json", "ndjson")
@click.option(
    "--range", "limits", callback=_range, metavar="A-B", help="Only these addresses, in hex."
)
@click.option("--exact", is_flag=True, help="Let ACCESSED and DIRTY part the rows too.")
@click.pass_context
def map_(
    ctx: click.Context, paths: tuple[str, ...], open_it: Callable[..., ImageKernel], form: str,
    output: str | None, limits: tuple[int, int], exact: bool,
) -> None:  # fmt: skip
    """List all mappings, adjacent ones merged, with their region.

    The page tables are swapper_pg_dir's where that is known, so there is no user space; give a
    process's CR3 to see its own.
    """
    from highmem.image.maps import map_rows

    with open_it(*paths) as kernel, open_output(output) as stream:
        rows = map_rows(kernel, *limits, exact=exact)
        if form == "text":
            from highmem.report.image_lines import write_map

            write_map(kernel, rows, stream)
        else:
            from highmem.report.image_documents import map_document

            _write(map_document(kernel, rows), form, "map", stream)
        ctx.exit(3 if _incomplete(kernel) else 0)


@image.command()
@click.argument("path", metavar="IMAGE")
@click.argument("addresses", metavar="ADDR...", nargs=-1, required=True)
@_opening
@_results("text", "json", "ndjson")
def vtop(
    path: str, addresses: tuple[str, ...], open_it: Callable[..., ImageKernel], form: str,
    output: str | None,
) -> None:  # fmt: skip
    """Walk the page tables for addresses, level by level.

    ADDR is in hex, or a symbol that the kernel exports or that --symbols has, like
    init_task+0x40.
    """
    from highmem.image.vtop import parse_address, translate

    with open_it(path) as kernel, open_output(output) as stream:
        found = [translate(kernel, parse_address(kernel, text)) for text in addresses]
        if form == "text":
            from highmem.report.image_lines import write_vtop

            write_vtop(kernel, found, stream)
        else:
            from highmem.report.image_documents import vtop_document

            _write(vtop_document(kernel, found), form, "vtop", stream)


@image.command()
@click.argument("path", metavar="IMAGE")
@click.argument("address", metavar="ADDR")
@click.argument("length", metavar="LEN")
@_opening
@_results("hex", "raw", "json")
@click.option("--physical", is_flag=True, help="ADDR is physical.")
@click.option("--as", "kind", type=click.Choice(["string"]), help="Up to the first zero byte.")
def read(
    path: str, address: str, length: str, open_it: Callable[..., ImageKernel], form: str,
    output: str | None, physical: bool, kind: str | None,
) -> None:  # fmt: skip
    """Read LEN bytes at ADDR, through the page tables or from physical memory.

    ADDR is in hex or a symbol; LEN is like 64, 0x40 or 4K.
    """
    from highmem.image.vtop import parse_address
    from highmem.kernel.layout import memparse

    size = memparse(length)
    with open_it(path) as kernel:
        if physical:
            try:
                at = int(address, 16)
            except ValueError:
                raise UsageError(f"{address!r} is no physical address in hex") from None
        else:
            at = parse_address(kernel, address)
        from highmem.cli.image_read import read_bytes, write_bytes

        data = read_bytes(kernel, at, size, physical=physical)
        write_bytes(data, at, form=form, output=output, as_string=kind == "string")


@image.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@_opening
@_results("text", "json", "ndjson")
@click.option(
    "--range", "limits", callback=_range, metavar="A-B", help="Mappings of these addresses only."
)
@_exit_zero
@click.pass_context
def diff(
    ctx: click.Context, before: str, after: str, open_it: Callable[..., ImageKernel], form: str,
    output: str | None, limits: tuple[int, int], exit_zero: bool,
) -> None:  # fmt: skip
    """Show the windows and mappings that changed from image A to image B.

    Both are opened with the same options.  Exits 1 if anything changed.
    """
    from highmem.image.diff import diff_images

    with open_it(before) as first, open_it(after) as second, open_output(output) as stream:
        found = diff_images(first, second, *limits)
        if form == "text":
            from highmem.report.image_lines import write_diff

            write_diff(first, second, found, stream)
        else:
            from highmem.report.image_documents import diff_document

            _write(diff_document(first, second, found), form, "diff", stream)
        ctx.exit(1 if found.changed and not exit_zero else 0)
