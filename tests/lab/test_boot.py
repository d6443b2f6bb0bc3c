from __future__ import annotations

import mmap
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from highmem import lab
from highmem.kernel.profile import load_profile
from highmem.lab.modules import ModuleTree, module_bytes, module_info
from highmem.replay import replay
from highmem.trace import read_trace
from support.lab_real import real_kernel

# Emulation, even where there is KVM: the same everywhere.
_ACCEL = "tcg"
_SMALL = 256 << 20
_SOURCE = str(Path(__file__).parents[2] / "src")
_HIGHMEM = "highmem=128M"  # so that so small a machine has some


@dataclass
class Heard:
    stdout: bytes = b""
    stderr: bytes = b""
    lines: list[str] = field(default_factory=list)

    def listener(self) -> lab.Listener:
        return lab.Listener(self.lines.append, self._out, self._error)

    def _out(self, data: bytes) -> None:
        self.stdout += data

    def _error(self, data: bytes) -> None:
        self.stderr += data


def symbol(result: lab.Result, name: str) -> int:
    found = re.search(rf"^([0-9a-f]{{8}}) \w {name}$", result.facts["kallsyms"].decode(), re.M)
    assert found is not None, name
    return int(found[1], 16)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_real_kernel_runs_a_job_and_all_of_it_comes_back(tmp_path: Path, private: Path) -> None:
    kernel, busybox = real_kernel()
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    (tmp_path / "tree" / "etc" / "greeting").write_text("from the tree\n")
    image = tmp_path / "memory.raw"
    heard = Heard()
    script = "cat /etc/greeting; cat /bin/busybox | md5sum; grep -c ^loop /proc/modules"
    result = lab.do(
        lab.Job(
            kernel,
            busybox,
            ram=_SMALL,
            command=("sh", "-c", f"{script}; echo 'to the other' >&2; exit 5"),
            tree=tmp_path / "tree",
            modprobe=("loop",),
            record=tmp_path / "out.dat",
            image=image,
            append=_HIGHMEM,
            accel=_ACCEL,
            timeout=200,
        ),
        heard.listener(),
    )
    assert (result.ended, result.status, result.why) == (lab.Ended.DONE, 5, "")
    digest = subprocess.run(["md5sum", busybox], capture_output=True, text=True, check=True)
    assert heard.stdout.decode() == f"from the tree\n{digest.stdout.split()[0]}  -\n1\n"
    assert heard.stderr == b"to the other\n"
    assert list(private.iterdir()) == []
    check_facts(result)
    check_recording(result)
    check_image(result, image)


def check_facts(result: lab.Result) -> None:
    assert f"Linux version {result.kernel.release}" in result.dmesg
    high = re.search(rb"HighTotal: +([0-9]+) kB", result.facts["meminfo"])
    assert high is not None and int(high[1]) == 128 << 10
    assert b"System RAM" in result.facts["iomem"]
    assert b"nokaslr" in result.facts["cmdline"]
    assert symbol(result, "kmap_high") > 0xC0000000


def check_recording(result: lab.Result) -> None:
    assert result.recording is not None
    profile = load_profile(f"debian-{result.kernel.name}")
    verdict = replay(read_trace(result.recording), profile)
    assert verdict.findings == [] and verdict.wrong == 0
    # md5sum of a file of 800 KiB through a pipe maps each of its pages twice.
    assert verdict.right > 800
    assert verdict.account.lost == 0 and verdict.account.rejected == 0


def check_image(result: lab.Result, image: Path) -> None:
    assert [one.path for one in result.images] == [image]
    assert image.stat().st_size == _SMALL
    with (
        open(image, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as memory,
    ):
        assert memory.find(result.facts["version"].strip()) > 0
    registers = result.images[0].registers.read_text()
    assert len(re.findall(r"CR3=[0-9a-f]{8}", registers)) == 2
    for view in result.images[0].tlb:
        lines = dict(line.split(": ") for line in view.read_text().splitlines())
        page = symbol(result, "kmap_high") & ~0xFFF
        # The direct mapping, physical address = virtual address - PAGE_OFFSET, in a page of
        # 4 KiB or of 4 MiB.
        entry = lines.get(f"{page:016x}") or lines[f"{page & ~0x3FFFFF:016x}"]
        assert int(entry.split()[0], 16) in (page - 0xC0000000, (page & ~0x3FFFFF) - 0xC0000000)
    assert all("-rw" in view.read_text() for view in result.images[0].memory)


# -- slow: other ends, other kernels ----------------------------------------------------------


def small(**wishes: object) -> lab.Job:
    kernel, busybox = real_kernel()
    given = {"ram": _SMALL, "accel": _ACCEL, "timeout": 200.0, **wishes}
    return lab.Job(kernel, busybox, **given)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_kernel_that_panics(private: Path) -> None:
    result = lab.do(small(command=("sh", "-c", "echo c >/proc/sysrq-trigger; sleep 60")))
    assert result.ended is lab.Ended.PANIC
    assert result.why == "Kernel panic - not syncing: sysrq triggered crash"
    assert "sysrq_handle_crash" in result.dmesg and result.facts == {}
    assert list(private.iterdir()) == []


@pytest.mark.slow
def test_a_job_without_end_is_ended_and_its_recording_kept(tmp_path: Path, private: Path) -> None:
    job = small(
        command=("sh", "-c", "while :; do cat /bin/busybox >/dev/null; sleep 1; done"),
        record=tmp_path / "out.dat",
        timeout=60.0,
        append=_HIGHMEM,
    )
    result = lab.do(job)
    assert result.ended is lab.Ended.TIMEOUT and result.status is None
    assert "Linux version" in result.dmesg
    check_recording(result)
    assert list(private.iterdir()) == []


@pytest.mark.slow
def test_a_recording_that_fills_the_memory_is_one_line(tmp_path: Path, private: Path) -> None:
    job = small(
        command=("sh", "-c", "dd if=/dev/zero of=/full bs=64k; while :; do cat /bin/busybox; done"),
        record=tmp_path / "out.dat",
        append=_HIGHMEM,
    )
    with pytest.raises(lab.LabError, match=r"^no recording: it does not fit .* --ram$"):
        lab.do(job)
    assert list(private.iterdir()) == []


@pytest.mark.slow
def test_a_guest_that_fills_its_disk_is_one_line(private: Path) -> None:
    job = small(
        command=("sh", "-c", "dd if=/dev/zero of=/lab/out/big bs=1M count=600"), ram=2 << 30
    )
    with pytest.raises(lab.LabError, match="does not fit"):
        lab.do(job)
    assert list(private.iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_of_the_host_is_one_line(tmp_path: Path) -> None:
    kernel, _ = real_kernel()
    little = tmp_path / "little"
    little.mkdir()
    within = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", str(little)]
    if subprocess.run([*within, *mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("no file system can be mounted here")
    run = [
        *(sys.executable, "-m", "highmem", "lab", "run", "--accel", _ACCEL, "--ram", "1G"),
        *("--kernel", kernel.release, "--", "dd", "if=/dev/zero", "of=/lab/out/big"),
        *("bs=1M", "count=80"),
    ]
    script = f"{shlex.join(mount)} && {shlex.join(run)}; echo $?; ls -A {shlex.quote(str(little))}"
    done = subprocess.run(
        [*within, "sh", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": _SOURCE, "TMPDIR": str(little)},
    )
    # The status, and nothing after it: the little disk is empty again.
    assert done.stdout.split() == ["2"]
    assert "highmem: no space left for the machine's disk (see TMPDIR)\n" in done.stderr


@pytest.mark.slow
def test_a_module_that_is_missing_its_needs_is_told(tmp_path: Path) -> None:
    with pytest.raises(lab.LabError, match="no module nothing_like_it"):
        lab.do(small(modprobe=("nothing_like_it",)))


@pytest.mark.slow
def test_a_kernel_without_its_modules_says_what_it_lacks() -> None:
    kernel, busybox = real_kernel()
    bare = lab.own_kernel(kernel.vmlinuz)
    with pytest.raises(lab.LabError, match="virtio_pci, virtio_blk or virtio_console"):
        lab.do(lab.Job(bare, busybox, ram=_SMALL, accel=_ACCEL, timeout=120))


@pytest.mark.slow
@pytest.mark.parametrize("name", lab.NAMES)
def test_every_kernel_starts_with_its_addresses_shuffled(name: str) -> None:
    kernel, busybox = real_kernel(name)
    module = ModuleTree(kernel.modules or Path()).closure(["crc7"])[-1]
    heard = Heard()
    job = lab.Job(
        kernel,
        busybox,
        cpus=4,
        kaslr=True,
        command=("arg=1",),
        module=module,
        accel=_ACCEL,
        timeout=250,
    )
    result = lab.do(job, heard.listener())
    assert result.ended is lab.Ended.DONE, result.why
    # It has no parameter of that name; the kernel says so, and that it was this module.
    assert "crc7: unknown parameter 'arg' ignored" in result.dmesg
    assert result.status == 0, heard.stderr
    assert b"[crc7]" in result.facts["module_kallsyms"]
    assert b"nokaslr" not in result.facts["cmdline"]
    assert kernel.release in result.facts["version"].decode()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("modinfo") is None, reason="no modinfo here")
def test_modinfo_itself_reads_the_same_needs() -> None:
    kernel, _ = real_kernel()
    files = ModuleTree(kernel.modules or Path()).closure(["btrfs", "virtio_gpu"])
    assert len(files) > 10
    for path in files:
        told = subprocess.run(
            ["modinfo", "-F", "depends", path], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert module_info(module_bytes(path), str(path)).get("depends", "") == told


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_lab_check_predicts_every_address_on_every_kernel_at_hand() -> None:
    real_kernel()
    done = subprocess.run(
        [sys.executable, "-m", "highmem", "lab", "check", "--accel", _ACCEL],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": _SOURCE},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every address was predicted" in done.stdout
