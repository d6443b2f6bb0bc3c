from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from highmem.errors import UsageError
from highmem.record import probes_for
from highmem.record.probes import REGISTERS, ROWS, TABLE, all_symbols
from highmem.trace.probes import DEFAULT_PROBES
from highmem.trace.schema import SYMBOLS, Argument, Function, Kind
from highmem.trace.source import open_source
from highmem.trace.tracedat import TraceDat

# What each release defines, read in arch/x86/mm/highmem_32.c, iomap_32.c and mm/highmem.c.
FRAMES = {"kmap_atomic_pfn", "kmap_atomic_prot_pfn", "iomap_atomic_prot_pfn"}
PERMANENT = {"kmap_high", "kunmap_high", "kmap_flush_unused"}
PERMANENT_5_11 = {"kmap_high", "kunmap_high", "__kmap_flush_unused"}
KERNELS = {
    "2.6.32": {"kmap_atomic", "kmap_atomic_prot", "kunmap_atomic", "iounmap_atomic"},
    "2.6.36": {"kmap_atomic", "kmap_atomic_prot", "kunmap_atomic_notypecheck", "iounmap_atomic"},
    "3.2": {"__kmap_atomic", "kmap_atomic_prot", "__kunmap_atomic", "iounmap_atomic"},
    "5.4": {"kmap_atomic", "kmap_atomic_prot", "__kunmap_atomic", "iounmap_atomic"},
    "5.10": {"kmap_atomic_high_prot", "kunmap_atomic_high", "iounmap_atomic"},
}
for _symbols in KERNELS.values():
    _symbols |= FRAMES | PERMANENT
KERNELS["6.1"] = {
    *("__kmap_local_page_prot", "__kmap_local_pfn_prot", "kunmap_local_indexed"),
    *PERMANENT_5_11,
}
ERAS = dict.fromkeys(KERNELS, "stack") | {"2.6.32": "typed", "2.6.36": "typed", "6.1": "local"}
LOCAL = KERNELS["6.1"] - PERMANENT_5_11


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_mapping_function_of_a_kernel_is_probed(kernel: str) -> None:
    symbols = KERNELS[kernel]
    probes = probes_for(symbols | {"schedule", "kmalloc"})
    assert probes.era == ERAS[kernel]
    assert {line.split()[1] for line in probes.lines} == symbols
    assert not probes.notes


@pytest.mark.parametrize("kernel", KERNELS)
def test_replay_knows_each_event_by_its_name(kernel: str) -> None:
    probes = probes_for(KERNELS[kernel])
    assert len(probes.events) == len(set(probes.events)) == len(probes.lines)
    for event, line in zip(probes.events, probes.lines, strict=True):
        kind, name = line.split()[0].split(":")
        assert name == f"highmem/{event}"
        found = DEFAULT_PROBES.find(f"highmem:{event}")
        assert found is not None
        assert found.function is SYMBOLS[line.split()[1]]
        assert (kind == "r") == (found.kind is Kind.MAP_RETURN)
        fetched = dict(part.split("=") for part in line.split()[2:])
        if found.kind is Kind.FLUSH:
            assert not fetched
            continue
        argument, _ = next(iter(fetched.items()))
        assert argument in found.fields
        assert fetched.keys() - {argument} <= {found.prot, found.km_type}


@pytest.mark.parametrize("kernel", KERNELS)
def test_each_map_is_seen_at_its_entry_and_at_its_return(kernel: str) -> None:
    kinds: dict[Function, set[Kind]] = {}
    for event in probes_for(KERNELS[kernel]).events:
        probe = DEFAULT_PROBES.find(event)
        assert probe is not None
        kinds.setdefault(probe.function, set()).add(probe.kind)
    alone = {frozenset({Kind.UNMAP}), frozenset({Kind.FLUSH})}
    assert set(map(frozenset, kinds.values())) == {frozenset({Kind.MAP, Kind.MAP_RETURN}), *alone}


def test_only_the_typed_era_records_the_type() -> None:
    for kernel, symbols in KERNELS.items():
        temporary = [
            line
            for line in probes_for(symbols).lines
            if not line.startswith("r:") and line.split()[1] not in PERMANENT | PERMANENT_5_11
        ]
        assert {"type=%dx" in line for line in temporary} == {ERAS[kernel] == "typed"}


def test_what_a_kernel_lacks_is_not_probed() -> None:
    probes = probes_for(KERNELS["5.10"] - {"kmap_atomic_pfn", "kmap_flush_unused"})
    assert not [line for line in probes.lines if "kmap_atomic_pfn " in line or "flush" in line]


@pytest.mark.parametrize(
    ("arch", "symbols", "words"),
    [
        ("x86_64", set(), "64-bit kernel without CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP"),
        ("x86_64", KERNELS["5.10"], "64-bit kernel without CONFIG_DEBUG_KMAP_LOCAL_FORCE_MAP"),
        ("x86", set(), "without CONFIG_HIGHMEM"),
        ("x86", LOCAL, "without CONFIG_HIGHMEM"),
        ("arm", LOCAL, "without CONFIG_HIGHMEM"),
        ("x86", PERMANENT, "no function that maps for a short time"),
        ("mips", KERNELS["6.1"], "probes are known for x86, x86_64 and arm"),
    ],
)
def test_a_kernel_without_windows_is_refused_in_one_line(
    arch: str, symbols: set[str], words: str
) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        probes_for(symbols, arch=arch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "first", "words"), [("x86_64", "%di", "64-bit"), ("arm", "%r0", "ARM")]
)
def test_other_machines_have_other_registers_and_no_verdict(
    arch: str, first: str, words: str
) -> None:
    probes = probes_for(LOCAL if arch == "x86_64" else KERNELS["6.1"], arch=arch)
    assert f"u_kunmap_local_indexed kunmap_local_indexed vaddr={first}" in probes.lines[4]
    assert [note for note in probes.notes if words in note and "cannot judge" in note]


def test_no_line_leaves_a_place_for_an_argument_open() -> None:
    for registers in REGISTERS.values():
        assert not [line for line in TABLE if "@" in line.line(registers)]


def test_the_table_names_functions_of_the_schema_only() -> None:
    assert {line.symbol for line in TABLE} <= set(SYMBOLS)
    assert {row.key for row in ROWS} <= set(all_symbols())
    for line in TABLE:
        probe = DEFAULT_PROBES.find(line.event)
        assert probe is not None
        takes_frame = Argument.PFN in {
            probe.fields.get(part.split("=")[0]) for part in line.fetch.split()
        }
        assert takes_frame == (line.symbol.endswith(("_pfn", "pfn_prot")) and line.letter == "m")


def test_the_recorded_kernel_gets_the_probes_that_it_was_recorded_with(
    real_symbols: Callable[[str], set[str]],
) -> None:
    # samples/README.md: the names of trace-cmd's recording of Debian 5.10.0-32-686-pae.
    probes = probes_for(real_symbols("linux-5.10-686-pae.dat"))
    assert probes.kernels == "5.8 to 5.10"
    assert set(probes.events) >= {
        "m_kmap_atomic_high_prot",
        "r_kmap_atomic_high_prot",
        "u_kunmap_atomic_high",
        "m_kmap_high",
        "r_kmap_high",
        "u_kunmap_high",
    }


@pytest.fixture
def real_symbols() -> Callable[[str], set[str]]:
    def read(name: str) -> set[str]:
        path = Path(__file__).parents[2] / "samples" / name
        source = TraceDat(open_source(path), str(path))
        try:
            lines = source._recording.kallsyms().decode().splitlines()
        finally:
            source.close()
        return {line.split()[2] for line in lines}

    return read
