from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from highmem.errors import UsageError
from highmem.record import probes_for, shell_script
from support.fake_tracefs import SYMBOLS_5_10, SYMBOLS_6_1, FakeKernel

SHELLS: list[tuple[str, ...]] = [("sh",)]
SHELLS += [(name,) for name in ("bash", "ksh") if shutil.which(name)]
SHELLS += [("busybox", "sh")] if shutil.which("busybox") else []
TYPED = ("kmap_atomic", "kmap_atomic_prot", "kunmap_atomic", "kmap_high", "kunmap_high")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path)


@pytest.fixture(params=SHELLS, ids="-".join)
def any_shell(request: pytest.FixtureRequest, tmp_path: Path) -> FakeKernel:
    return FakeKernel(tmp_path, shell=request.param)


def one_line(error: str) -> bool:
    return error.count("\n") == 1 and error.startswith("highmem record: ")


@pytest.mark.parametrize(
    ("machine", "width", "arch", "symbols"),
    [
        ("i686", 8, "x86", SYMBOLS_6_1),
        ("i586", 8, "x86", SYMBOLS_5_10),
        ("i486", 8, "x86", TYPED),
        ("i686", 8, "x86", ("__kmap_atomic", "__unmap_atomic", "__kunmap_atomic", "kmap_high")),
        ("i686", 8, "x86", ("kmap_atomic", "kunmap_atomic_notypecheck", "kmap_high")),
        ("armv7l", 8, "arm", SYMBOLS_5_10),
        ("x86_64", 8, "x86", SYMBOLS_6_1),
        ("i686", 16, "x86_64", SYMBOLS_6_1[:3]),
        ("x86_64", 16, "x86_64", SYMBOLS_6_1[:3]),
        ("x86_64", 16, "x86_64", ()),
        ("i686", 8, "x86", SYMBOLS_6_1[:3]),
        ("i686", 8, "x86", ("kmap_high",)),
        ("mips", 8, "mips", SYMBOLS_6_1),
    ],
)
def test_the_script_chooses_what_python_chooses(
    tmp_path: Path, machine: str, width: int, arch: str, symbols: tuple[str, ...]
) -> None:
    kernel = FakeKernel(tmp_path, machine=machine, width=width, symbols=symbols)
    status, out, error = kernel.run("--probes")
    try:
        expected = probes_for(symbols, arch=arch)
    except UsageError as refusal:
        assert (status, out) == (2, "")
        assert str(refusal) in error
        assert one_line(error)
    else:
        assert (status, error) == (0, "")
        assert tuple(out.splitlines()) == expected.lines
    assert not kernel.written


def test_a_recording_is_a_folder_and_leaves_nothing(any_shell: FakeKernel) -> None:
    kernel = any_shell
    status, out, error = kernel.run("-o", "rec", "--", "sh", "-c", "cat; echo ran; exit 7")
    assert (status, out) == (0, "ran\n")
    assert error.splitlines() == [
        "highmem record: 10 events in rec",
        "highmem record: the command ended with status 7",
    ]
    assert not kernel.left
    lines = [line for line in kernel.written if not line.startswith("-")]
    # The return probes ask for room for 64 calls at a time.
    assert tuple(re.sub("^r64:", "r:", line) for line in lines) == probes_for(SYMBOLS_6_1).lines
    folder = kernel.folder / "rec"
    assert (folder / "per_cpu/cpu0/trace_pipe_raw").read_bytes() == b"x" * 4096
    assert (folder / "events/header_page").read_text().count("field") == 4
    assert (folder / "events/sched/sched_switch/format").exists()
    assert (folder / "saved_cmdlines").read_text() == "1 init\n"
    assert "kmap_high" in (folder / "kallsyms").read_text()
    assert (folder / "version").read_text() == "Linux 6.1\n"
    assert (folder / "trace_clock").read_text() == "global\n"
    assert (folder / "status").read_text() == "7\n"
    assert (folder / "dmesg").read_text() == "said\n"
    assert (kernel.tracefs / "saved_cmdlines_size").read_text() == "128\n"


def test_functions_of_modules_that_come_meanwhile_are_saved_once(any_shell: FakeKernel) -> None:
    kernel = any_shell
    proc = kernel.folder / "proc"
    (proc / "modules").write_text("module 4096 0 - Live 0xf8000000\n")
    new = "f8100000 t misuse_init\t[mis_use]\nf8100100 d data\t[mis_use]\n"
    both = "module 4096 0 - Live 0xf8000000\nmis_use 8192 0 - Live 0xf8100000 (O)\n"
    (kernel.folder / "new").write_text(new + "f8200000 t not_of_it\t[other_mis_use]\n")
    (kernel.folder / "both").write_text(both)
    command = f"cat new >> {proc}/kallsyms; cat both > {proc}/modules"
    status, _, error = kernel.run("-o", "rec", "--", "sh", "-c", command)
    assert (status, error) == (0, "highmem record: 10 events in rec\n")
    lines = (kernel.folder / "rec/kallsyms").read_text().splitlines()
    assert [line for line in lines if "[" in line] == [
        "f8000000 t kmap_atomic\t[module]",
        "f8100000 t misuse_init\t[mis_use]",
    ]


def test_a_module_that_leaves_meanwhile_keeps_its_names(kernel: FakeKernel) -> None:
    proc = kernel.folder / "proc"
    (proc / "modules").write_text("module 4096 0 - Live 0xf8000000\n")
    command = f": > {proc}/modules; sed -i '/module/d' {proc}/kallsyms"
    assert kernel.run("-o", "rec", "--", "sh", "-c", command)[0] == 0
    assert "f8000000 t kmap_atomic\t[module]\n" in (kernel.folder / "rec/kallsyms").read_text()


@pytest.mark.parametrize("name", ["rec.tar", "rec.tar.gz"])
def test_a_recording_may_be_one_tar(kernel: FakeKernel, name: str) -> None:
    status, _, error = kernel.run("-o", name, "-t", "1")
    assert (status, error) == (0, f"highmem record: 10 events in {name}\n")
    with tarfile.open(kernel.folder / name) as tar:
        assert "./per_cpu/cpu0/trace_pipe_raw" in tar.getnames()
    assert not list(kernel.folder.glob("*partial*"))
    assert not kernel.left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_signal_ends_the_recording(kernel: FakeKernel, number: signal.Signals) -> None:
    status, error = kernel.interrupt(kernel.start("-o", "rec", "sleep", "100"), number)
    assert (status, error) == (3, "highmem record: 10 events in rec\n")
    assert (kernel.folder / "rec/per_cpu/cpu0/trace_pipe_raw").stat().st_size == 4096
    assert not kernel.left


def test_a_signal_ends_all_that_the_command_began(any_shell: FakeKernel) -> None:
    kernel = any_shell
    mark = kernel.folder / "outlived"
    child = kernel.start("-o", "rec", "sh", "-c", f"(sleep 3; echo > {mark}) & sleep 100; echo")
    begun = time.monotonic()
    status, error = kernel.interrupt(child, signal.SIGINT)
    assert (status, error) == (3, "highmem record: 10 events in rec\n")
    time.sleep(max(0.0, begun + 4 - time.monotonic()))
    assert not mark.exists()


def test_without_an_end_of_its_own_a_signal_is_the_end(kernel: FakeKernel) -> None:
    status, error = kernel.interrupt(kernel.start("-o", "rec"), signal.SIGINT)
    assert (status, error) == (0, "highmem record: 10 events in rec\n")
    assert not kernel.left


def test_a_signal_while_it_saves_makes_it_give_up(kernel: FakeKernel) -> None:
    kernel.command("dmesg", "#!/bin/sh\nkill -TERM $PPID\nsleep 1\n")
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, error) == (143, "")
    assert not kernel.left
    assert not list(kernel.folder.glob("rec*"))


def test_time_runs_out_on_a_command(kernel: FakeKernel) -> None:
    status, _, error = kernel.run("-o", "rec", "-t", "1", "--", "sleep", "100")
    assert (status, error) == (0, "highmem record: 10 events in rec\n")
    assert not (kernel.folder / "rec/status").exists()
    assert not kernel.left


def test_lost_events_are_told_by_the_status(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, overrun=3)
    status, _, error = kernel.run("-o", "rec", "true")
    assert status == 3
    assert error.endswith("record: 3 events were lost: use larger buffers (-b)\n")
    (kernel.tracefs / "kprobe_events").write_text("")
    (kernel.tracefs / "kprobe_profile").write_text("  m_kmap_high 5 2\n  others_probe 1 9\n")
    status, _, error = kernel.run("-o", "rec2", "true")
    assert status == 3
    assert "2 calls were not seen" in error


def test_probes_that_are_there_are_not_touched(kernel: FakeKernel) -> None:
    probes = kernel.tracefs / "kprobe_events"
    probes.write_text("p:highmem/m_kmap_high kmap_high page=%ax\np:mine/x schedule\n")
    before = kernel.written
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, one_line(error)) == (2, True)
    assert "--remove" in error
    assert kernel.written == before
    assert kernel.run("--remove") == (0, "", "")
    assert kernel.written == [*before, "-:highmem/m_kmap_high"]
    assert not list(kernel.folder.glob("rec*"))


def test_an_instance_that_is_there_is_not_touched(kernel: FakeKernel) -> None:
    instance = kernel.tracefs / "instances/highmem"
    shutil.copytree(kernel.folder / "template", instance)
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, one_line(error)) == (2, True)
    assert (instance / "tracing_on").read_text() == "1\n"
    assert kernel.run("--remove") == (0, "", "")
    assert not instance.exists()


def test_without_instances_the_shared_buffers_are_given_back(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, instances=False)
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, error) == (0, "highmem record: 10 events in rec\n")
    assert not kernel.left
    texts = {
        name: (kernel.tracefs / name).read_text()
        for name in ("tracing_on", "buffer_size_kb", "trace_clock", "trace_options")
    }
    assert texts == {
        "tracing_on": "1\n",
        "buffer_size_kb": "1408\n",
        "trace_clock": "local\n",
        "trace_options": "overwrite\n",
    }
    assert (kernel.tracefs / "events/sched/sched_switch/enable").read_text() == "0\n"


@pytest.mark.parametrize(("file", "text"), [("current_tracer", "function"), ("set_event", "x:y")])
def test_shared_buffers_in_use_are_left_alone(tmp_path: Path, file: str, text: str) -> None:
    kernel = FakeKernel(tmp_path, instances=False)
    (kernel.tracefs / file).write_text(text + "\n")
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, one_line(error)) == (2, True)
    assert "ftrace is in use" in error
    assert (kernel.tracefs / "tracing_on").read_text() == "1\n"
    assert (kernel.tracefs / "trace_clock").read_text().startswith("[local]")
    assert not kernel.written


def test_a_refused_probe_is_one_line(kernel: FakeKernel) -> None:
    # A folder cannot be written to, as a kernel does not take such a probe.
    (kernel.tracefs / "kprobe_events").unlink()
    (kernel.tracefs / "kprobe_events").mkdir()
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, one_line(error)) == (2, True)
    assert "the kernel refused a probe on __kmap_local_page_prot" in error
    assert not (kernel.tracefs / "instances/highmem").exists()
    assert not list(kernel.folder.glob("rec*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-b", "400001"), "no room for buffers of 400001 KB for each of 1 CPUs"),
        (("-b", "0"), "not a number of KB"),
        (("-b", "9999999999"), "not a number of KB"),
        (("-t", "1.5"), "not a number of seconds"),
        (("-t",), "-t needs a value"),
        (("-x",), "-x: no such option"),
        (("no-such-command",), "no-such-command: no such command"),
        (("-o", "proc", "true"), "proc: is there already"),
        (("-o", "missing/rec", "true"), "missing/rec: cannot be written there"),
    ],
)
def test_bad_usage_is_one_line_and_nothing_set(
    kernel: FakeKernel, arguments: tuple[str, ...], words: str
) -> None:
    status, out, error = kernel.run(*arguments)
    assert (status, out, one_line(error)) == (2, "", True)
    assert words in error
    assert not kernel.left
    assert not kernel.written


def test_little_memory_makes_small_buffers(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, low_free=2000, instances=False)
    kernel.command("sleep", f"#!/bin/sh\ncp {kernel.tracefs}/buffer_size_kb seen\n")
    assert kernel.run("-o", "rec", "-t", "1")[0] == 0
    assert (tmp_path / "seen").read_text() == "1000\n"
    tiny = FakeKernel(tmp_path / "tiny", low_free=100)
    status, _, error = tiny.run("-o", "rec", "true")
    assert (status, one_line(error)) == (2, True)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("tracefs/kprobe_events", "without CONFIG_KPROBE_EVENTS"),
        ("proc/kallsyms", "without CONFIG_KALLSYMS"),
    ],
)
def test_a_kernel_without_what_is_needed_is_refused(
    kernel: FakeKernel, missing: str, words: str
) -> None:
    (kernel.folder / missing).unlink()
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, one_line(error)) == (2, True)
    assert words in error


def test_only_root_records(kernel: FakeKernel) -> None:
    kernel.command("id", "#!/bin/sh\necho 1000\n")
    environment = {k: v for k, v in kernel.environment.items() if k != "HIGHMEM_TRACEFS"}
    done = subprocess.run(
        ["sh", "-c", shell_script(), "x", "-o", str(kernel.folder / "rec")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "highmem record: only root may set probes: run it with sudo, or as root\n"


def test_a_full_disk_is_one_line_and_leaves_nothing(kernel: FakeKernel) -> None:
    kernel.command("dd", "#!/bin/sh\nexit 1\n")  # as dd ends where nothing can be written
    status, _, error = kernel.run("-o", "rec", "true")
    assert (status, error) == (2, "highmem record: rec: cannot be written: is the disk full?\n")
    assert not kernel.left
    assert not list(kernel.folder.glob("rec*"))


def test_a_disk_that_fills_while_recording_ends_it(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, entries=10**6)
    kernel.command("dd", "#!/bin/sh\nexit 1\n")
    status, _, error = kernel.run("-o", "rec", "sleep", "100")
    assert (status, error) == (2, "highmem record: rec: cannot be written: is the disk full?\n")
    assert not kernel.left


def test_what_a_killed_recording_leaves_is_removed_on_request(kernel: FakeKernel) -> None:
    child = kernel.start("-o", "rec")
    status, _ = kernel.interrupt(child, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert "instance" in kernel.left
    assert kernel.run("--remove") == (0, "", "")
    assert not kernel.left


def test_the_script_is_plain_sh() -> None:
    text = shell_script(out="it's here", seconds=5, buffer_kb=64)
    assert text.startswith("#!/bin/sh\n")
    assert text.isascii()
    assert "out='it'\"'\"'s here'\nseconds=5\nbuffer_kb=64\nchosen=1\n" in text
    assert not re.search(r"@[A-Z_0-9]+@", text)
    for shell in SHELLS:
        subprocess.run([*shell, "-n", "-c", text], check=True)


@pytest.mark.parametrize("values", [{"seconds": 0}, {"buffer_kb": 10**9}, {"out": ""}])
def test_defaults_that_make_no_sense_are_refused(values: dict) -> None:
    with pytest.raises(UsageError):
        shell_script(**values)
