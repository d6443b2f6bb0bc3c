"""examples/misuse built and run on real kernels: what `highmem lab run --module --verdict` does."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from highmem import lab
from highmem.replay import replay
from highmem.trace import read_trace
from support.lab_real import real_kernel
from support.misuse_ways import KERNELS, QUIET, UNSEEN, WAYS, agree, cases

pytestmark = pytest.mark.slow

BUILD = Path(__file__).parents[2] / "examples" / "misuse" / "build"

LOCKED = {"address", "mismatch-atomic-kmap", "unmapped", "unmapped-twice"}
"""Nothing can be saved after these: kmap_lock is never given back (docs/misuse.md)."""

LIVE = [
    case for case in cases((w, way.kernels) for w, way in WAYS.items()) if case[1] not in LOCKED
]


@cache
def built(release: str, folder: Path) -> Path | str:
    made = subprocess.run(
        [BUILD, "-o", folder, release], capture_output=True, text=True, timeout=600, check=False
    )
    if made.returncode:
        return made.stderr.strip().splitlines()[-1]
    assert "refused for" in made.stderr  # a page to kunmap_atomic() does not compile
    return Path(made.stdout.strip())


def run(kernel_name: str, what: str, folder: Path, module_folder: Path) -> tuple[lab.Result, Path]:
    kernel, busybox = real_kernel(kernel_name)
    module = built(kernel.release, module_folder)
    if isinstance(module, str):
        pytest.skip(module)
    recording = folder / "out.dat"
    # One CPU further the slots belong to a CPU that is not there: nobody else's are taken.
    words = (f"what={what}", f"cpu={int(what == 'too-deep')}")
    job = lab.Job(kernel, busybox, module=module, command=words, record=recording, timeout=300)
    return lab.do(job, lab.Listener()), recording


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("misuse")


@pytest.mark.parametrize(("kernel", "what"), LIVE)
def test_the_lab_finds_each_misuse(kernel: str, what: str, tmp_path: Path, modules: Path) -> None:
    result, recording = run(kernel, what, tmp_path, modules)
    for _ in range(2 if what == "busy" else 0):
        # It leaves one CPU's windows in the other's area: what meets there next may be init.
        if result.ended is lab.Ended.PANIC:
            result, recording = run(kernel, what, tmp_path, modules)
    assert result.ended is lab.Ended.DONE, result.why
    verdict = replay(read_trace(recording))
    found = [f.rule.name for f in verdict.findings]
    assert found[: 1 if what == "busy" else None] == [WAYS[what].rule]
    assert verdict.profile.name.removesuffix("-pae") == KERNELS[kernel] and verdict.wrong == 0
    # Under emulation these kernels warn of other things while they start.
    agree(verdict.findings[0], result.dmesg[result.dmesg.index("misuse: what=") :])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("what", ["clean", "stale", "stale-quiet", "overrun-quiet"])
def test_the_lab_finds_nothing_in_the_calls_of_the_others(
    kernel: str, what: str, tmp_path: Path, modules: Path
) -> None:
    assert what == "clean" or what in UNSEEN or what in QUIET
    result, recording = run(kernel, what, tmp_path, modules)
    verdict = replay(read_trace(recording))
    assert verdict.findings == [] and verdict.wrong == 0
    faulted = re.search("unable to handle page fault for address: fff", result.dmesg)
    assert bool(faulted) == (what == "stale")
