"""Print the requirements of a dependency group of pyproject.toml (PEP 735), one a line."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["main", "requirements"]

Groups = Mapping[str, Sequence[str | Mapping[str, str]]]


def requirements(groups: Groups, name: str) -> Iterator[str]:
    """Yield the requirements of group ``name``, those of included groups in their place."""
    for item in groups[name]:
        if isinstance(item, str):
            yield item
        else:
            yield from requirements(groups, item["include-group"])


def main(argv: list[str]) -> int:
    """Print the group named in ``argv``; 2 if there is no such group."""
    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    groups = tomllib.loads(pyproject.read_text(encoding="utf-8"))["dependency-groups"]
    if len(argv) != 1 or argv[0] not in groups:
        print(f"usage: groups.py {'|'.join(sorted(groups))}", file=sys.stderr)
        return 2
    print("\n".join(requirements(groups, argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
