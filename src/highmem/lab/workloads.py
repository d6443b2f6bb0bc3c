"""Workloads that come with the lab."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["mixed_workload"]


def mixed_workload(folder: Path, rounds: int = 1) -> Path:
    """The mixed workload of ``lab check`` as a file in *folder*, *rounds* times as long.

    File copies, symbolic links, pipes, fork and exec side by side, then memory pressure
    without swap: every way into the mapping functions that a machine without disks has.
    """
    text = resources.files(__package__).joinpath("mixed.sh").read_text(encoding="ascii")
    path = folder / "mixed.sh"
    path.write_text(f"HIGHMEM_ROUNDS={rounds}\n{text}", encoding="ascii")
    return path
