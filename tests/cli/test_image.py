"""``highmem image`` from its arguments to its output."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from highmem.cli.image import image
from highmem.errors import HighmemError
from support.image_samples import Sample, sample


@pytest.fixture(scope="module")
def one() -> Sample:
    return sample("linux-6.1-686-pae")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(image, arguments, env={"COLUMNS": "160"})
    assert result.exception is None or isinstance(result.exception, SystemExit | HighmemError)
    return result


def test_info_says_what_and_how(one: Sample) -> None:
    result = run("info", one.path)
    assert result.exit_code == 0
    for words in (
        "ELF32 core", "Linux version 6.1.0-50-686-pae", "Debian 6.1.0-50-686-pae",
        "its release is 6.1.0-50-686-pae", "swapper_pg_dir, used", "VMCOREINFO says",
        "maps 40928 frames linearly",
        "45,515 of the kallsyms", "high_memory confirms", "CR3 of CPU 0", "kmap_ctrl at 0x7c4",
    ):  # fmt: skip
        assert words in result.stdout, words


def test_info_as_json(one: Sample) -> None:
    document = json.loads(run("info", one.path, "--format", "json").stdout)
    assert document["schema"] == "highmem.image/1"
    assert document["kernel"]["release"] == "6.1.0-50-686-pae"
    assert document["kernel"]["paging"] == "PAE"
    assert document["roots"][0]["what"] == "swapper_pg_dir" and document["roots"][0]["reasons"]
    assert [int(cpu["cr3"], 16) for cpu in document["cpus"]] == [one.cr3(0), one.cr3(1)]
    assert document["layout"]["highstart_pfn"] == 0x9FE0


def test_windows_as_text(one: Sample) -> None:
    result = run("windows", one.path)
    assert result.exit_code == 0
    for kind in ("temporary", "permanent"):
        for window in one.windows(kind):
            line = next(
                line for line in result.stdout.splitlines() if f"{window.address:#010x}" in line
            )
            assert f"{window.pfn:#x}" in line and f"{window.page:#010x}" in line
    assert "windows-sleep" in result.stdout and "windows-spin" in result.stdout
    assert "4 temporary windows open, 3 permanent mapped; nothing wrong found" in result.stdout


def test_windows_as_json_and_ndjson_say_the_same(one: Sample) -> None:
    document = json.loads(run("windows", one.path, "--format", "json").stdout)
    expected = {(w.cpu, w.slot, w.address, w.pfn, w.page) for w in one.windows("temporary")}
    assert {
        (w["cpu"], w["slot"], int(w["address"], 16), w["pfn"], int(w["page"], 16))
        for w in document["temporary"]
    } == expected
    assert document["findings"] == []
    lines = [
        json.loads(line)
        for line in run("windows", one.path, "--format", "ndjson").stdout.splitlines()
    ]
    assert lines[-1]["type"] == "windows"
    assert {line["schema"] for line in lines} == {"highmem.image/1"}
    for part in ("temporary", "permanent"):
        bare = [
            {k: v for k, v in line.items() if k not in ("type", "schema", "input")}
            for line in lines
            if line["type"] == part
        ]
        assert bare == document[part]


RAM = 256 << 20


def damaged(one: Sample, path: Path, start: int = 0, end: int = RAM) -> str:
    """The sample with a stale window, as a raw file of these physical addresses."""
    kernel = one.kernel
    where = kernel.walk(kernel.layout.window_address(0, 0)).leaf.address
    assert where is not None
    entry = (0xA123 << 12 | kernel.kmap_prot).to_bytes(8, "little")
    with path.open("wb") as file:
        for first, last in kernel.source.ranges:
            first, last = max(first, start), min(last, end)
            if first < last:
                file.seek(first - start)
                file.write(kernel.source.read(first, last - first))
        file.truncate(end - start)
        if start <= where < end:
            file.seek(where - start)
            file.write(entry)
    return str(path)


def test_findings_set_the_exit_status(one: Sample, tmp_path: Path) -> None:
    path = damaged(one, tmp_path / "stale.raw")
    result = run("windows", path)
    assert result.exit_code == 1
    assert "error: stale-window" in result.stdout and "mend:" in result.stdout
    assert run("windows", path, "--exit-zero").exit_code == 0
    quiet = run("windows", path, "-q").stdout
    assert "stale-window" in quiet and "Permanent windows" not in quiet
    (finding,) = json.loads(run("windows", path, "--format", "json").stdout)["findings"]
    assert finding["rule"] == "stale-window"
    different = run("diff", one.path, path, "--range", "ff000000-100000000")
    assert different.exit_code == 1
    assert "opened   0xfffbb000  window: CPU 0, slot 0" in different.stdout
    document = json.loads(run("diff", one.path, path, "--format", "json").stdout)
    assert [change["kind"] for change in document["windows"]] == ["opened"]


def test_map_lists_ranges(one: Sample) -> None:
    result = run("map", one.path, "--range", "fff00000-100000000")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert "window: CPU 1, slot 0" in result.stdout and lines[-1].endswith("FIX_APIC_BASE")
    document = json.loads(run("map", one.path, "--format", "json").stdout)
    pages = sum(row["size"] // row["page_size"] for row in document["mappings"])
    assert pages == len(one.tlb(1))
    rows = run("map", one.path, "--format", "ndjson").stdout.splitlines()
    assert len(rows) == len(document["mappings"]) + 1


def test_map_of_a_process_has_its_user_space(one: Sample) -> None:
    result = run("map", one.path, "--cr3", f"{one.cr3(0):x}", "--range", "0-c0000000")
    assert "user space" in result.stdout
    assert "(given)" in result.stdout


def test_vtop(one: Sample) -> None:
    held = next(iter(one.windows("temporary")))
    result = run("vtop", one.path, f"{held.address:x}", "init_task", "0")
    assert result.exit_code == 0
    assert f"physical {held.pfn << 12:#x} in a page of 4 KiB" in result.stdout
    assert "not mapped: PDPT: not present" in result.stdout
    (one_row,) = json.loads(run("vtop", one.path, "c0000000", "--format", "json").stdout)[
        "translations"
    ]
    assert one_row["physical"] == "0x0"
    assert [step["level"] for step in one_row["steps"]] == ["PDPT", "page directory", "page table"]


def test_read_as_hex_string_raw_and_json(one: Sample, tmp_path: Path) -> None:
    banner = one.kernel.known.banner
    assert banner is not None
    text = run("read", one.path, "linux_banner", "512", "--as", "string").stdout
    assert text == banner.text + "\\n\n"
    dump = run("read", one.path, "linux_banner", "20").stdout.splitlines()
    assert dump[0].startswith(f"{banner.address:08x}  4c 69 6e 75 78 20 76 65  72 73")
    assert dump[0].endswith("|Linux version 6.|") and len(dump) == 2
    target = tmp_path / "bytes"
    assert (
        run("read", one.path, "linux_banner", "5", "--format", "raw", "-o", str(target)).exit_code
        == 0
    )
    assert target.read_bytes() == b"Linux"
    physical = one.kernel.walk(banner.address).physical
    document = json.loads(
        run("read", one.path, f"{physical:x}", "5", "--physical", "--format", "json").stdout
    )
    assert bytes.fromhex(document["hex"]) == b"Linux"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vtop", "IMAGE", "no_such_thing"), "no symbol 'no_such_thing'"),
        (("read", "IMAGE", "0", "16"), "linear address 0x00000000 is not mapped"),
        (("read", "IMAGE", "zz", "16", "--physical"), "no physical address"),
        (("read", "IMAGE", "c0000000", "2G"), "more than can be read at once"),
        (("read", "IMAGE", "c0000000", "many"), "not a size"),
        (("map", "IMAGE", "--cr3", "1000"), "no direct mapping"),
        (("info", "IMAGE", "--symbols", "/no/such/file"), "No such file"),
        (("info", "IMAGE", "--profile", "debian-6.1-686"), "does not fit"),
    ],
)
def test_errors_are_one_line(one: Sample, arguments: tuple[str, ...], message: str) -> None:
    result = run(*(one.path if word == "IMAGE" else word for word in arguments))
    assert isinstance(result.exception, HighmemError)
    text = str(result.exception)
    assert message in text and "\n" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("map", "IMAGE", "--range", "12"),
        ("map", "IMAGE", "--range", "20-10"),
        ("map", "IMAGE", "--cr3", "xyz"),
        ("info",),
        ("windows", "IMAGE", "--format", "xml"),
    ],
)
def test_bad_usage_exits_2(one: Sample, arguments: tuple[str, ...]) -> None:
    result = run(*(one.path if word == "IMAGE" else word for word in arguments))
    assert result.exit_code == 2


def test_a_raw_image_in_pieces(one: Sample, tmp_path: Path) -> None:
    whole = damaged(one, tmp_path / "whole.raw")
    low = damaged(one, tmp_path / "low.raw", 0, 160 << 20)
    high = damaged(one, tmp_path / "high.raw", 160 << 20)
    result = run("windows", f"{low}@0", f"{high}@160M", "--format", "json")
    again = run("windows", f"{low}@0", "--with", f"{high}@160M", "--format", "json")
    assert json.loads(again.stdout)["findings"] == json.loads(result.stdout)["findings"]
    assert result.exit_code == 1
    pieces, single = (
        json.loads(result.stdout),
        json.loads(run("windows", whole, "--format", "json").stdout),
    )
    for part in ("temporary", "permanent", "findings", "cpus"):
        assert pieces[part] == single[part]


def test_the_whole_command_and_its_help() -> None:
    one = sample("linux-5.10-686")
    command = [sys.executable, "-m", "highmem", "image"]
    found = subprocess.run(
        [*command, "windows", one.path], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0 and not found.stderr
    assert "nothing wrong found" in found.stdout
    missing = subprocess.run(
        [*command, "info", "/no/such.raw"], capture_output=True, text=True, check=False
    )
    assert missing.returncode == 2 and not missing.stdout
    assert missing.stderr.startswith("highmem: ") and missing.stderr.count("\n") == 1
    usage = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    for name in ("info", "windows", "map", "vtop", "read", "diff"):
        assert f"  {name}" in usage.stdout
