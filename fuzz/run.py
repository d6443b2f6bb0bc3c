"""Fuzz every reader of memory images for a while: ``python fuzz/run.py [SECONDS]`` (60 in all).

Exits 1 where a target crashed, hung or took too much memory; the input is kept and named.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["main"]

_TARGETS = ("lime", "elf", "kdump", "flattened", "compressed", "notes", "unpack")
_LIMITS = ("-timeout=20", "-rss_limit_mb=1024", "-max_len=40000")


def main(arguments: list[str]) -> int:
    """Run all targets one after the other; the exit status."""
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed here (it has no wheel for every Python): skipped")
        return 0
    total = int(arguments[0]) if arguments else 60
    kept = Path(tempfile.mkdtemp(prefix="highmem-fuzz-"))
    failed = [
        name for name in _TARGETS if not _survives(name, max(1, total // len(_TARGETS)), kept)
    ]
    if failed:
        print(f"fuzz: {', '.join(failed)} failed, inputs are in {kept}")
        return 1
    kept.rmdir()
    return 0


def _survives(name: str, seconds: int, kept: Path) -> bool:
    """Fuzz target *name*; True if nothing was found."""
    script = Path(__file__).with_name("image.py")
    with tempfile.TemporaryDirectory(prefix="highmem-corpus-") as corpus:
        result = subprocess.run(
            [
                sys.executable,
                str(script),
                name,
                *_LIMITS,
                f"-max_total_time={seconds}",
                f"-artifact_prefix={kept}/{name}-",
                corpus,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        done = re.search(r"Done (\d+) runs", result.stderr)
    good = result.returncode == 0
    print(f"fuzz: {name}: {done[1] if done else 0} inputs{'' if good else ': FAILED'}")
    if not good:
        print(result.stdout[-2000:] + result.stderr[-4000:])
    return good


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
