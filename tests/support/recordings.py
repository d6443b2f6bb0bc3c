"""Recordings for tests of the replay: pieces of the real ones, and programs recorded on the model.

A :class:`Recorder` runs calls on a ``highmem.kernel.Kernel`` and writes down what a probe set
on such a kernel shows: entry of the map function, return, entry of the unmap function, under
the names of that era, with sched_switch.  What the kernel did is then known for certain, its
own complaints (``kernel.log``) included.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import zstandard

from highmem.findings import Finding
from highmem.kernel.bug import Splat
from highmem.kernel.context import Task
from highmem.kernel.kernel import Kernel
from highmem.kernel.pages import Page
from highmem.kernel.profile import Era, Profile
from highmem.replay.detect import Evidence, detect
from highmem.replay.reference import Reference
from highmem.replay.verdict import Verdict
from highmem.trace.ftrace_text import FtraceText
from highmem.trace.source import ByteSource

from .ftrace_writer import Call, Event, Lost, State, Style, Switch, recording

__all__ = [
    "Recorder",
    "body_of",
    "dmesg",
    "header_of",
    "judge",
    "real_findings",
    "rule_names",
    "sample",
]

SAMPLES = Path(__file__).parents[2] / "samples"


@cache
def sample(name: str) -> tuple[bytes, ...]:
    """The lines of the recording *name* of samples/, newlines included."""
    raw = (SAMPLES / f"{name}.trace.zst").read_bytes()
    text = zstandard.ZstdDecompressor().stream_reader(raw).read()
    return tuple(text.splitlines(keepends=True))


def header_of(lines: Iterable[bytes]) -> list[bytes]:
    """The comment lines that name the columns, without the count of written events."""
    return [line for line in lines if line.startswith(b"#") and b"entries" not in line]


def body_of(lines: Iterable[bytes]) -> list[bytes]:
    """The lines that are events."""
    return [line for line in lines if not line.startswith(b"#")]


def dmesg(name: str) -> str:
    """What the real kernel said during the recording *name*."""
    return (SAMPLES / f"{name}.dmesg.txt").read_text("utf-8")


def judge(
    text: bytes | Iterable[bytes], profile: Profile | None = None, ram: int | None = None
) -> Verdict:
    """The reference's verdict on a recording; every line of it is accounted for.

    The profile is detected and the RAM chosen as :func:`highmem.replay.replay` does it.
    """
    data = text if isinstance(text, bytes) else b"".join(text)
    source = FtraceText(ByteSource("test.trace", io.BytesIO(data)))
    batches = list(source)
    evidence, how = Evidence(), "given"
    if profile is None:
        profile, evidence, how = detect(batches)
    else:
        for batch in batches:
            evidence.add(batch)
    verdict = Verdict(source.name, source.format, profile, how, source.account)
    engine = Reference(profile, ram or evidence.ram, source.strings, verdict)
    for batch in batches:
        engine.feed(batch)
    engine.finish()
    account = verdict.account
    assert account.lines == account.events + account.passed_over + account.rejected
    return verdict


def real_findings(verdict: Verdict) -> list[Finding]:
    """Its findings but for the note that events were lost."""
    return [found for found in verdict.findings if found.rule.name != "lost-events"]


def rule_names(verdict: Verdict) -> list[str]:
    """The names of the rules of :func:`real_findings`."""
    return [found.rule.name for found in real_findings(verdict)]


_MAP_PAGE = {Era.TYPED: ("kmap_atomic_prot",), Era.LOCAL: ("__kmap_local_page_prot",)}
_UNMAP = {Era.TYPED: "kunmap_atomic_notypecheck", Era.LOCAL: "kunmap_local_indexed"}


class Recorder:
    """A kernel of *profile* with *cpus* CPUs, and the recording of what it does.

    Calls act on the CPU and task of :meth:`run`.  *outer* also probes the function around the
    one that chooses the window (``kmap_atomic`` around ``kmap_atomic_prot``,
    ``__kmap_local_page_prot`` around ``__kmap_local_pfn_prot``).  A call at which the kernel
    hits a BUG raises KernelBug after its entry event, as the real one would never return.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        cpus: int = 2,
        ram: int = 2 << 30,
        outer: bool = True,
        switches: bool = True,
        style: Style | None = None,
    ) -> None:
        self.profile = profile
        self.kernel = Kernel.boot(profile, ram=ram, cpus=cpus)
        self.ram = ram
        self.style = style or Style(flags=5 if profile.era is Era.LOCAL else 4)
        self.events: list[tuple[State, Event]] = []
        self.time = 9_000_000_000
        self._outer = outer
        self._switches = switches
        self._tasks: dict[str, Task] = {}
        self._heard = 0

    # Who runs.

    def task(self, name: str) -> Task:
        """The task of that name; made when first asked for."""
        if name not in self._tasks:
            self._tasks[name] = self.kernel.spawn(name, 100 + len(self._tasks))
        return self._tasks[name]

    def tasks(self) -> list[Task]:
        """All tasks made so far."""
        return list(self._tasks.values())

    def run(self, cpu: int, name: str = "", state: str = "S") -> None:
        """From here on calls are those of task *name* (or of whoever is there) on *cpu*; the
        task that runs there leaves in *state*."""
        self.kernel.run_on(cpu)
        if name and self.kernel.current is not self.task(name):
            self.switch(self.task(name), state)

    def switch(self, task: Task, state: str = "S") -> None:
        """sched_switch on this CPU; *state* is that of the task that leaves."""
        if self._switches:
            comm = b"swapper" if task.pid == 0 else task.comm.encode()
            self._add(Switch(state, comm, task.pid))
        self.kernel.context.switch_to(task)

    def exit(self) -> None:
        """The running task ends."""
        # A BUG in the push leaves the index past the end of pteval[], where there is nothing.
        ctrl = self.kernel.current.kmap_ctrl
        ctrl.idx = min(ctrl.idx, len(ctrl.pteval))
        self.switch(self.kernel.context.this.idle, "X")

    @contextmanager
    def hardirq(self) -> Iterator[None]:
        """A hard interrupt on this CPU."""
        self.kernel.context.irq_enter()
        yield
        self.kernel.context.irq_exit()

    @contextmanager
    def softirq(self) -> Iterator[None]:
        """A soft interrupt on this CPU."""
        self.kernel.context.softirq_enter()
        yield
        self.kernel.context.softirq_exit()

    def lost(self, cpu: int, count: int = 0) -> None:
        """The recording says that events of *cpu* were lost here."""
        self.events.append((State(cpu=cpu, time=self.time), Lost(count)))

    # Events.

    def _add(self, event: Event) -> None:
        this = self.kernel.context.this
        self.time += 1000
        migrate = this.current.migrate_disabled if self.style.flags == 5 else 0
        state = State(
            comm=b"<idle>" if this.current.pid == 0 else this.current.comm.encode(),
            pid=this.current.pid,
            cpu=this.id,
            time=self.time,
            irqs_off=self.kernel.context.irqs_disabled(),
            hardirq=this.hardirq_count > 0,
            softirq=this.softirq_count > 0,
            preempt=this.preempt_count & 0xF,
            migrate=min(migrate, 15),
        )
        self.events.append((state, event))

    def enter(self, symbol: str, **fields: int) -> None:
        """The event of *symbol*'s entry."""
        self._heard = len(self.kernel.log)
        letter = "u" if "unmap" in symbol else "f" if "flush" in symbol else "m"
        shown = tuple((k, str(v) if k == "type" else f"{v:#x}") for k, v in fields.items())
        self._add(Call(f"{letter}_{symbol}", f"{symbol}+0x0/0x90", shown))

    def leave(self, symbol: str, address: int, caller: str) -> None:
        """The event of *symbol*'s return."""
        place = f"{caller}+0x1f/0x80 <- {symbol}"
        self._add(Call(f"r_{symbol}", place, (("vaddr", f"{address:#x}"),)))

    def said(self) -> list[Splat]:
        """What the kernel complained about in the last call."""
        return self.kernel.log.splats[self._heard :]

    @property
    def line(self) -> int:
        """The number of the last event's line in :meth:`text`."""
        text = recording(self.events, self.style)
        return text.count(b"\n")

    def text(self) -> bytes:
        """The recording so far."""
        return recording(self.events, self.style)

    def verdict(self, *, given: bool = True) -> Verdict:
        """The replay's verdict on it, with the profile told or detected."""
        return judge(self.text(), self.profile if given else None, self.ram)

    # Pages.

    def page(self, *, highmem: bool = True) -> Page:
        """A new page."""
        return self.kernel.alloc_page(highmem=highmem)

    # Atomic and local windows.

    def kmap_atomic(
        self,
        page: Page,
        km_type: int | None = None,
        *,
        caller: str = "do_work",
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> int:
        """``kmap_atomic(page)``; *before* happens between the entry event and the push, *after*
        between the push and the return event."""
        era = self.profile.era
        if era is Era.LOCAL:
            self._off(+1)
            try:
                return self.kmap_local(page, caller=caller, before=before, after=after)
            except BaseException:
                self._off(-1)
                raise
        names = self._map_names()
        if era is Era.STACK and self.profile.features.inline_front_half and not page.highmem:
            names = []  # the inline half answers, nothing to probe is reached
        fields = {"page": page.address, "prot": self.kernel.kmap_prot}
        if km_type is not None:
            fields["type"] = km_type
        return self._call(
            names,
            [fields] * len(names),
            lambda: self.kernel.kmap_atomic(page, km_type),
            caller,
            before,
            after,
        )

    def kmap_atomic_pfn(self, pfn: int, km_type: int | None = None, caller: str = "iomap") -> int:
        """``kmap_atomic_pfn(pfn)``, stack and typed era."""
        fields = {"pfn": pfn, "prot": self.kernel.kmap_prot}
        if km_type is not None:
            fields["type"] = km_type
        return self._call(
            ["kmap_atomic_prot_pfn"],
            [fields],
            lambda: self.kernel.kmap_atomic_pfn(pfn, km_type),
            caller,
        )

    def _map_names(self) -> list[str]:
        if self.profile.era is Era.TYPED:
            return ["kmap_atomic", "kmap_atomic_prot"] if self._outer else ["kmap_atomic_prot"]
        if self.profile.features.inline_front_half:
            return ["kmap_atomic_high_prot"]
        outer = "__kmap_atomic" if self.profile.family == "S0" else "kmap_atomic"
        return [outer, "kmap_atomic_prot"] if self._outer else ["kmap_atomic_prot"]

    def _off(self, by: int) -> None:
        # What kmap_atomic() of 5.11 on does around the local call.
        context = self.kernel.context
        if by > 0:
            context.preempt_disable()
            context.pagefault_disable()
        else:
            context.pagefault_enable()
            context.preempt_enable()

    def kmap_local(
        self,
        page: Page,
        *,
        caller: str = "do_work",
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> int:
        """``kmap_local_page(page)``."""
        prot = self.kernel.kmap_prot
        names, fields = ["__kmap_local_page_prot"], [{"page": page.address, "prot": prot}]
        if page.highmem or self.profile.maps_low_pages:
            if not self._outer:
                names, fields = [], []
            names.append("__kmap_local_pfn_prot")
            fields.append({"pfn": page.pfn, "prot": prot})
        return self._call(
            names, fields, lambda: self.kernel.kmap_local_page(page), caller, before, after
        )

    def _call(
        self,
        names: list[str],
        fields: list[dict[str, int]],
        call: Callable[[], int],
        caller: str,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> int:
        for name, values in zip(names, fields, strict=True):
            self.enter(name, **values)
        if before:
            before()
        address = call()
        if after:
            after()
        for at in reversed(range(len(names))):
            self.leave(names[at], address, names[at - 1] if at else caller)
        return address

    def kunmap_atomic(self, address: int, km_type: int | None = None) -> None:
        """``kunmap_atomic(address)``; any number does, a page's address included."""
        if self.profile.era is Era.LOCAL:
            self.kunmap_local(address)
            self._off(-1)
            return
        fields = {"vaddr": address}
        if km_type is not None:
            fields["type"] = km_type
        self.enter(self.unmap_symbol, **fields)
        self.kernel.kunmap_atomic(address, km_type)

    @property
    def unmap_symbol(self) -> str:
        """The function whose probe shows an unmap."""
        if self.profile.era is not Era.STACK:
            return _UNMAP[self.profile.era]
        split = self.profile.features.inline_front_half
        return "kunmap_atomic_high" if split else "__kunmap_atomic"

    def kunmap_local(self, address: int) -> None:
        """``kunmap_local(address)``."""
        self.enter(self.unmap_symbol, vaddr=address)
        self.kernel.kunmap_local(address)

    def map(
        self,
        page: Page,
        *,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> int:
        """The era's usual temporary map: local from 5.11 on, else atomic (KM_USER0, typed)."""
        if self.profile.era is Era.LOCAL:
            return self.kmap_local(page, before=before, after=after)
        km_type = 3 if self.profile.era is Era.TYPED else None
        return self.kmap_atomic(page, km_type, before=before, after=after)

    def unmap(self, address: int) -> None:
        """Its reverse."""
        if self.profile.era is Era.LOCAL:
            self.kunmap_local(address)
        else:
            self.kunmap_atomic(address, 3 if self.profile.era is Era.TYPED else None)

    # Permanent windows.

    def kmap(self, page: Page, caller: str = "do_work") -> int:
        """``kmap(page)`` of a high page, as the probe on ``kmap_high`` shows it."""
        self.enter("kmap_high", page=page.address)
        address = self.kernel.permanent.kmap_high(page)
        self.leave("kmap_high", address, caller)
        return address

    def kunmap(self, page: Page) -> None:
        """``kunmap(page)`` of a high page."""
        self.enter("kunmap_high", page=page.address)
        self.kernel.permanent.kunmap_high(page)

    # Usual things.

    def warm_up(self, cpus: Iterable[int] = (0, 1)) -> None:
        """A complete map and unmap by an own task on each CPU, so that nothing is the head."""
        for cpu in cpus:
            self.run(cpu, f"warm{cpu}")
            self.unmap(self.map(self.page()))
            self.switch(self.kernel.context.this.idle)
        self.kernel.run_on(0)

    def go_on(self, cpus: Iterable[int] = (0, 1)) -> None:
        """Innocent calls of other tasks afterwards: what probes still show."""
        for cpu in cpus:
            self.run(cpu, f"late{cpu}")
            self.unmap(self.map(self.page()))
            self.switch(self.kernel.context.this.idle)
