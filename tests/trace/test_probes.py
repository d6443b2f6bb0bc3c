from __future__ import annotations

from pathlib import Path

import pytest

from highmem.errors import InputError
from highmem.trace import DEFAULT_PROBES, load_probes
from highmem.trace.schema import SYMBOLS, Argument, Function, Kind


@pytest.mark.parametrize(
    ("event", "function", "kind"),
    [
        ("m_kmap_atomic_high_prot", Function.KMAP_ATOMIC_HIGH_PROT, Kind.MAP),
        ("r_kmap_atomic_high_prot", Function.KMAP_ATOMIC_HIGH_PROT, Kind.MAP_RETURN),
        ("u_kunmap_atomic_high", Function.KUNMAP_ATOMIC_HIGH, Kind.UNMAP),
        ("m___kmap_local_pfn_prot", Function.KMAP_LOCAL_PFN_PROT, Kind.MAP),
        ("kmap_high", Function.KMAP_HIGH, Kind.MAP),
        ("p_kmap_high_0", Function.KMAP_HIGH, Kind.MAP),
        ("r_kmap_high_0", Function.KMAP_HIGH, Kind.MAP_RETURN),
        ("p___kunmap_atomic_0", Function.KUNMAP_ATOMIC, Kind.UNMAP),
        ("probe:kmap_high", Function.KMAP_HIGH, Kind.MAP),
        ("probe:kmap_high__return", Function.KMAP_HIGH, Kind.MAP_RETURN),
        ("highmem:r_kmap_high__return", Function.KMAP_HIGH, Kind.MAP_RETURN),
        ("kprobes:u_kunmap_high", Function.KUNMAP_HIGH, Kind.UNMAP),
        ("fprobes:kunmap_local_indexed__entry", Function.KUNMAP_LOCAL_INDEXED, Kind.UNMAP),
        ("kmap_high__exit", Function.KMAP_HIGH, Kind.MAP_RETURN),
        ("f_kmap_flush_unused", Function.KMAP_FLUSH_UNUSED, Kind.FLUSH),
        ("kmap_flush_unused", Function.KMAP_FLUSH_UNUSED, Kind.FLUSH),
        ("f___kmap_flush_unused", Function.KMAP_FLUSH_UNUSED, Kind.FLUSH),
    ],
)
def test_usual_names_are_known(event: str, function: Function, kind: Kind) -> None:
    probe = DEFAULT_PROBES.find(event)
    assert probe is not None
    assert (probe.function, probe.kind) == (function, kind)


@pytest.mark.parametrize(
    "event",
    [
        "sched_switch",
        "m_kunmap_high",
        "u_kmap_high",
        "r_kunmap_high",
        "p_kmap_high_5",
        "kmap_highx",
        "",
        ":",
        "kmap_high:",
        "a:b:kmap_high",
        "m_kmap_flush_unused",
        "r_kmap_flush_unused",
    ],
)
def test_other_names_are_not(event: str) -> None:
    assert DEFAULT_PROBES.find(event) is None


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_each_symbol_is_known_by_its_own_name(symbol: str) -> None:
    probe = DEFAULT_PROBES.find(symbol)
    assert probe is not None
    assert probe.function is SYMBOLS[symbol]
    assert (probe.kind is Kind.UNMAP) == ("unmap" in symbol)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "probes.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_mapping_file_adds_to_the_defaults_and_wins(tmp_path: Path) -> None:
    table = load_probes(
        written(
            tmp_path,
            """
            [probes.enter]
            function = "kmap_atomic"
            value = "arg1"
            type = "arg2"
            base = "hex"
            [probes."perf:leave"]
            function = "__kmap_local_pfn_prot"
            kind = "return"
            value = "arg1"
            [probes.kmap_high]
            function = "kunmap_local_indexed"
            [probes.frames]
            function = "__kmap_local_pfn_prot"
            value = "n"
            prot = "p"
            [probes.other]
            function = "kunmap_high"
            value = "where"
            argument = "address"
            """,
        )
    )
    enter = table.find("any:enter")
    assert enter is not None
    assert (enter.function, enter.kind) == (Function.KMAP_ATOMIC, Kind.MAP)
    assert dict(enter.fields) == {"arg1": Argument.PAGE}
    assert (enter.km_type, enter.prot, enter.base) == ("arg2", "prot", 16)
    leave = table.find("perf:leave")
    assert leave is not None
    assert leave.kind is Kind.MAP_RETURN
    assert dict(leave.fields) == {"arg1": Argument.ADDRESS}
    assert table.find("leave") is None
    replaced = table.find("kmap_high")
    assert replaced is not None
    assert replaced.kind is Kind.UNMAP
    frames = table.find("frames")
    assert frames is not None
    assert dict(frames.fields) == {"n": Argument.PFN}
    assert frames.prot == "p"
    other = table.find("other")
    assert other is not None
    assert dict(other.fields) == {"where": Argument.ADDRESS}
    assert table.find("m_kmap_high") == DEFAULT_PROBES.find("m_kmap_high")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no probes in it"),
        ("probes = 3", "no probes in it"),
        ("[probes]", "no probes in it"),
        ("[probe.x]\nfunction='kmap'", "unknown table or key 'probe'"),
        ("[probes", "not a TOML file"),
        ("probes.x = 1", "probes.x: must be a table"),
        ("[probes.x]\nkind='map'", "probes.x: function is missing"),
        (
            "[probes.x]\nfunction='kmalloc'",
            "function 'kmalloc' is not known; known are kmap_atomic",
        ),
        ("[probes.x]\nfunction='kmap'\nkind='unmap'", "cannot be 'unmap' here, only map or return"),
        ("[probes.x]\nfunction='kunmap'\nkind='return'", "cannot be 'return' here, only unmap"),
        ("[probes.x]\nfunction='kmap'\nkind='enter'", "kind 'enter' is not known"),
        ("[probes.x]\nfunction='kmap'\nfield='a'", "unknown key 'field'; known are function, kind"),
        ("[probes.x]\nfunction=3", "function must be a text"),
        ("[probes.x]\nfunction='kmap'\nvalue=''", "value must be a text"),
        ("[probes.x]\nfunction='kmap'\nargument='page'", "argument needs value"),
        ("[probes.x]\nfunction='kmap'\nvalue='a'\nargument='vaddr'", "argument 'vaddr' is not"),
        ("[probes.x]\nfunction='kmap'\nbase='8'", "base '8' is not known; known are auto, dec"),
        ("[probes.x]\nfunction='kmap'\nvalue='a'\nprot='a'", "must be different fields"),
        ("[probes.\"\\u001b[2J\"]\nfunction='no'", r"probes\.\\x1b\[2J: function 'no'"),
    ],
)
def test_a_wrong_mapping_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_probes(written(tmp_path, text))
    assert str(error.value).isprintable()


def test_a_mapping_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_probes(tmp_path / "absent.toml")
    with pytest.raises(InputError, match="is a directory"):
        load_probes(tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\0")
    with pytest.raises(InputError, match="not a TOML file"):
        load_probes(binary)
