"""``python -m highmem``."""

from __future__ import annotations

from highmem.cli import main

if __name__ == "__main__":
    main()
