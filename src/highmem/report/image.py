"""Memory images as text: the kernel, and its windows."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from highmem import __version__
from highmem.findings import Confidence, Finding, Level
from highmem.image.view import ImageKernel
from highmem.image.windows import PermanentWindow, TemporaryWindow, Windows, slot_name
from highmem.machine.paging import describe_flags
from highmem.report.image_lines import counted, root_line, size_text, title_line
from highmem.trace.printable import printable

__all__ = ["render_info", "render_windows"]

_COLOURS = {Level.ERROR: "bold red", Level.WARNING: "bold yellow", Level.NOTE: "cyan"}
_RANGES_SHOWN = 8
_ROOTS_SHOWN = 5
_FINDINGS_SHOWN = 40


def _facts() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _dim(text: str) -> Text:
    return Text(text, style="dim")


# info


def render_info(kernel: ImageKernel, console: Console) -> None:
    """Print what the image is and which kernel it holds, with how each thing is known."""
    table = _facts()
    source = kernel.source
    table.add_row(
        "image", Text(f"{printable(source.path)} ({source.format}); highmem {__version__}")
    )
    _add_ranges(table, kernel)
    for note in source.notes:
        table.add_row("note", Text(printable(note), style="yellow"))
    _add_kernel(table, kernel)
    _add_roots(table, kernel)
    _add_layout(table, kernel)
    console.print(table)


def _add_ranges(table: Table, kernel: ImageKernel) -> None:
    ranges = kernel.source.ranges
    held = sum(r.size for r in ranges)
    machine = sum(r.size for r in kernel.source.ram)
    count = f"{len(ranges)} range{'s' if len(ranges) != 1 else ''}"
    table.add_row("memory", f"{size_text(held)} in {count}")
    if machine > held:
        table.add_row("", f"of {size_text(machine)} that the machine had; the rest was left out")
    for r in ranges[:_RANGES_SHOWN]:
        table.add_row("", f"{r.start:#011x} to {r.end - 1:#011x}  {size_text(r.size)}")
        following = next((other.start for other in ranges if other.start >= r.end), None)
        if following is not None and len(ranges) <= _RANGES_SHOWN:
            table.add_row("", _dim(f"hole of {size_text(following - r.end)}"))
    if len(ranges) > _RANGES_SHOWN:
        table.add_row("", f"… and {len(ranges) - _RANGES_SHOWN} more; --format json has all")


def _add_kernel(table: Table, kernel: ImageKernel) -> None:
    known = kernel.known
    if known.banner is not None:
        table.add_row("kernel", Text(printable(known.banner.text)))
        table.add_row("", _dim(f"linux_banner at {known.banner.address:#010x}"))
    else:
        release = printable(known.release) if known.release else "no banner found"
        table.add_row("kernel", Text(release))
    table.add_row("profile", Text(f"{kernel.profile.title} [{kernel.profile.name}]"))
    table.add_row("", _dim(kernel.profile_how))
    for note in kernel.profile_notes:
        table.add_row("", _dim(note))
    table.add_row("VMCOREINFO", known.vmcoreinfo_how or "none found")
    names = []
    if known.given is not None:
        given = f"{len(known.given):,} of {printable(known.given.origin)}: {known.given_how}"
        names.append(given)
    if known.kallsyms is not None:
        names.append(f"{len(known.kallsyms):,} of the {known.kallsyms.origin}")
    if known.exports:
        names.append(f"{len(known.exports)} looked up among the exported ones")
    table.add_row("symbols", "\n".join(names) or "none")


def _add_roots(table: Table, kernel: ImageKernel) -> None:
    for number, root in enumerate(kernel.roots[:_ROOTS_SHOWN]):
        kind = "PAE" if root.is_pae else "two-level"
        used = "" if number else ", used"
        table.add_row("" if number else "CR3", f"{root.cr3:#x}, {kind} tables: {root.what}{used}")
        for reason in root.reasons:
            table.add_row("", _dim(f"  {reason}"))
    if len(kernel.roots) > _ROOTS_SHOWN:
        table.add_row("", f"… and {len(kernel.roots) - _ROOTS_SHOWN} more; --format json has all")
    mappings = kernel.mappings
    table.add_row("mapped", f"{len(mappings):,} pages by {mappings.tables:,} tables")
    if len(mappings.missing):
        missing = f"{counted(len(mappings.missing), 'table')} not in the image"
        table.add_row("", Text(missing, style="yellow"))
    if len(mappings.reserved):
        reserved = f"{counted(len(mappings.reserved), 'entry', 'entries')} with reserved bits"
        table.add_row("", Text(reserved, "yellow"))


def _add_layout(table: Table, kernel: ImageKernel) -> None:
    layout = kernel.layout
    high = layout.highend_pfn - layout.highstart_pfn
    table.add_row(
        "layout",
        f"low memory to {layout.high_memory:#010x}, high memory from frame "
        f"{layout.highstart_pfn:#x} on ({size_text(high << 12)}), permanent windows from "
        f"{layout.PKMAP_BASE:#010x}, temporary ones below {layout.window_address(0, 0):#010x}",
    )
    for note in kernel.layout_notes:
        table.add_row("", _dim(note))
    where = [
        f"mem_map {_or_unknown(kernel.mem_map)}, {kernel.struct_page_size} bytes each",
        f"pkmap_count {_or_unknown(kernel.pkmap_count_at)}",
    ]
    if kernel.kmap_ctrl is not None:
        where.append(f"kmap_ctrl at {kernel.kmap_ctrl:#x} of task_struct")
    table.add_row("variables", "; ".join(where))


def _or_unknown(value: int | None) -> str:
    return "not known" if value is None else f"{value:#010x}"


# windows


def render_windows(
    kernel: ImageKernel, windows: Windows, console: Console, *, quiet: bool = False
) -> None:
    """Print every window that is not empty, and what is wrong; with *quiet* only the latter."""
    if not quiet:
        console.print(Text(title_line(kernel), style="bold"))
        console.print(_dim(root_line(kernel)))
        console.print(_cpu_table(windows))
        console.print()
        console.print(_temporary_table(kernel, windows))
        if windows.asleep:
            console.print()
            console.print(_asleep_table(kernel, windows))
        console.print()
        console.print(_permanent_table(kernel, windows))
        for note in windows.notes:
            console.print(Text(f"not known: {note}", style="yellow"))
    for finding in windows.findings[:_FINDINGS_SHOWN]:
        console.print()
        console.print(_finding(finding))
    left = len(windows.findings) - _FINDINGS_SHOWN
    if left > 0:
        console.print(f"… and {left} more findings; --format json has all")
    if not quiet:
        console.print()
        console.print(_conclusion(windows))


def _table(title: str, *headers: str) -> Table:
    """A table; a header that ends in ``>`` stands over numbers, aligned to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for header in headers:
        right = header.endswith(">")
        table.add_column(
            header.rstrip(">"), justify="right" if right else "left", no_wrap=True, overflow="fold"
        )
    return table


def _cpu_table(windows: Windows) -> RenderableType:
    table = _table("CPUs", "CPU>", "runs", "index>", "of", "")
    for state in windows.cpus:
        runs = "not known" if state.task is None else state.task.comm
        if state.online is False:
            runs = "not online"
        index = "not known" if state.index is None else str(state.index)
        odd = ""
        if state.missing:
            slots = ", ".join(map(str, state.missing))
            odd = f"slot {slots} counted but empty: a call in progress"
        table.add_row(str(state.cpu), Text(runs), index, Text(state.index_how), Text(odd, "yellow"))
    return table


def _temporary_table(kernel: ImageKernel, windows: Windows) -> RenderableType:
    if not windows.temporary:
        return Text("No temporary window is open.")
    table = _table(
        "Temporary windows", "CPU>", "slot>", "address", "frame>", "entry>", "flags", "struct page",
        "held",
    )  # fmt: skip
    for window in windows.temporary:
        held = {True: "yes", False: "NO", None: "not known"}[window.held]
        table.add_row(
            str(window.cpu), slot_name(kernel, window.slot), *_cells(kernel, windows, window),
            Text(held, style="bold red" if window.held is False else ""),
        )  # fmt: skip
    return table


def _permanent_table(kernel: ImageKernel, windows: Windows) -> RenderableType:
    last = "not known" if windows.last_pkmap_nr is None else str(windows.last_pkmap_nr)
    where = "pkmap_count not known"
    if windows.pkmap_count_at is not None:
        where = f"pkmap_count at {windows.pkmap_count_at:#010x}"
    about = f"{where}, last_pkmap_nr {last}"
    if not windows.permanent:
        return Text(f"No permanent window is mapped ({about}).")
    table = _table(
        f"Permanent windows ({about})", "nr>", "address", "frame>", "entry>", "flags",
        "struct page", "count>",
    )  # fmt: skip
    for window in windows.permanent:
        count = "?" if window.count is None else str(window.count)
        table.add_row(str(window.nr), *_cells(kernel, windows, window), count)
    return table


def _cells(
    kernel: ImageKernel, windows: Windows, window: TemporaryWindow | PermanentWindow
) -> tuple[str, str, str, str, str]:
    """Address, frame, entry, flags and struct page."""
    level = kernel.root.mode.levels[-1]
    flags = "kmap_prot"
    if window.entry & ~level.table_mask != windows.kmap_prot:
        flags = "|".join(describe_flags(window.entry, level)) or "not present"
    page = "-" if window.page is None else f"{window.page:#010x}"
    return f"{window.address:#010x}", f"{window.pfn:#x}", f"{window.entry:#x}", flags, page


def _asleep_table(kernel: ImageKernel, windows: Windows) -> RenderableType:
    table = _table(
        "Windows of tasks that do not run, kept in kmap_ctrl", "task", "slot>", "entry>", "frame>"
    )
    for task in windows.asleep:
        for slot, entry in enumerate(task.held):
            if entry:
                table.add_row(
                    Text(task.comm), str(slot), f"{entry:#x}", f"{kernel.entry_pfn(entry):#x}"
                )
    return table


def _finding(finding: Finding) -> RenderableType:
    rule = finding.rule
    sure = "" if finding.confidence is Confidence.CERTAIN else f" ({finding.confidence.value})"
    head = Text.assemble(
        (f"{rule.level.value}: {rule.name}", _COLOURS[rule.level]),
        f"{sure}  {finding.where.address or 0:#010x}",
    )
    lines: list[RenderableType] = [Text(printable(finding.what))]
    lines += [_dim(printable(line)) for line in finding.evidence]
    lines += [Text(f"the kernel: {finding.kernel_does}"), Text(f"mend: {rule.fix}")]
    return Group(head, Padding(Group(*lines), (0, 0, 0, 2)))


def _conclusion(windows: Windows) -> Text:
    open_now = sum(window.present for window in windows.temporary)
    mapped = sum(window.present for window in windows.permanent)
    sums = (
        f"{open_now} temporary window{'s' if open_now != 1 else ''} open, {mapped} permanent mapped"
    )
    if not windows.findings:
        return Text(f"{sums}; nothing wrong found", style="bold green")
    return Text(f"{sums}; {counted(len(windows.findings), 'finding')}", style="bold red")
