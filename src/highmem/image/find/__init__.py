"""What is found in an image without being told: page tables, the kernel, its symbols."""

from __future__ import annotations
