"""The script that records: plain ``sh``, for a small board with busybox as for any machine.

It finds or mounts tracefs, sets the probes of the kernel it runs on (the choice of
:func:`highmem.record.probes.probes_for`, from the same table), records into buffers of its own
while a command runs, and brings back a folder that :mod:`highmem.trace.rawpipe` reads.  It
removes all that it set, whatever happens; what may stand in its way is one line and status 2.
``highmem record`` runs this script too: there is no second implementation.
"""

from __future__ import annotations

import shlex
from importlib.resources import files

from highmem.errors import UsageError

from .probes import (
    ALL_ROWS,
    GROUP,
    NO_HIGHMEM,
    NO_ROW,
    NO_WINDOWS,
    OTHER_ARCH,
    REGISTERS,
    ROWS,
    SWITCH,
    TABLE,
    all_symbols,
)

__all__ = ["DEFAULT_BUFFER_KB", "DEFAULT_OUT", "shell_script"]

DEFAULT_BUFFER_KB = 8192
"""Of each CPU; the script takes less where the kernel has not so much and none was asked for."""
DEFAULT_OUT = "highmem-recording"
_LARGEST = 999_999_999

_HEADER = """\
#!/bin/sh
# Records the high-memory windows (kmap, kmap_atomic, kmap_local_page) of the kernel it runs on.
# Written by `highmem record --print-script`; needs root, a kernel with CONFIG_KPROBE_EVENTS, and
# sh, dd, grep, sed, sleep, cat: busybox has them.  It removes its probes however it ends.
#
# On the machine to be recorded:
#     sh highmem-record.sh -o rec.tar -t 10                 (or: -- COMMAND ARGUMENTS...)
# Bring rec.tar back (scp, tftp, a card); there make one file of it, which trace-cmd reads too:
#     highmem record --convert rec.tar -o rec.dat && highmem replay rec.dat
# Status: 0 recorded; 2 it could not be, one line says why; 3 recorded, but events were lost or
# it was interrupted.  A second signal, while it saves, makes it give up.
"""


def shell_script(
    *,
    out: str = DEFAULT_OUT,
    seconds: int | None = None,
    buffer_kb: int | None = None,
) -> str:
    """The script, with these defaults for its options ``-o``, ``-t`` and ``-b``.

    *seconds* None: until its command ends or a signal comes.  Raises UsageError for values
    that make no sense.
    """
    for name, value in (("seconds", seconds), ("buffer_kb", buffer_kb)):
        if value is not None and not 0 < value <= _LARGEST:
            raise UsageError(f"{name} {value}: must be from 1 to {_LARGEST}")
    if not out or "\0" in out:
        raise UsageError("the recording needs a name")
    text = files(__package__).joinpath("record.sh").read_text(encoding="ascii")
    settings = "\n".join(
        (
            f"group={GROUP}",
            f"out={shlex.quote(out)}",
            f"seconds={'' if seconds is None else seconds}",
            f"buffer_kb={buffer_kb or DEFAULT_BUFFER_KB}",
            f"chosen={'' if buffer_kb is None else 1}",
            f"keys='{' '.join(row.key for row in ROWS)}'",
            f"local_key={ROWS[0].key}",
            f"names='{'|'.join(all_symbols())}'",
            "# row, kind (m map, r its return, u unmap, f flush), function, what to fetch",
            "table() {",
            "    cat << 'END'",
            *(f"{line.row} {line.letter} {line.symbol} {line.fetch}".rstrip() for line in TABLE),
            "END",
            "}",
        )
    )
    places = {
        "SWITCH": SWITCH,
        "ALL_ROWS": ALL_ROWS,
        "NO_WINDOWS": NO_WINDOWS,
        "NO_HIGHMEM": NO_HIGHMEM,
        "NO_ROW": NO_ROW,
        "OTHER_ARCH": OTHER_ARCH,
        "SETTINGS": settings,
    }
    for arch, registers in REGISTERS.items():
        for number, register in enumerate(registers, 1):
            places[f"{arch.upper()}_{number}"] = register
    for place, filled in places.items():
        text = text.replace(f"@{place}@", filled)
    return _HEADER + text
