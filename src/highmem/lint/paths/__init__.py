"""The paths of a function: what is known at each point, and what callers must know of it."""

from __future__ import annotations
