"""Recordings of real kernels: one schema of events, and the readers of each format."""

from __future__ import annotations

from .probes import DEFAULT_PROBES, Probe, ProbeTable, load_probes
from .reader import read_trace

__all__ = ["DEFAULT_PROBES", "Probe", "ProbeTable", "load_probes", "read_trace"]
