"""Recordings of real kernels: one schema of events, and the readers of each format."""

from __future__ import annotations

from highmem.trace.probes import DEFAULT_PROBES, Probe, ProbeTable, load_probes
from highmem.trace.reader import is_compiled, read_trace

__all__ = ["DEFAULT_PROBES", "Probe", "ProbeTable", "is_compiled", "load_probes", "read_trace"]
