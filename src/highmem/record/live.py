"""Recording on this machine: the script of :mod:`highmem.record.script`, run and looked after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from highmem.errors import UsageError
from highmem.trace.tracedat_write import write_tracedat

from .script import shell_script

__all__ = ["record", "remove_probes"]

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SI_KERNEL = 0x80  # include/uapi/asm-generic/siginfo.h: not sent by a process but by a terminal


def record(
    out: str | os.PathLike[str],
    *,
    seconds: int | None = None,
    buffer_kb: int | None = None,
    command: Sequence[str] = (),
    quiet: bool = False,
) -> int:
    """Record this machine until *command* ends, for *seconds*, or until a signal; into *out*.

    Returns 0, or 3 where events were lost or a signal ended it early, 2 where it could not be
    done: the script said why in one line on standard error.  128 and a signal's number: it was
    told to give up.  *out*, a trace.dat, is written in the first two cases only.  Raises
    UsageError where it cannot be.
    """
    target = Path(out)
    try:
        folder = tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        raw = os.path.join(folder, "raw")
        options = ["-o", raw, "--as", os.fspath(out), *(["-q"] if quiet else [])]
        script = shell_script(seconds=seconds, buffer_kb=buffer_kb)
        status = _run(script, [*options, "--", *command])
        if status in (0, 3):
            write_tracedat(raw, out)
        return status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_probes() -> int:
    """Remove what a recording left that had no chance to do so itself; 0, or 2 as above."""
    return _run(shell_script(), ["--remove"])


def _run(script: str, arguments: Sequence[str]) -> int:
    """The status of *script*; signals that this process gets are its signals."""
    watched = {*_FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        # A process that is being started inherits the mask: it has to undo that itself.
        child = subprocess.Popen(
            ["sh", "-c", script, "highmem-record.sh", *arguments],
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
        )
        while child.poll() is None:
            got = signal.sigwaitinfo(watched)
            # Ctrl-C went to the whole group: the script has it already.
            if got.si_signo != signal.SIGCHLD and got.si_code != _SI_KERNEL:
                child.send_signal(got.si_signo)
        return child.returncode if child.returncode >= 0 else 128 - child.returncode
    except FileNotFoundError:
        raise UsageError("no sh on this machine") from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
