"""Doing a job: build, start, follow, bring back, and leave nothing behind."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from highmem.errors import UsageError

from . import guest
from .accel import choose, remember_broken
from .errors import LabError
from .initramfs import Contents, write_initramfs
from .job import Ended, Image, Job, Listener, Result
from .modules import module_bytes, module_file, module_info
from .results import new_disk, unpack
from .session import Session
from .snapshot import HOLE, check_image_name, image_path, take_image
from .vm import Machine, MachineConfig, find_qemu

__all__ = ["do"]

_APPEND = "console=ttyS0 quiet panic=-1 log_buf_len=4M"
_ONE_CLOCK = " tsc=reliable"
"""All emulated CPUs read one counter, but the kernel does not take it for that: it would then
estimate each CPU's clock, and the order of events on different CPUs is lost where one of the
estimates stands still until the others have caught up (``kernel/trace/trace_clock.c``)."""
_TOO_MUCH_RAM = (
    "; QEMU's emulation may not run PAE kernels with RAM above 4 GiB (7.2 does not): try --ram 3G"
)
_KVM_START = 20.0
"""Seconds after which a kernel under KVM that has not spoken does not run there: it takes two."""
_FACT_FILES = 3 * (8 << 20)


@dataclass(slots=True)
class _Work:
    """One job under way: its files are in *folder*."""

    job: Job
    folder: Path
    listener: Listener
    images: list[Image] = field(default_factory=list)

    def build(self) -> None:
        """Write the first file system and make the disk."""
        job = self.job
        recording = job.per_cpu_kb() * 1024 * job.cpus if job.record else 0
        run, scripts = "sh /lab/supervise", {}
        if job.record is not None:
            from highmem.record.script import shell_script

            scripts["lab/record"] = shell_script()
            kb = job.per_cpu_kb()
            # What it says has its page of memory before: it must be able to say that there is
            # no more.
            run = (
                "dd if=/dev/zero of=/lab/out/recorder bs=4096 count=1 2>/dev/null\n"
                f"sh /lab/record -o /lab/out/recording -b {kb} -- sh /lab/supervise "
                "2<>/lab/out/recorder"
            )
        contents = Contents(
            busybox=job.busybox,
            job=_script(job),
            run=run,
            modules=job.kernel.modules,
            load=job.modprobe,
            own=(job.module,) if job.module else (),
            workload=job.workload,
            tree=job.tree,
            scripts=scripts,
            take_image=job.image is not None,
        )
        try:
            write_initramfs(contents, self.folder / "initramfs")
        except OSError as error:
            raise LabError(f"{self.folder}: cannot be written: {error.strerror}") from None
        new_disk(self.folder / "disk", recording + _FACT_FILES)

    def machine(self, accel: str, qemu: str) -> Machine:
        """The machine, not started."""
        job = self.job
        append = _APPEND if job.kaslr else f"{_APPEND} nokaslr"
        if accel == "tcg":
            append += _ONE_CLOCK
        return Machine(
            MachineConfig(
                vmlinuz=job.kernel.vmlinuz,
                initramfs=self.folder / "initramfs",
                append=f"{append} {job.append}".strip(),
                cpus=job.cpus,
                ram=job.ram,
                accel=accel,
                disks=(self.folder / "disk",),
                channels=guest.CHANNELS,
                qemu=qemu,
            )
        )

    def take(self, machine: Machine) -> None:
        """Take an image, if one is wanted."""
        if self.job.image is not None:
            path = image_path(self.job.image, len(self.images))
            self.images.append(take_image(machine, path))

    def bring_back(self, session: Session, ended: Ended, begun: float, accel: str) -> Result:
        """The result, from what is on the disk."""
        back = ended not in (Ended.PANIC, Ended.DEAD)
        facts = unpack(self.folder / "disk", self.folder / "back") if back else {}
        notes = _notes(facts.pop("recorder", b""))
        recording = None
        if self.job.record is not None and back:
            recording = self._recording(notes, facts)
        return Result(
            kernel=self.job.kernel,
            ended=ended,
            status=session.status,
            why=session.why,
            accel=accel,
            seconds=time.monotonic() - begun,
            console=session.machine.console.decode(errors="replace"),
            facts=facts,
            recording=recording,
            notes=notes,
            images=tuple(self.images),
        )

    def _recording(self, notes: tuple[str, ...], facts: dict[str, bytes]) -> Path:
        from highmem.trace.tracedat_write import write_tracedat

        assert self.job.record is not None
        folder = self.folder / "back" / "recording"
        if not folder.is_dir():
            said = notes[-1] if notes else "the recorder said nothing"
            if "is the disk full" in said:
                said = "it does not fit into the machine's memory: give it more with --ram"
            raise LabError(f"no recording: {said.replace(' with -b', ' with --buffer-size')}")
        profile = folder / "kprobe_profile"
        if profile.is_file():
            facts["kprobe_profile"] = profile.read_bytes()
        symbols = facts.pop(guest.MODULE_SYMBOLS, b"")
        if symbols:
            with open(folder / "kallsyms", "ab") as stream:
                stream.write(symbols)
        self.listener.progress("writing the recording")
        write_tracedat(folder, self.job.record)
        return self.job.record


def do(job: Job, listener: Listener | None = None) -> Result:
    """Do *job*, tell *listener* how it goes, and return what came of it.

    Where this returns or raises, no QEMU and no temporary file of it is left; the same holds for
    a signal that raises an exception (Ctrl-C does).  Raises LabError, InputError, UsageError.
    """
    listener = listener or Listener()
    _check(job)
    qemu = find_qemu(job.qemu)
    begun = time.monotonic()
    with _private_folder() as folder:
        work = _Work(job, folder, listener)
        work.build()
        for accel, may_fail in choose(job.accel, qemu):
            listener.progress(f"starting {job.kernel.release} ({accel})")
            tried = _one_try(work, accel, qemu, may_fail=may_fail)
            if tried is not None:
                session, ended = tried
                return work.bring_back(session, ended, begun, accel)
            remember_broken(qemu)
            listener.progress("KVM does not run this kernel here: emulating")
    raise AssertionError("the last way of acceleration is never given up")


def _one_try(work: _Work, accel: str, qemu: str, *, may_fail: bool) -> tuple[Session, Ended] | None:
    """Follow the machine under *accel*; None where it *may_fail* and did not even start."""
    job = work.job
    session = None
    try:
        with work.machine(accel, qemu) as machine:
            session = Session(machine, work.listener, lambda: work.take(machine))
            limit = min(_KVM_START, job.timeout) if may_fail else None
            ended = session.follow(job.timeout, job.grace, limit)
    except LabError:
        if may_fail and (session is None or not session.started):
            return None
        raise
    if may_fail and not session.started:
        return None
    if ended is Ended.DEAD and not session.started and accel == "tcg" and job.ram >= HOLE:
        session.why += _TOO_MUCH_RAM
    return session, ended


def _check(job: Job) -> None:
    """Say what is wrong before a machine is started."""
    if job.image is not None:
        check_image_name(job.image, job.ram)
    for path in (job.workload, job.module, job.kernel.vmlinuz):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: no such file")
    if job.module is not None:
        _check_module(job.module, job.kernel.release)
    if job.record is not None:
        parent = job.record.parent
        if not os.access(parent, os.W_OK) or job.record.is_dir():
            raise UsageError(f"{job.record}: cannot be written")


def _check_module(path: Path, release: str) -> None:
    """Say it here where the kernel would refuse the module as built for another."""
    magic = module_info(module_bytes(path), str(path)).get("vermagic", "").split(" ")[0]
    if magic and release != "unknown" and magic != release:
        raise UsageError(f"{path}: built for {magic}, but the kernel is {release}")


def _script(job: Job) -> str:
    if job.module is not None:
        then = job.workload is not None
        return guest.module_job(module_file(job.module), job.command, then=then)
    if job.workload is not None:
        return guest.workload_job()
    return guest.command_job(job.command or ("true",))


def _notes(text: bytes) -> tuple[str, ...]:
    lines = text.replace(b"\0", b"").decode(errors="replace").splitlines()
    said = (line.removeprefix("highmem record: ") for line in lines if line.strip())
    return tuple(line.removesuffix(" in /lab/out/recording") for line in said)


@contextmanager
def _private_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="highmem-lab-")
    except OSError as error:
        raise LabError(f"no temporary folder can be made: {error.strerror} (see TMPDIR)") from None
    with folder as name:
        yield Path(name)
