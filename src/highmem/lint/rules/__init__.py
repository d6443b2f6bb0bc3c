"""The rules, at the points of a path where they can be broken."""

from __future__ import annotations
