"""The formats of memory images, one module for each, behind one interface: ``source``."""

from __future__ import annotations
