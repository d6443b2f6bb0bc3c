"""The tables that a kernel's read-only part holds: written small, damaged, and not there."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highmem.image.find.banner import find_banner
from highmem.image.find.exports import find_exports
from highmem.image.find.kallsyms import find_kallsyms
from highmem.image.find.kernelcode import (
    find_kmap_ctrl,
    find_last_pkmap_nr,
    find_pkmap_count,
    find_window_bounds,
)
from highmem.image.find.symbols import Symbols
from support.image_samples import sample

BASE = 0xC1000000


def as_rodata(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw.ljust(-(-len(raw) // 4096) * 4096, b"\0"), np.uint8)


def aligned(raw: bytes) -> bytes:
    return raw.ljust(-(-len(raw) // 4) * 4, b"\0")


def write_kallsyms(
    symbols: list[tuple[int, str]], *, relative: bool = True, seqs: bool = False
) -> bytes:
    """The tables as scripts/kallsyms.c lays them down; every token is one character."""
    tokens = [chr(n) if 32 < n < 127 else f"<{n}>" for n in range(256)]
    addresses = [address for address, _ in symbols]
    if relative:
        out = struct.pack(f"<{len(symbols)}I", *(a - addresses[0] for a in addresses))
        out += struct.pack("<I", addresses[0])
    else:
        out = struct.pack(f"<{len(symbols)}I", *addresses)
    out += struct.pack("<I", len(symbols))
    names, markers = b"", []
    for number, (_, name) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        raw = name.encode()
        if len(raw) < 128:
            names += bytes([len(raw)]) + raw
        else:
            names += bytes([len(raw) & 0x7F | 0x80, len(raw) >> 7]) + raw
    out += aligned(names) + struct.pack(f"<{len(markers)}I", *markers)
    if seqs:
        out += aligned(bytes(3 * len(symbols)))
    table, index = b"", []
    for token in tokens:
        index.append(len(table))
        table += token.encode() + b"\0"
    return out + aligned(table) + struct.pack("<256H", *index)


def some_symbols(rng: random.Random, count: int = 1500) -> list[tuple[int, str]]:
    address, found = BASE, []
    for number in range(count):
        name = rng.choice("TtDdRr") + f"symbol_{number}" + "x" * rng.choice([0, 3, 130])
        found.append((address, name))
        address += rng.choice([0, 16, 16, 4096])
    return found


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("seqs", [True, False])
def test_a_table_is_read_back(relative: bool, seqs: bool) -> None:
    rng = random.Random(f"{relative}{seqs}")
    symbols = some_symbols(rng)
    before = rng.randbytes(3 * 4096)
    raw = before + write_kallsyms(symbols, relative=relative, seqs=seqs) + rng.randbytes(5000)
    found = find_kallsyms(as_rodata(raw), BASE)
    assert found is not None
    assert found.addresses.tolist() == [address for address, _ in symbols]
    assert [f"{kind}{name}" for kind, name in zip(found.types, found.names, strict=True)] == [
        name for _, name in symbols
    ]
    table = Symbols.of_kallsyms("test", found)
    assert table.addresses["symbol_7" + symbols[7][1].partition("_7")[2]] == symbols[7][0]


def test_no_table_in_noise_zeros_or_nothing() -> None:
    rng = random.Random(5)
    for raw in (b"", bytes(1 << 16), rng.randbytes(1 << 20), b"\xff" * 8192, b"\0\1" * 50_000):
        assert find_kallsyms(as_rodata(raw), BASE) is None
        assert find_exports(as_rodata(raw), BASE, ["init_task"]) == {}
        assert find_banner(as_rodata(raw), BASE) is None


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=40, deadline=None)
def test_a_damaged_table_is_none_or_a_table(seed: int) -> None:
    rng = random.Random(seed)
    raw = bytearray(bytes(4096) + write_kallsyms(some_symbols(rng, 1100), seqs=rng.random() < 0.5))
    for _ in range(rng.choice([1, 1, 10])):
        at = rng.randrange(4096, len(raw))
        raw[at] = rng.getrandbits(8)
    if rng.random() < 0.3:
        del raw[rng.randrange(4096, len(raw)) :]
    found = find_kallsyms(as_rodata(bytes(raw)), BASE)
    if found is not None:
        assert len(found.addresses) == len(found.names) == len(found.types)
        assert (np.diff(found.addresses) >= 0).all()


# Exported symbols.


@pytest.mark.parametrize("relative", [True, False])
def test_exports_by_distance_and_by_address(relative: bool) -> None:
    names = ["init_task", "mem_map", "high_memory"]
    values = {"init_task": 0xC1A99480, "mem_map": 0xC1CF93C4, "high_memory": 0xC1CF93C0}
    strings = b"\0other\0" + b"\0".join(name.encode() for name in names) + b"\0"
    at_strings = BASE + 4096
    table, raw = b"", strings.ljust(4096, b"\0")
    for number, name in enumerate(names):
        place = BASE + number * 12
        name_at = at_strings + strings.index(b"\0" + name.encode() + b"\0") + 1
        words = [values[name], name_at, 0]
        if relative:
            words = [values[name] - place, name_at - (place + 4), 0]
        table += struct.pack("<3I", *(word & 0xFFFFFFFF for word in words))
    found = find_exports(as_rodata(table.ljust(4096, b"\0") + raw), BASE, [*names, "not_there"])
    assert found == values


# Machine code.


def sample_code(name: str) -> dict[str, bytes]:
    kernel = sample(name).kernel
    functions = ("kunmap_high", "kmap_high", "flush_all_zero_pkmaps", "kmap_local_fork",
                 "__kmap_local_sched_out", "__kmap_local_sched_in", "kunmap_local_indexed",
                 "kunmap_atomic_high")  # fmt: skip
    return {name: kernel.known.code(name) for name in functions}


@pytest.mark.parametrize("name", ["linux-6.1-686-pae", "linux-5.10-686"])
def test_one_function_alone_proves_nothing(name: str) -> None:
    code, data = sample_code(name), sample(name).kernel.known.data
    assert find_pkmap_count(lambda f: code.get(f, b""), data) is not None
    for missing in ("kunmap_high", "kmap_high"):
        rest = {f: body for f, body in code.items() if f != missing}
        assert find_pkmap_count(lambda f, rest=rest: rest.get(f, b""), data) is None  # type: ignore[misc]
    assert find_pkmap_count(lambda f: code.get(f, b""), range(0)) is None
    assert find_pkmap_count(lambda _: b"", data) is None


def test_the_members_place_needs_the_code_that_switches_tasks() -> None:
    code = sample_code("linux-6.1-686-pae")
    # pahole's answer for Debian's 6.1.0-50-686-pae is not at hand; three functions agree on it,
    # and the windows that it leads to are those that the guest printed (test_sample_kernels).
    assert find_kmap_ctrl(lambda f: code.get(f, b"")) is not None
    alone = {"kmap_local_fork": code["kmap_local_fork"]}
    assert find_kmap_ctrl(lambda f: alone.get(f, b"")) is None
    assert find_kmap_ctrl(lambda _: b"") is None
    assert find_kmap_ctrl(lambda f: sample_code("linux-5.10-686").get(f, b"")) is None


def test_bounds_of_the_windows_in_the_code() -> None:
    # linux-facts.md 9.3: FIX_KMAP_BEGIN and FIX_KMAP_END of the Debian kernels.
    for name, bounds in (("linux-6.1-686-pae", (68, 579)), ("linux-5.10-686", (68, 707))):
        code = sample_code(name)
        assert find_window_bounds(lambda f, code=code: code.get(f, b"")) == bounds  # type: ignore[misc]
    assert find_window_bounds(lambda _: b"") is None


@given(seed=st.integers(0, 1 << 32))
@settings(max_examples=30, deadline=None)
def test_code_that_is_garbage_is_no_evidence_and_no_error(seed: int) -> None:
    rng = random.Random(seed)
    data = range(BASE, BASE + (1 << 20))

    def code(_: str) -> bytes:
        return rng.randbytes(300)

    assert find_last_pkmap_nr(code, data, 512) is None
    found = find_pkmap_count(code, data)
    assert found is None or found in data
    bounds = find_window_bounds(code)
    assert bounds is None or bounds[0] < bounds[1]
    find_kmap_ctrl(code)
