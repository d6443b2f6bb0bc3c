"""The rules, at the points of a path where they can be broken."""

from __future__ import annotations

from highmem.lint import paths as _paths  # says which of these modules run compiled

del _paths
