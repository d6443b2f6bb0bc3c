"""A folder that stands for a kernel's tracefs and proc, and the few commands that act on it.

It holds what a script does against what a kernel would be left with; what a kernel answers is
tested with real ones.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from highmem.record import shell_script

__all__ = ["SYMBOLS_5_10", "SYMBOLS_6_1", "FakeKernel"]

SYMBOLS_6_1 = (
    *("__kmap_local_page_prot", "__kmap_local_pfn_prot", "kunmap_local_indexed"),
    *("kmap_high", "kunmap_high"),
)
SYMBOLS_5_10 = (
    *("kmap_atomic_high_prot", "kunmap_atomic_high", "iounmap_atomic", "kmap_atomic_prot_pfn"),
    *("iomap_atomic_prot_pfn", "kmap_high", "kunmap_high"),
)
_STATS = (
    "entries: {}\noverrun: {}\ncommit overrun: 0\nbytes: 40\ndropped events: 0\nread events: {}\n"
)
_HEADER_PAGE = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:12;\tsize:4084;\tsigned:1;
"""
# A new instance is full of files, and its removal takes them along.
_MKDIR = """\
#!/bin/sh
/bin/mkdir "$@" || exit
case $1 in */instances/highmem) cp -r {template}/. "$1" ;; esac
"""
_RMDIR = (
    '#!/bin/sh\ncase $1 in */instances/highmem) exec rm -r "$1" ;; esac\nexec /bin/rmdir "$@"\n'
)
# Whoever read a buffer finds it empty.
_DD = """\
#!/bin/sh
/bin/dd "$@" || exit
for stats in {tracefs}/instances/highmem/per_cpu/*/stats {tracefs}/per_cpu/*/stats; do
    [ ! -e "$stats" ] || sed -i 's/^entries: .*/entries: 0/' "$stats"
done
"""


@dataclass
class FakeKernel:
    """A kernel in *folder*, run by the shell *shell*."""

    folder: Path
    shell: Sequence[str] = ("sh",)
    machine: str = "i686"
    symbols: Sequence[str] = SYMBOLS_6_1
    instances: bool = True
    entries: int = 10
    overrun: int = 0
    low_free: int = 800_000
    width: int = 8

    def __post_init__(self) -> None:
        for name in ("proc", "bin", "tracefs/events/sched/sched_switch", "template"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "proc/kallsyms").write_text(
            "".join(f"{'c1000000':0>{self.width}} T {name}\n" for name in ("_text", *self.symbols))
            + f"{'f8000000':0>{self.width}} t kmap_atomic\t[module]\n"
        )
        (self.folder / "proc/meminfo").write_text(
            f"MemFree: {self.low_free + 99} kB\nLowFree: {self.low_free} kB\n"
        )
        self._tracefs()
        for name, text in (("mkdir", _MKDIR), ("rmdir", _RMDIR), ("dd", _DD)):
            text = text.format(template=self.folder / "template", tracefs=self.tracefs)
            self.command(name, text)
        self.command(
            "uname", f'#!/bin/sh\n[ "$1" = -m ] && echo {self.machine} || echo Linux 6.1\n'
        )
        self.command("dmesg", "#!/bin/sh\necho said\n")

    @property
    def tracefs(self) -> Path:
        """Where it is mounted."""
        return self.folder / "tracefs"

    def command(self, name: str, text: str) -> None:
        """Make a command that only this kernel has."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def _tracefs(self) -> None:
        for name, text in {
            "kprobe_events": "",
            "saved_cmdlines": "1 init\n",
            "saved_cmdlines_size": "128\n",
            "kprobe_profile": " m_kmap_high 5 0\n",
            "current_tracer": "nop\n",
            "set_event": "",
            "trace": "",
            "events/header_event": "",
            "events/header_page": _HEADER_PAGE,
            "events/sched/sched_switch/format": "name: sched_switch\nID: 3\nformat:\n",
        }.items():
            (self.tracefs / name).write_text(text)
        if self.instances:
            (self.tracefs / "instances").mkdir()
        for place in (self.tracefs, self.folder / "template"):
            for name, text in {
                "tracing_on": "1\n",
                "buffer_size_kb": "7 (expanded: 1408)\n",
                "trace_clock": "[local] global counter\n",
                "trace_options": "print-parent\noverwrite\nrecord-cmd\n",
                "events/enable": "0\n",
                "events/highmem/enable": "0\n",
                "events/sched/sched_switch/enable": "0\n",
                "per_cpu/cpu0/stats": _STATS.format(self.entries, self.overrun, self.entries),
                "per_cpu/cpu0/trace_pipe_raw": "x" * 8192,
            }.items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        """What the script has to know, so that it finds this kernel."""
        return {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "HIGHMEM_TRACEFS": str(self.tracefs),
            "HIGHMEM_PROC": str(self.folder / "proc"),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin the script."""
        script = self.folder / "script.sh"
        script.write_text(shell_script())
        return subprocess.Popen(
            [*self.shell, str(script), *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Its status, what it printed, what it said."""
        child = self.start(*arguments)
        out, error = child.communicate(timeout=60)
        return child.returncode, out, error

    def interrupt(self, child: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
        """Send *child* a signal once it records; its status and what it said."""
        deadline = time.monotonic() + 30
        while not self.recording:
            assert time.monotonic() < deadline
            assert child.poll() is None, child.communicate()
            time.sleep(0.02)
        child.send_signal(number)
        _, error = child.communicate(timeout=60)
        return child.returncode, error

    @property
    def recording(self) -> bool:
        """Whether the probes are on and so is the buffer."""
        place = self.tracefs / ("instances/highmem" if self.instances else "")
        try:
            begun = (place / "events/highmem/enable").read_text() == "1\n"
            return begun and (place / "tracing_on").read_text() == "1\n"
        except FileNotFoundError:
            return False  # it is being made

    @property
    def written(self) -> list[str]:
        """What was written to ``kprobe_events``, in order."""
        return (self.tracefs / "kprobe_events").read_text().splitlines()

    @property
    def left(self) -> set[str]:
        """The probes that were set and not removed, and the instance."""
        probes = {line.split()[0].split(":", 1)[1] for line in self.written if line[0] in "pr"}
        gone = {line[2:] for line in self.written if line.startswith("-:")}
        instance = {"instance"} if (self.tracefs / "instances/highmem").exists() else set()
        return (probes - gone) | instance
