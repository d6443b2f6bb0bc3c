"""Random streams of events: mostly well-behaved calls, with faults strewn in.

Made as columns, not as text, and from a plain counter per stack, not from the model: what
matters is that all ways through an engine are taken, whatever the stream means.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from highmem.kernel.layout import Layout
from highmem.kernel.profile import Era, Profile
from highmem.trace.schema import (
    FLAG_HARDIRQ,
    FLAG_KNOWN,
    FLAG_SOFTIRQ,
    PREEMPT_SHIFT,
    Argument,
    Batch,
    Function,
    Kind,
    Strings,
)

RAM = 2 << 30
CPUS = 3
PIDS = 5
MEM_MAP = 0xF56E7000


@dataclass
class Stream:
    """Rows of one random recording, and what made it."""

    profile: Profile
    rng: random.Random
    strings: Strings = field(default_factory=Strings)
    rows: list[dict[str, Any]] = field(default_factory=list)
    time: int = 1_000_000
    open: dict[int, list[int]] = field(default_factory=dict)
    """Addresses open on each stack."""

    @property
    def layout(self) -> Layout:
        return self.profile.layout(RAM)

    def add(self, **columns: Any) -> None:
        self.time += self.rng.choice((1, 100, 5000, 0, 70_000))
        row = {
            "time": self.time, "comm": self.strings.number("task"), "caller": -1, "km_type": -1,
            "next_comm": -1, "state": -1, **columns,
        }  # fmt: skip
        self.rows.append(row)

    def key(self, cpu: int, pid: int) -> int:
        if self.profile.era is Era.LOCAL:
            return 1000 + (pid or -1 - cpu)
        return cpu

    def next_address(self, cpu: int, pid: int) -> int:
        depth = len(self.open.setdefault(self.key(cpu, pid), []))
        slot = 2 * depth + 1 if self.profile.guard_slots else depth
        return self.layout.window_address(cpu, slot)


class Kmaps:
    """The permanent windows of one random stream: users of each are counted as kernels count
    them, from a window on that may be one of the last before the search begins anew."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.rng = stream, stream.rng
        self.size = stream.layout.LAST_PKMAP
        self.counts = [0] * self.size
        self.pages: dict[int, int] = {}
        self.held: list[tuple[int, int]] = []
        """Who (a pid) holds which page."""
        self.last = self.rng.choice((0, self.size // 2, self.size - 6, self.size - 6))
        self.wrapped = False
        self.outer = self.rng.choice((0, 0, 1, 2))
        """Whether kmap() shows: no, around kmap_high(), or alone."""
        self.under_way: list[tuple[dict[str, Any], list[Function], int]] = []

    def step(self, common: dict[str, Any], page: int, pfn: int) -> None:
        """A kmap, the rest of one, or a kunmap."""
        rng = self.rng
        draw = rng.random()
        waits = [one for one in self.under_way if one[0]["pid"] == common["pid"]]
        if waits:
            self.under_way.remove(waits[0])
            self.back(common, *waits[0][1:])
        elif draw < 0.02:
            self.flush()
            self.event(common, Kind.FLUSH, Function.KMAP_FLUSH_UNUSED, Argument.NONE, 0)
        elif draw < 0.45 and self.held:
            mine = [one for one in self.held if one[0] == common["pid"]]
            holder = rng.choice(mine if mine and rng.random() < 0.8 else self.held)
            self.held.remove(holder)
            if holder[1] in self.pages:
                self.counts[self.pages[holder[1]]] -= 1
            function = Function.KUNMAP if self.outer == 2 else Function.KUNMAP_HIGH
            self.event(common, Kind.UNMAP, function, Argument.PAGE, holder[1])
        else:
            self.enter(common, page, pfn)

    def event(self, common: dict[str, Any], kind: Kind, function: Function,
              argument: Argument, value: int, caller: int = -1) -> None:  # fmt: skip
        self.stream.add(**common, kind=kind, function=function, argument=argument, value=value,
                        caller=caller)  # fmt: skip

    def enter(self, common: dict[str, Any], page: int, pfn: int) -> None:
        layout = self.stream.layout
        high = pfn >= layout.highstart_pfn
        if self.held and high and self.rng.random() < 0.3:
            page = self.rng.choice(self.held)[1]  # once more
        functions = [Function.KMAP] if self.outer or not high else []
        functions += [Function.KMAP_HIGH] if high and self.outer < 2 else []
        for function in functions:
            self.event(common, Kind.MAP, function, Argument.PAGE, page)
        address = layout.PAGE_OFFSET + (pfn << 12)
        if high:
            address = layout.pkmap_address(self.window(page))
            self.held.append((common["pid"], page))
        if self.rng.random() < 0.15:
            self.under_way.append((common, functions, address))
        else:
            self.back(common, functions, address)

    def back(self, common: dict[str, Any], functions: list[Function], address: int) -> None:
        caller = self.stream.strings.number(self.rng.choice(("f+0x1", "k+0x2", "k+0x3")))
        for function in reversed(functions):
            self.event(common, Kind.MAP_RETURN, function, Argument.ADDRESS, address, caller)

    def flush(self) -> None:
        self.counts = [count if count > 1 else 0 for count in self.counts]
        self.pages = {page: nr for page, nr in self.pages.items() if self.counts[nr]}

    def window(self, page: int) -> int:
        while page not in self.pages:
            self.last = (self.last + 1) % self.size
            if self.last == 0:
                self.wrapped = True
                self.flush()
            if self.counts[self.last] == 0:
                self.pages[page], self.counts[self.last] = self.last, 1
        self.counts[self.pages[page]] += 1
        return self.pages[page]


class Maker:
    """Writes one random stream."""

    def __init__(self, profile: Profile, seed: int, faults: float) -> None:
        self.stream = Stream(profile, random.Random(seed))
        self.rng = self.stream.rng
        self.faults = faults
        self.local = profile.era is Era.LOCAL
        self.where = {pid: self.rng.randrange(CPUS) for pid in range(1, PIDS)}
        self.flags_known = self.rng.random() < 0.8
        self.both = self.rng.random() < 0.7
        self.inner_returns = self.rng.random() < 0.7
        self.deep = self.rng.random() < 0.15
        self.brisk = self.rng.random() < 0.5
        """Calls are mostly followed at once by their unmap, as those of real kernels are."""
        self.last_page: dict[int, int] = {}
        self.kmaps = Kmaps(self.stream) if self.rng.random() < 0.4 else None

    def flags(self, level: int) -> int:
        if not self.flags_known:
            return 0
        preempt = self.rng.choice((0, 0, 1, 2)) << PREEMPT_SHIFT
        return FLAG_KNOWN | preempt | (0, FLAG_SOFTIRQ, FLAG_HARDIRQ)[level]

    def page(self, high: bool = True) -> tuple[int, int]:
        layout = self.stream.layout
        pfn = layout.highstart_pfn + self.rng.randrange(40) if high else self.rng.randrange(4096)
        return MEM_MAP + pfn * layout.geometry.sizeof_struct_page, pfn

    def map(self, cpu: int, pid: int, level: int) -> None:
        stream, rng = self.stream, self.rng
        high = rng.random() < 0.85
        page, pfn = self.page(high)
        common = {"cpu": cpu, "pid": pid, "flags": self.flags(level)}
        caller = stream.strings.number(rng.choice(("f+0x1", "g+0x2", "f+0x3", "kmap_atomic+0x4")))
        if high:
            address = stream.next_address(cpu, pid)
            stream.open[stream.key(cpu, pid)].append(address)
            self.last_page[stream.key(cpu, pid)] = page
        else:
            address = stream.layout.PAGE_OFFSET + (pfn << 12)
        for kind, function, argument, value in self.calls(page, pfn, address, high):
            returned = kind is Kind.MAP_RETURN
            stream.add(**common, kind=kind, function=function, argument=argument, value=value,
                       caller=caller if returned else -1)  # fmt: skip

    def calls(
        self, page: int, pfn: int, address: int, high: bool
    ) -> list[tuple[Kind, Function, Argument, int]]:
        """The events of one map call of this era."""
        if not self.local:
            outer = Function.KMAP_ATOMIC_HIGH_PROT if high else Function.KMAP_ATOMIC
            return [
                (Kind.MAP, outer, Argument.PAGE, page),
                (Kind.MAP_RETURN, outer, Argument.ADDRESS, address),
            ]
        outer, inner = Function.KMAP_LOCAL_PAGE_PROT, Function.KMAP_LOCAL_PFN_PROT
        found = []
        if self.both or not high:
            found.append((Kind.MAP, outer, Argument.PAGE, page))
        if high:
            found.append((Kind.MAP, inner, Argument.PFN, pfn))
        if high and (self.inner_returns or not self.both):
            found.append((Kind.MAP_RETURN, inner, Argument.ADDRESS, address))
        if self.both or not high:
            found.append((Kind.MAP_RETURN, outer, Argument.ADDRESS, address))
        return found

    def unmap(self, cpu: int, pid: int, level: int, address: int, *, exact: bool = False) -> None:
        function = Function.KUNMAP_LOCAL_INDEXED if self.local else Function.KUNMAP_ATOMIC_HIGH
        self.stream.add(
            cpu=cpu, pid=pid, flags=self.flags(level), kind=Kind.UNMAP, function=function,
            argument=Argument.ADDRESS, value=address + (0 if exact else self.rng.randrange(4096)),
        )  # fmt: skip

    def close(self, cpu: int, pid: int, level: int) -> None:
        held = self.stream.open.setdefault(self.stream.key(cpu, pid), [])
        if held and self.rng.random() < self.faults / 4:
            # The page instead of the address.
            self.unmap(cpu, pid, level, self.last_page[self.stream.key(cpu, pid)], exact=True)
        elif held:
            self.unmap(cpu, pid, level, held.pop() & 0xFFFFF000)

    def switch(self, cpu: int, pid: int) -> None:
        state = self.rng.choice(("R", "R+", "S", "D", "S", "X", "Z"))
        following = self.rng.randrange(PIDS)
        self.stream.add(
            cpu=cpu, pid=pid, flags=self.flags(0), kind=Kind.SWITCH, function=Function.NONE,
            argument=Argument.NONE, value=0, next_pid=following,
            next_comm=self.stream.strings.number("task"),
            state=self.stream.strings.number(state),
        )  # fmt: skip

    def permanent(self, cpu: int, pid: int) -> None:
        if self.kmaps is not None:
            common = {"cpu": cpu, "pid": pid, "flags": self.flags(0)}
            self.kmaps.step(common, *self.page(high=self.rng.random() < 0.9))
            return
        page, _ = self.page()
        nr = self.rng.randrange(1, 9)
        address = self.stream.layout.pkmap_address(nr)
        for kind, function, argument, value in (
            (Kind.MAP, Function.KMAP_HIGH, Argument.PAGE, page),
            (Kind.MAP_RETURN, Function.KMAP_HIGH, Argument.ADDRESS, address),
            (Kind.UNMAP, Function.KUNMAP_HIGH, Argument.PAGE, page),
        ):
            self.stream.add(cpu=cpu, pid=pid, flags=self.flags(0), kind=kind, function=function,
                            argument=argument, value=value)  # fmt: skip

    def junk(self) -> int:
        layout, rng = self.stream.layout, self.rng
        return rng.choice((
            layout.window_address(rng.randrange(CPUS), rng.randrange(5)),
            layout.pkmap_address(rng.randrange(8)), layout.PAGE_OFFSET + rng.randrange(1 << 20),
            self.page()[0], 0, 1 << 63, (1 << 64) - 1, 0x1000, layout.VMALLOC_START + 64,
        ))  # fmt: skip

    def fault(self) -> None:
        """Spoil the last few rows."""
        rng, rows = self.rng, self.stream.rows
        at = max(0, len(rows) - 1 - rng.randrange(4))
        what = rng.randrange(7)
        if what == 0:
            del rows[at]
        elif what == 1:
            rows.insert(at, dict(rows[at]))
        elif what == 2 and at:
            rows[at], rows[at - 1] = rows[at - 1], rows[at]
        elif what == 3:
            rows[at]["value"] = self.junk()
        elif what == 4:
            rows[at]["cpu"] = rng.choice((0, 1, 2, 40, -1))
        elif what == 5:
            self.stream.add(
                cpu=rng.choice((-1, 0, 1)), pid=-1, kind=Kind.LOST, function=Function.NONE,
                argument=Argument.COUNT, value=rng.randrange(3), flags=0,
            )  # fmt: skip
        else:
            self.unmap(rng.randrange(CPUS), rng.randrange(PIDS), 0, self.junk() & 0xFFFFF000)

    def step(self) -> None:
        rng = self.rng
        pid = rng.randrange(PIDS)
        cpu = self.where.get(pid, rng.randrange(CPUS))
        held = self.stream.open.get(self.stream.key(cpu, pid), [])
        if pid and not held and rng.random() < 0.1:
            cpu = self.where[pid] = rng.randrange(CPUS)
        level = rng.choice((0, 0, 0, 0, 0, 1, 2))
        draw = rng.random()
        if self.kmaps is not None and rng.random() < 0.6:
            self.permanent(cpu, pid)
        elif draw < (0.7 if self.deep else 0.45 - 0.1 * len(held)):
            self.map(cpu, pid, level)
            if self.brisk and rng.random() < 0.7:
                self.close(cpu, pid, level)
        elif draw < 0.85:
            self.close(cpu, pid, level)
        elif draw < 0.93:
            self.switch(cpu, pid)
        elif draw < 0.95:
            self.permanent(cpu, pid)
        else:
            self.unmap(cpu, pid, level, self.stream.layout.PAGE_OFFSET + rng.randrange(1 << 24))
        if self.stream.rows and rng.random() < self.faults:
            self.fault()

    def batches(self, steps: int, length: int) -> list[Batch]:
        """The stream in batches of at most *length* rows."""
        for _ in range(steps):
            self.step()
        rows = self.stream.rows
        made = []
        for start in range(0, len(rows), length):
            part = rows[start : start + length]
            batch = Batch.empty(len(part), self.stream.strings)
            for index, row in enumerate(part):
                batch.line[index] = start + index + 1
                for name, value in row.items():
                    getattr(batch, name)[index] = value
            made.append(batch)
        return made
