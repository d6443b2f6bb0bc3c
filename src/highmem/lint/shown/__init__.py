"""What of the findings is shown: baselines, allow comments, changes, fingerprints."""

from __future__ import annotations
