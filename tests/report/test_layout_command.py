"""``highmem layout`` from its arguments to its output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from highmem import __version__
from highmem.cli.layout import layout


def run(*arguments: str) -> Result:
    return CliRunner().invoke(layout, arguments, env={"COLUMNS": "150"})


# linux-facts.md 9.3.
@pytest.mark.parametrize(
    ("profile", "cpu1_slot0", "pkmap"),
    [
        ("debian-5.10-686", "0xfffa7000", "0xfec00000"),
        ("debian-5.10-686-pae", "0xfffa7000", "0xff000000"),
        ("debian-6.1-686", "0xfffab000", "0xfec00000"),
        ("debian-6.1-686-pae", "0xfffab000", "0xff000000"),
    ],
)
def test_json_of_the_debian_profiles(profile: str, cpu1_slot0: str, pkmap: str) -> None:
    result = run("--profile", profile, "--format", "json", "--entries")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["profile"] == {"name": profile, "chosen": "given"}
    assert document["highmem"] == __version__
    constants = {row["name"]: row["value"] for row in document["constants"]}
    assert constants["PKMAP_BASE"] == pkmap
    begin = next(row for row in document["fixed_addresses"] if row["name"] == "FIX_KMAP_BEGIN")
    slots = document["windows_per_cpu"]
    assert f"{int(begin['address'], 16) - slots * 4096:#x}" == cpu1_slot0


def test_text_names_the_profile_and_how_it_was_chosen() -> None:
    first = run().stdout.splitlines()[0]
    assert f"[profile debian-6.1-686, default; highmem {__version__}]" in first


def test_ram_decides_about_high_memory() -> None:
    assert "no high memory" in run("--ram", "512M").stdout
    assert "high memory" in run("--ram", "4G").stdout
    assert "no high memory" not in run("--ram", "4G").stdout


def test_enum_only_if_asked() -> None:
    assert "enum fixed_addresses" not in run().stdout
    assert "enum fixed_addresses" in run("--entries").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "debian-9"], "debian-9"),
        (["--ram", "lots"], "is not a size"),
        (["--ram", "4K"], "must be 1M to 64G"),
        (["--ram", "65G"], "must be 1M to 64G"),
        (["--format", "xml"], "xml"),
    ],
)
def test_bad_usage_is_status_2_and_no_traceback(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_a_profile_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "impossible.toml"
    path.write_text(
        'name = "impossible"\nfamily = "L1"\nnr_cpus = 32\n'
        "[geometry]\nvmalloc_param = 0x3ffff000\n",
        "utf-8",
    )
    result = run("--profile", str(path))
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "leave nothing for it" in result.stderr
