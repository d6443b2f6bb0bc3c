"""Real recordings, garbled: judged by the engine as by the reference, or refused in one line."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from highmem.errors import HighmemError
from highmem.replay import make_engine
from highmem.replay.detect import detect
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict
from highmem.trace import read_trace

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
MISUSE = sorted((SAMPLES / "misuse").glob("*.trace.zst"))
PARTS = 10
CPUS = ("000", "001", "002", "003", "007", "031", "255")
PIDS = (0, 1, 2, 77, (1 << 22) - 1, 1 << 22, 99_999_999)


@functools.cache
def lines_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        data = zstandard.ZstdDecompressor().stream_reader(file).read()
    return data.decode("latin-1").splitlines()


def some_lines(rng: random.Random) -> list[str]:
    """A recording, or a piece of a long one around calls of permanent windows."""
    if rng.random() < 0.6:
        return list(lines_of(rng.choice(MISUSE)))
    lines = lines_of(SAMPLES / "linux-5.10-686.trace.zst")
    calls = [number for number, line in enumerate(lines) if "kmap_high" in line]
    start = max(0, rng.choice(calls) - rng.randint(10, 3000))
    return lines[:20] + lines[start : start + rng.randint(200, 4000)]


def other_number(rng: random.Random, found: re.Match[str]) -> str:
    number = int(found[0], 16)
    one = rng.choice((number, number ^ 1 << rng.randrange(32), 0xFFFFFFFF, 0, number + 4096))
    return f"0x{one:08x}"


def garble(lines: list[str], rng: random.Random) -> None:
    at = rng.randrange(len(lines))
    changes: list[tuple[str, Callable[[re.Match[str]], str]]] = [
        (r"0x[0-9a-f]{8}", lambda found: other_number(rng, found)),
        (r"\[\d\d\d\]", lambda _: f"[{rng.choice(CPUS)}]"),
        (r"-\d+ ", lambda _: f"-{rng.choice(PIDS)} "),
    ]
    way = rng.randrange(8)
    if way < len(changes):
        lines[at] = re.sub(*changes[way], lines[at])
    elif way == 3:
        del lines[at : at + rng.choice((1, 1, rng.randint(1, 40)))]
    elif way == 4:
        lines.insert(at, rng.choice(lines))
    elif way == 5:
        lines[at] = f"CPU:{rng.randrange(4)} [LOST {rng.randrange(1, 99)} EVENTS]"
    else:
        other = min(len(lines) - 1, at + rng.randint(1, 3))
        lines[at], lines[other] = lines[other], lines[at]
    if not lines:
        lines.append("")


def verdicts(path: Path) -> list[dict[str, Any]]:
    """What the engine says, and the reference."""
    source = read_trace(path)
    batches = list(source)
    profile, evidence, why = detect(batches)
    told = []
    for make in (make_engine, Reference):
        verdict = Verdict(source.name, source.format, profile, why, source.account)
        judging = make(profile, evidence.ram, source.strings, verdict, None)
        for batch in batches:
            judging.feed(batch)
        told.append(judging.finish().to_dict())
    return told


def hold_equal(seed: int, folder: Path) -> bool:
    """Both say the same of the recording that *seed* makes; whether it was one still."""
    rng = random.Random(seed)
    lines = some_lines(rng)
    for _ in range(rng.choice((1, 2, 5, 20, 60))):
        garble(lines, rng)
    path = folder / "garbled.trace"
    path.write_text("\n".join(lines) + "\n", "latin-1")
    try:
        engine, reference = verdicts(path)
    except HighmemError as error:
        assert "\n" not in str(error)
        return False
    assert engine == reference, f"seed {seed}"
    return True


def test_a_garbled_recording_is_judged_alike_or_refused(tmp_path: Path) -> None:
    assert sum(hold_equal(seed, tmp_path) for seed in range(80)) > 30


def test_a_window_below_its_cpu_s_first_is_no_traceback(tmp_path: Path) -> None:
    assert hold_equal(2007, tmp_path)  # the address of a map call, changed by a page


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_same_of_many_more(part: int, tmp_path: Path) -> None:
    seeds = range(1000 + part * 300, 1000 + (part + 1) * 300)
    assert sum(hold_equal(seed, tmp_path) for seed in seeds) > 100
