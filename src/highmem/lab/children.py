"""Programs that the lab starts do not outlive it, however it ends."""

from __future__ import annotations

import shutil

__all__ = ["dying_with_us"]


def dying_with_us(command: list[str]) -> list[str]:
    """*command*, ended by the kernel when this process ends, where ``setpriv`` is there.

    A signal may end this process in the moment after a program was started and before anybody
    here knows of it.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or shutil.which(command[0]) is None:
        return command
    return [setpriv, "--pdeathsig", "KILL", "--", *command]
