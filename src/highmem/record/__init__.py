"""Recording on a live machine: which probes to set, and a script that sets and removes them.

:func:`probes_for` says which functions of a kernel to probe, :func:`shell_script` writes the
plain ``sh`` that records with them; :mod:`highmem.trace.tracedat_write` makes one file of what
it brings back.
"""

from __future__ import annotations

from .probes import ProbeSet, probes_for
from .script import shell_script

__all__ = ["ProbeSet", "probes_for", "shell_script"]
