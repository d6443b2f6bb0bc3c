"""Boot logs that people published, reproduced from the formulas (linux-facts.md 9.4).

A row says what the log printed; the configuration beside it is what the log's kernel had.  The
rows marked (1) there need exactly one entry more before the windows, F00F or CYCLONE; both are
tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from highmem.kernel.fixmap import GEOMETRIES
from highmem.kernel.layout import Layout


@dataclass(frozen=True)
class BootLog:
    """What one log printed."""

    name: str
    kernel: str
    s: int
    nr_cpus: int
    fixaddr_start: int
    pkmap: int | None
    lowmem: int | None = None
    cea: int | None = None
    pae: bool = False
    highmem: bool = True
    one_extra: bool = False
    config: dict[str, Any] = field(default_factory=dict)


UP = {"paravirt_bootmap": False, "apei_ghes": False}
UBUNTU_PAE = {"lnw_vrtc": True}
LOGS = [
    BootLog("2.6.20", "2.6.20", 13, 8, 0xFFF4D000, 0xFF800000, one_extra=True),
    BootLog("2.6.24", "2.6.24", 13, 8, 0xFFF4B000, 0xFF800000, 0x38000000, one_extra=True),
    BootLog("2.6.27", "2.6.27", 13, 64, 0xFFC77000, 0xFF400000, 0x38000000, one_extra=True),
    BootLog("2.6.28", "2.6.28", 13, 64, 0xFFC77000, 0xFF400000, 0x373FE000, one_extra=True),
    BootLog(
        "Fedora 2.6.28 PAE, fences", "2.6.28", 27, 32, 0xFFC57000, 0xFF800000, 0x377FE000,
        pae=True, one_extra=True,
    ),
    BootLog(
        "Ubuntu 2.6.32-24-generic-pae", "2.6.32", 19, 8, 0xFFF1D000, 0xFFA00000, 0x379FE000,
        pae=True, one_extra=True,
    ),
    BootLog(
        "4.17-rc5 UP, fences", "4.15", 41, 1, 0xFFF8F000, 0xFF800000, 0x377FE000,
        cea=0xFFC00000, config=UP,
    ),
    BootLog("4.15 UP", "4.15", 20, 1, 0xFFFA4000, 0xFF800000, 0x377FE000, config=UP),
    BootLog("5.1-rc2 UP", "4.19", 41, 1, 0xFFF8F000, 0xFF400000, 0x373FE000, config=UP),
    BootLog(
        "Ubuntu 4.13.0-26 PAE, KPTI backport", "4.15", 20, 8, 0xFFF14000, 0xFFA00000,
        0x379FE000, cea=0xFFC00000, pae=True,
        config={**UBUNTU_PAE, "pkmap_rule": "cpu-entry-area-from-start"},
    ),
    BootLog(
        "Ubuntu 4.15 PAE, LDT remap", "4.19", 20, 8, 0xFFF14000, 0xFF600000, 0x375FE000,
        cea=0xFFA00000, pae=True, config=UBUNTU_PAE,
    ),
    BootLog(
        "4.19/4.20 without HIGHMEM", "4.19", 20, 32, 0xFFD37000, None, cea=0xFF400000,
        highmem=False, config={"apei_ghes": False},
    ),
]  # fmt: skip
CASES = [
    (log, extra)
    for log in LOGS
    for extra in (({"f00f": True}, {"cyclone": True}) if log.one_extra else ({},))
]


def of(log: BootLog, **more: Any) -> Layout:
    geometry = GEOMETRIES[log.kernel].but(**log.config, **more)
    return Layout.of(
        geometry, windows_per_cpu=log.s, nr_cpus=log.nr_cpus, pae=log.pae, ram=3 << 30,
        highmem=log.highmem,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("log", "extra"), CASES, ids=[" ".join([log.name, *extra]) for log, extra in CASES]
)
def test_published_boot_log(log: BootLog, extra: dict[str, Any]) -> None:
    found = of(log, **extra)
    assert log.fixaddr_start == found.FIXADDR_START
    if log.pkmap is not None:
        assert log.pkmap == found.PKMAP_BASE
    if log.lowmem is not None:
        assert found.high_memory - found.PAGE_OFFSET == log.lowmem
    if log.cea is not None:
        assert log.cea == found.CPU_ENTRY_AREA_BASE


@pytest.mark.parametrize("log", [log for log in LOGS if log.one_extra], ids=lambda log: log.name)
def test_those_rows_need_exactly_one_extra_entry(log: BootLog) -> None:
    assert log.fixaddr_start + 4096 == of(log).FIXADDR_START
    assert log.fixaddr_start - 4096 == of(log, f00f=True, cyclone=True).FIXADDR_START
