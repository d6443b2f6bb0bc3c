"""Whatever is done to an image: an error in one line, or a source that keeps its promises."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.image_reading import check_file
from support.image_seeds import SEEDS
from support.image_writers import PAGE, Kdump, Load, elf, flattened

formats = pytest.mark.parametrize("name", sorted(SEEDS))
# The folder is shared by the examples of a test; each writes its own file over the last one.
same_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=settings().max_examples // 3,  # for each of the formats
)

WILD = st.sampled_from(
    [
        0,
        1,
        0x7F,
        0xFF,
        0xFFF,
        0x1000,
        0xFFFF,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**52,
        2**63 - 1,
        2**63,
        2**64 - 4096,
        2**64 - 1,
    ]
)  # table
# Most of what matters is at the start of a file or behind its first pages of headers.
PLACES = st.one_of(st.integers(0, 700), st.integers(4000, 4400), st.integers(0, 30_000))
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("number"), PLACES, WILD, st.sampled_from((1, 2, 4, 8))),
        st.tuples(st.just("cut"), PLACES, st.integers(0, 5000), st.just(0)),
        st.tuples(st.just("grow"), PLACES, st.integers(1, 300), st.integers(0, 255)),
        st.tuples(st.just("end"), PLACES, st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data: bytes, edits: list[tuple[str, int, int, int]]) -> bytes:
    made = bytearray(data)
    for what, place, value, width in edits:
        at = place % (len(made) + 1)
        if what == "number":
            order = "little" if place % 5 else "big"
            made[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, order)  # type: ignore[arg-type]
        elif what == "cut":
            del made[at : at + value]
        elif what == "grow":
            made[at:at] = bytes((width,)) * value
        else:
            del made[at:]
    return bytes(made)


@formats
def test_the_seeds_open_without_a_word(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(SEEDS[name])
    expected = {
        "raw": "1 of 1 files end within a frame of 4 KiB",
        "kdump-zstd": "one part of a split dump: frames 0x1 to 0x9",
    }
    assert check_file(path) == expected.get(name, "")


@formats
@same_folder
@given(edits=EDITS)
def test_damage_is_an_error_or_a_source_that_keeps_its_promises(
    tmp_path: Path, name: str, edits: list[tuple[str, int, int, int]]
) -> None:
    path = tmp_path / name
    path.write_bytes(damaged(SEEDS[name], edits))
    check_file(path)


@formats
def test_every_length_of_a_truncated_image_is_answered(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = SEEDS[name]
    lengths = {*range(0, min(len(data), 700), 23), *range(0, len(data), 1511), len(data) - 1}
    for length in sorted(lengths):
        path.write_bytes(data[:length])
        check_file(path)


def sparse(path: Path, head: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size)


def many_loads(size: int) -> bytes:
    return elf([Load(1, 64, 0, 0, size, size)], bits=64, count=0xFFFE)


HOSTILE = {
    "a core of 65534 headers in a sparse file": (many_loads(1 << 40), 1 << 40),
    "a core of a million headers that are zeros": (
        elf([], bits=64, many=True, count=1 << 20),
        1 << 40,
    ),
    "a kdump of 1 TiB that is empty": (Kdump({}, max_mapnr=1 << 28).build()[:8192], 1 << 40),
    "a kdump whose bitmaps are all ones": (
        Kdump({}, max_mapnr=1 << 26).build()[: 2 * PAGE] + b"\xff" * (1 << 24),
        1 << 40,
    ),
    "a kdump whose bitmaps alternate": (
        Kdump({}, max_mapnr=1 << 26).build()[: 2 * PAGE] + b"\x55" * (1 << 24),
        1 << 40,
    ),
    "a flattened file with a far piece": (flattened(b"x" * 100)[:-16], 1 << 40),
    "a LiME header for all addresses": (SEEDS["lime"][:16] + b"\xff" * 6, 1 << 40),
    "raw zeros": (b"", 1 << 40),
}  # table


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_claims_cost_neither_time_nor_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile"
    sparse(path, *HOSTILE[name])
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from support.image_reading import check_file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "check_file(Path(sys.argv[1]))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # table
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 300 * 1024, f"{int(result.stdout) >> 10} MiB"
    assert time.monotonic() - started < 30
