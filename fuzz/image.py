"""Fuzz one reader of memory images: ``python fuzz/image.py TARGET [options of libFuzzer]``.

Whatever the bytes are, opening must give an error in one line, or an image that keeps what its
interface promises; anything else is a crash, which libFuzzer writes to a file.  ``fuzz/run.py``
runs all targets for a while.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

# The interpreted modules: coverage can be measured in these.
os.environ["HIGHMEM_INTERPRETED"] = "1"
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("src", "tests")]

import atheris  # noqa: E402

with atheris.instrument_imports(include=["highmem.image", "highmem.trace.source"]):
    from highmem.compiled import load
    from highmem.image.formats.notes import read_notes
    from highmem.image.formats.opening import open_source  # noqa: F401 - instrumented here
    from support.image_reading import check_file
    from support.image_seeds import SEEDS
    from support.image_writers import lzo_literals, snappy_literals

__all__ = ["TARGETS", "seeds"]

_FILE = os.memfd_create("image")
_PATH = Path(f"/proc/self/fd/{_FILE}")


_UNPACK = load(
    "highmem.image.formats._unpack"
)  # by a loader of its own, so it is instrumented here
for _name in ("lzo1x", "_lzo_instructions", "_last_of_length", "snappy"):
    setattr(_UNPACK, _name, atheris.instrument_func(getattr(_UNPACK, _name)))


def _image(data: bytes) -> None:
    os.ftruncate(_FILE, 0)
    os.pwrite(_FILE, data, 0)
    check_file(_PATH)


def _notes(data: bytes) -> None:
    facts = read_notes(data)
    assert all(problem.isprintable() for problem in facts.problems)


def _unpack(data: bytes) -> None:
    for unpack in (_UNPACK.lzo1x, _UNPACK.snappy):
        assert _UNPACK.TRAILING <= unpack(bytearray(data), bytearray(4096)) <= 4096


TARGETS: dict[str, Callable[[bytes], None]] = {
    **dict.fromkeys(("lime", "elf", "kdump", "flattened", "compressed"), _image),
    "notes": _notes,
    "unpack": _unpack,
}
"""What can be fuzzed; raw images have no structure that a byte could break."""

_SEEDED = {
    "elf": ("elf32", "elf64"),
    "kdump": ("kdump-zlib", "kdump-lzo", "kdump-snappy", "kdump-zstd"),
    "compressed": ("gzip", "zstd"),
}


def seeds(target: str) -> list[bytes]:
    """The valid inputs that the fuzzing of *target* starts from."""
    if target == "unpack":
        return [lzo_literals(bytes(40)) + b"\x12a\0\0", snappy_literals(bytes(40)) + b"\x12\1\0"]
    names = _SEEDED.get(target, (target,))
    return [SEEDS[name] for name in names if name in SEEDS]


def _main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(TARGETS)} [options of libFuzzer] [folder]")
    target = sys.argv.pop(1)
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    for number, data in enumerate(seeds(target) if folders else []):
        (folders[0] / f"seed-{number}").write_bytes(data)
    atheris.Setup(sys.argv, TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    _main()
