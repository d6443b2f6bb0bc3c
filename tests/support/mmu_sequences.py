"""Run one sequence of operations on the model and on Unicorn, and judge both.

Where the tables and the possibly cached translations agree there is one right outcome. Where a
change was not followed by an invalidation, the architecture allows the cached translation as well
as the tables' (Intel SDM volume 3A, 4.10.2.3 and 4.10.4); :class:`Envelope` keeps what may be
cached, so that each outcome is allowed then, and nothing else.

Writes are judged by where they arrived: each stores a value of its own in an offset of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from highmem.machine.cpu import Cpu
from highmem.machine.machine import Machine
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import (
    ACCESSED,
    DIRTY,
    PageFault,
    Walk,
    page_fault,
    permits,
    protection_fault,
)
from support.unicorn_machine import ACCESSES, Do, Op, Outcome, UnicornMachine

__all__ = [
    "WIDTH",
    "WRITES",
    "Allowed",
    "Cached",
    "Envelope",
    "Report",
    "SequenceMismatch",
    "compare",
    "do_on_model",
    "same_tables",
]

WIDTH = {
    Do.READ8: 1,
    Do.READ16: 2,
    Do.READ32: 4,
    Do.WRITE8: 1,
    Do.WRITE16: 2,
    Do.WRITE32: 4,
    Do.FETCH: 4,
}
WRITES = (Do.WRITE8, Do.WRITE16, Do.WRITE32)


class SequenceMismatch(AssertionError):
    """The model or Unicorn did something that the architecture does not allow."""


class Cached(NamedTuple):
    """A translation that a TLB may hold, and what it may know about the D bit.

    ``fault_dropped`` marks one whose address faulted since: the SDM says that it is gone, but
    Unicorn keeps it.
    """

    page: int
    base: int
    mask: int
    rw: bool
    user: bool
    nx: bool
    is_global: bool
    dirty: bool
    fault_dropped: bool = False


@dataclass(slots=True)
class Allowed:
    """The outcomes that one access may have: physical addresses, and error codes of faults."""

    fresh: int | None = None
    places: set[int] = field(default_factory=set)
    faults: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Report:
    """What a comparison saw: accesses, and in how many of them each side used a stale entry.

    ``ambiguous`` counts the accesses for which the architecture left a choice.
    """

    accesses: int = 0
    faults: int = 0
    ambiguous: int = 0
    stale_model: int = 0
    stale_unicorn: int = 0


def access_flags(op: Op) -> int:
    """The :class:`~highmem.machine.paging.Access` flags of ``op``."""
    return (op.do in WRITES) | op.user << 1 | (op.do is Do.FETCH) << 2


def do_on_model(cpu: Cpu, op: Op) -> Outcome:
    """Do ``op`` on the model."""
    do, address, value, user = op
    result = 0
    try:
        if do is Do.READ32:
            result = cpu.read32(address, user)
        elif do is Do.READ16:
            result = cpu.read16(address, user)
        elif do is Do.READ8:
            result = cpu.read8(address, user)
        elif do is Do.WRITE32:
            cpu.write32(address, value, user)
        elif do is Do.WRITE16:
            cpu.write16(address, value, user)
        elif do is Do.WRITE8:
            cpu.write8(address, value, user)
        elif do is Do.FETCH:
            result = int.from_bytes(cpu.fetch(address, 7, user)[1:5], "little")
        else:
            _control(cpu, op)
    except PageFault as fault:
        return Outcome(False, fault.error_code, cpu.cr2)
    return Outcome(True, result, cpu.cr2)


def _control(cpu: Cpu, op: Op) -> None:
    if op.do is Do.INVLPG:
        cpu.invlpg(op.address)
    elif op.do is Do.LOAD_CR3:
        cpu.load_cr3(op.value)
    elif op.do is Do.SET_CR4:
        if cpu.cr4_pse != bool(op.value >> 4 & 1):
            cpu.cr4_pse = bool(op.value >> 4 & 1)
        cpu.set_pge(bool(op.value >> 7 & 1))
    elif op.do is Do.SET_CR0:
        cpu.cr0_wp = bool(op.value >> 16 & 1)
    else:
        cpu.write_entry32(op.address, op.value)


class Envelope:
    """What any TLB that the architecture allows may hold, short of speculation.

    Both sides cache only what they use, so a translation that no access used is not in here.
    """

    def __init__(self) -> None:
        self.cached: set[Cached] = set()
        # Leaf entries in which some allowed outcome set D since software last wrote them.
        self.maybe_dirty: set[int] = set()
        self.choice_seen = False

    def allowed(self, cpu: Cpu, op: Op, walked: Walk, *, after_fault: bool) -> Allowed:
        """The outcomes of the access ``op``, given what the tables say.

        ``after_fault`` also allows translations that a page fault should have dropped.
        """
        access, wp = access_flags(op), cpu.cr0_wp
        found = Allowed()
        fresh_fault = 0
        if walked.physical is not None and permits(walked.rw, walked.user, walked.nx, access, wp):
            found.places.add(walked.physical)
            found.fresh = walked.physical
        else:
            fresh_fault = page_fault(walked, cpu.mode, access).error_code
            found.faults.add(fresh_fault)
        for entry in self.cached:
            if op.address & ~entry.mask != entry.page or (entry.fault_dropped and not after_fault):
                continue
            if not permits(entry.rw, entry.user, entry.nx, access, wp):
                found.faults.add(protection_fault(op.address, cpu.mode, access).error_code)
            elif entry.dirty or not access & 1:
                found.places.add(entry.base | (op.address & entry.mask))
            # A write through an entry without D walks again: the fresh outcome, added already.
        return found

    def choice(self, op: Op, walked: Walk) -> bool:
        """Whether a cached translation of the address differs from the tables in any effect."""
        held = [entry for entry in self.cached if op.address & ~entry.mask == entry.page]
        if not held:
            return False
        if walked.physical is None:
            return True
        unset = any(
            step.level.has_permissions and not step.entry & ACCESSED for step in walked.steps
        )
        mask = walked.page_size - 1
        now = (walked.physical & ~mask, mask, walked.rw, walked.user, walked.nx)
        clean = not walked.leaf.entry & DIRTY
        return unset or any(
            (entry.base, entry.mask, entry.rw, entry.user, entry.nx) != now
            or (clean and entry.dirty)
            for entry in held
        )

    def note(
        self, cpu: Cpu, op: Op, walked: Walk, allowed: Allowed, *, certain: bool = True
    ) -> None:
        """Take in what the access ``op`` may have cached or dropped.

        Without ``certain`` it is the second half of an access whose first half may have faulted.
        """
        if allowed.fresh is not None:
            leaf = walked.leaf
            assert leaf.address is not None
            if op.do in WRITES:
                self.maybe_dirty.add(leaf.address)
            mask = walked.page_size - 1
            dirty = bool(leaf.entry & DIRTY) or leaf.address in self.maybe_dirty
            page, base = op.address & ~mask, allowed.fresh & ~mask
            is_global = walked.is_global and cpu.cr4_pge
            self.cached.add(
                Cached(page, base, mask, walked.rw, walked.user, walked.nx, is_global, dirty)
            )
        if certain and not allowed.places:
            self.cached = {
                entry._replace(fault_dropped=True)
                if op.address & ~entry.mask == entry.page
                else entry
                for entry in self.cached
            }

    def control(self, op: Op, *, pge_changed: bool) -> None:
        """Take in an operation that is not an access."""
        if op.do is Do.INVLPG:
            self.cached = {e for e in self.cached if op.address & ~e.mask != e.page}
        elif op.do is Do.LOAD_CR3:
            self.cached = {e for e in self.cached if e.is_global}
        elif op.do is Do.SET_CR4 and pge_changed:
            self.cached = set()
        elif op.do is Do.POKE and not op.value & DIRTY:
            self.maybe_dirty.discard(op.address)


def compare(
    unicorn: UnicornMachine,
    machine: Machine,
    ops: Sequence[Op],
    tables: Iterable[int],
    report: Report | None = None,
) -> Report:
    """Run ``ops`` on both, which must hold the same tables and no cached translation.

    Raises :class:`SequenceMismatch` for the first outcome that is not allowed, or when the page
    tables in the frames ``tables`` (physical addresses) differ in the end. What the caller has to
    see to: only ``Do.POKE`` writes to tables, an access stays inside a page, what is read or
    fetched is never written, a write has an offset of its own in the page and a value that was
    not there before, and PDPTEs change only before a LOAD_CR3 or a changing SET_CR4.
    """
    report = report or Report()
    theirs = unicorn.run(ops)
    cpu = machine.cpus[0]
    envelope = Envelope()
    for number, (op, their) in enumerate(zip(ops, theirs, strict=True)):
        if op.do not in ACCESSES:
            cr4 = (cpu.cr4_pge, cpu.cr4_pse)
            do_on_model(cpu, op)
            envelope.control(op, pge_changed=cr4 != (cpu.cr4_pge, cpu.cr4_pse))
            continue
        walked = cpu.walk(op.address)
        strict = envelope.allowed(cpu, op, walked, after_fault=False)
        loose = envelope.allowed(cpu, op, walked, after_fault=True)
        choice = envelope.choice(op, walked)
        envelope.choice_seen |= choice
        envelope.note(cpu, op, walked, loose)
        our = do_on_model(cpu, op)
        report.accesses += 1
        report.ambiguous += choice
        report.faults += not our.ok
        report.stale_model += _judge("the model", machine.memory, op, our, strict, number)
        report.stale_unicorn += _judge("Unicorn", unicorn, op, their, loose, number)
        if not choice and our[:2] != their[:2]:
            raise SequenceMismatch(f"step {number} {op}: model {our}, Unicorn {their}")
    same_tables(unicorn, machine, tables, exact=not envelope.choice_seen)
    return report


def same_tables(
    unicorn: UnicornMachine, machine: Machine, frames: Iterable[int], *, exact: bool
) -> None:
    """Hold the page-table ``frames`` (physical addresses) of both to be equal.

    Without ``exact`` the A and D bits may differ: which of them a stale entry saved from being
    set is not for us to say.
    """
    size = machine.mode.entry_size
    for frame in frames:
        ours, theirs = machine.memory.read(frame, 4096), unicorn.read(frame, 4096)
        if ours == theirs:
            continue
        for place in range(0, 4096, size):
            our = int.from_bytes(ours[place : place + size], "little")
            their = int.from_bytes(theirs[place : place + size], "little")
            if (our ^ their) & (-1 if exact else ~(ACCESSED | DIRTY)):
                raise SequenceMismatch(
                    f"entry at {frame + place:#x}: model {our:#x}, Unicorn {their:#x}"
                )


def _judge(
    who: str,
    memory: PhysicalMemory | UnicornMachine,
    op: Op,
    outcome: Outcome,
    allowed: Allowed,
    number: int,
) -> bool:
    """Hold ``outcome`` to ``allowed``; answers whether it can only come from a stale entry."""
    where = f"step {number} {op}: {who} answered {outcome}, allowed is {allowed}"
    if not outcome.ok:
        if outcome.value not in allowed.faults or outcome.cr2 != op.address:
            raise SequenceMismatch(where)
        return allowed.fresh is not None
    width = WIDTH[op.do]
    value = op.value & ((1 << 8 * width) - 1) if op.do in WRITES else outcome.value
    expected = value.to_bytes(width, "little")
    skip = 1 if op.do is Do.FETCH else 0
    hits = {place for place in allowed.places if memory.read(place + skip, width) == expected}
    if not hits:
        raise SequenceMismatch(where)
    return allowed.fresh not in hits
