"""From the bytes of a C file to the control-flow graphs of its functions."""

from __future__ import annotations
