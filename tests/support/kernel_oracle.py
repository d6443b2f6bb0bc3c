"""One booted kernel, on our machine and on Unicorn: every access is made on both and judged.

The model of the kernel writes the page tables and flushes; whatever it does to the hardware is
done to Unicorn in the same order. Each outcome must be one that the architecture allows
(:class:`~support.mmu_sequences.Envelope`), and both sides are bound to the same set. The kernel
itself is held to :class:`~support.kernel_contract.Contract`, which says what the tables must hold
and where a translation may be stale because the kernel owes a flush. Anywhere else a choice of
outcomes is an error, so what is compared there is compared exactly.
"""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from highmem.kernel.bug import KernelPageFault
from highmem.kernel.kernel import Kernel
from highmem.kernel.pages import Page
from highmem.kernel.profile import Profile
from highmem.machine.bus import HardwareOp, OpKind
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import Walk
from support.kernel_contract import PAGE_MASK, Contract
from support.mmu_sequences import (
    WIDTH,
    WRITES,
    Allowed,
    Envelope,
    SequenceMismatch,
    do_on_model,
    same_tables,
)
from support.unicorn_machine import Do, Op, Outcome, UnicornMachine, code_frame

__all__ = ["CODE_OFFSET", "READ_BYTES", "WRITE_OFFSET", "KernelOracle", "Tally"]

RAM = 960 << 20
"""Unicorn's low RAM: all low memory of a 3G/1G kernel and the first high memory after it."""
HIGH = 1 << 32
"""Where Unicorn has a little more RAM: frames that need the upper half of a PAE entry."""
READ_BYTES = 0x400
"""Most accesses that read stay below this offset of a page."""
WRITE_OFFSET = 0x400
"""Most accesses that write stay between here and CODE_OFFSET."""
CODE_OFFSET = 0xF00
"""Where the code of each data frame is; see ``code_frame``."""


@dataclass(slots=True)
class Tally:
    """What a run saw.

    ``either`` are the accesses for which the architecture leaves a choice, ``either_between``
    those of them that fell between two operations of the kernel, ``exact`` all others. ``faults``
    counts the model's by error code.
    """

    sequences: int = 0
    exact: int = 0
    either: int = 0
    either_between: int = 0
    stale_model: int = 0
    stale_unicorn: int = 0
    crossing: int = 0
    interrupts: int = 0
    in_order: int = 0
    out_of_order: int = 0
    underflows: int = 0
    overwritten: int = 0
    switches: int = 0
    flushes: int = 0
    wraps: int = 0
    reloads: int = 0
    faults: Counter[int] = field(default_factory=Counter)


Content = bytes | list[set[int]]


class Part(NamedTuple):
    """The part of an access inside one page; ``contents`` is what may be read at each place."""

    address: int
    length: int
    strict: Allowed
    loose: Allowed
    contents: dict[int, Content]


class Access(NamedTuple):
    """One access as recorded, and what may come of it."""

    op: Op
    parts: list[Part]


class KernelOracle:
    """A kernel on CPU ``cpu`` of two, its tables taken over into Unicorn.

    Between :meth:`begin` and :meth:`finish` everything is recorded: what the kernel does by
    itself, and the accesses made with :meth:`access`. Where ``near`` holds a page, an access to
    it falls between any two operations of the kernel (:meth:`make_access` says which).
    """

    def __init__(self, profile: Profile | str, *, cpu: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kernel = kernel = Kernel.boot(profile, ram=5 << 30, cpus=2)
        self.profile = kernel.profile
        kernel.run_on(cpu)
        self.cpu = kernel.machine.cpus[cpu]
        self.contract = Contract(kernel, cpu)
        self.tally = Tally()
        self.low, self.high = self._make_pages()
        self.near: int | None = None
        self.flushed: list[int] = []  # what the kernel flushed, as Contract.flushed
        self.history: list[tuple[Any, ...]] = []
        self._pge = True  # as UnicornMachine starts
        self.begin()
        kernel.machine.bus.observer = self._see

    def make_access(self, page: int) -> Op:
        """An access to ``page``, for the moments between two operations of the kernel."""
        raise NotImplementedError

    def _make_pages(self) -> tuple[list[Page], list[Page]]:
        """Pages of either kind, every frame filled with words that tell it from all others."""
        kernel = self.kernel
        low = [kernel.alloc_page(highmem=False) for _ in range(4)]
        high = [kernel.alloc_page() for _ in range(6)]
        if self.profile.pae:
            high += [kernel.pfn_to_page((HIGH >> 12) + n) for n in range(4)]
        self.others = [kernel.alloc_page() for _ in range(2)]
        self.frames = [page.pfn << 12 for page in (*low, *high, *self.others)]
        memory = kernel.machine.memory
        for frame in self.frames:
            words = ((frame >> 12) * 0x9E3779B1 + n * 0x85EBCA6B & 0xFFFFFFFF for n in range(1024))
            memory.write(frame, struct.pack("<1024I", *words))
            memory.write(frame + CODE_OFFSET, code_frame(frame >> 12))
        nxe = self.profile.pae and self.profile.nx
        self.unicorn = UnicornMachine(RAM, pae=self.profile.pae, high=(HIGH, 1 << 16), nxe=nxe)
        self.unicorn.load(memory, kernel.tables.cr3)
        self.tables = [frame << 12 for frame in kernel.tables.frames]
        return low[:3], high  # the fourth low frame is what accesses over the third's end reach

    def begin(self) -> None:
        """Forget what was recorded."""
        self.ops: list[Op] = []
        self.accesses: dict[int, Access] = {}
        self.envelope = Envelope()
        # Bytes written in this sequence, by physical address, and what they may hold.
        self.maybe: dict[int, set[int]] = {}

    def finish(self) -> None:
        """Do on Unicorn what was done on the model, and judge."""
        outcomes = self.unicorn.run(self.ops)
        for number, access in self.accesses.items():
            stale = _judge("Unicorn", access, outcomes[number], [p.loose for p in access.parts])
            self.tally.stale_unicorn += stale
        same_tables(
            self.unicorn, self.kernel.machine, self.tables, exact=not self.envelope.choice_seen
        )
        memory = self.kernel.machine.memory
        pairs = {f: (memory.read(f, 4096), self.unicorn.read(f, 4096)) for f in self.frames}
        for place, values in self.maybe.items():
            ours, theirs = pairs[place & ~0xFFF]
            if ours[place & 0xFFF] not in values or theirs[place & 0xFFF] not in values:
                raise SequenceMismatch(f"the byte at {place:#x} is none of {values}")
        for number, access in self.accesses.items():
            if outcomes[number].ok:
                _landed("Unicorn", self.unicorn, access)
        for frame, (ours, theirs) in pairs.items():
            if ours != theirs:
                self._explain(frame, ours, theirs)
        if self.envelope.choice_seen:
            for frame in self.tables:  # the A and D bits that either may have set or not
                self.unicorn.write(frame, memory.read(frame, 4096))

    def _explain(self, frame: int, ours: bytes, theirs: bytes) -> None:
        """A frame may differ only where a write had a choice of frames; then make it equal."""
        for offset in range(4096):
            if ours[offset] != theirs[offset] and len(self.maybe.get(frame + offset, ())) < 2:
                raise SequenceMismatch(
                    f"{frame + offset:#x} holds {ours[offset]:#x}, in Unicorn {theirs[offset]:#x}"
                )
        self.unicorn.write(frame, ours)

    def _see(self, op: HardwareOp) -> None:
        """Record what the kernel does to the hardware, for Unicorn to do likewise."""
        kind = op.kind
        if kind is OpKind.ENTRY_WRITE:
            self._control(Op(Do.POKE, op.address, op.value))
            self._interrupt()
        elif op.cpu != self.cpu.id:
            return
        elif kind is OpKind.TLB_FLUSH_ONE:
            self._control(Op(Do.INVLPG, op.address))
            self.flushed.append(op.address & PAGE_MASK)
            self._interrupt()
        elif kind is OpKind.CR3_LOAD:
            self._control(Op(Do.LOAD_CR3, value=op.value))
            if not self._pge:
                self.flushed.append(-1)
        elif kind is OpKind.CR4_WRITE:
            self._control(Op(Do.SET_CR4, value=op.value))

    def _interrupt(self) -> None:
        """Something that uses ``near`` comes between two operations of the kernel."""
        if self.near is not None:
            self.tally.interrupts += 1
            self.access(self.make_access(self.near), between=True)

    def _control(self, op: Op) -> None:
        changed = False
        if op.do is Do.SET_CR4:
            changed = bool(op.value >> 7 & 1) != self._pge
            self._pge = bool(op.value >> 7 & 1)
            if changed and self._pge:
                self.flushed.append(-1)
        self.envelope.control(op, pge_changed=changed)
        self.ops.append(op)

    def access(self, op: Op, *, between: bool = False) -> None:
        """Make an access on the model and record it; ``between`` two operations of the kernel."""
        parts = self._parts(op, between)
        access = Access(op, parts)
        if op.do in WRITES:
            self._note_write(op, parts)
        our = self._do(op)
        self.tally.stale_model += _judge("the model", access, our, [p.strict for p in parts])
        self.tally.crossing += len(parts) > 1
        if our.ok:
            _landed("the model", self.kernel.machine.memory, access)
        else:
            self.tally.faults[our.value] += 1
        self.accesses[len(self.ops)] = access
        self.ops.append(op)
        if not between:
            self.history.append((op, our))

    def _do(self, op: Op) -> Outcome:
        """Half of the plain accesses go the way of kernel code."""
        if op.user or op.do not in (Do.READ32, Do.WRITE32) or self.rng.random() < 0.5:
            return do_on_model(self.cpu, op)
        try:
            if op.do is Do.READ32:
                return Outcome(True, self.kernel.read32(op.address), self.cpu.cr2)
            self.kernel.write32(op.address, op.value)
        except KernelPageFault as oops:
            return Outcome(False, oops.fault.error_code, self.cpu.cr2)
        return Outcome(True, 0, self.cpu.cr2)

    def _parts(self, op: Op, between: bool) -> list[Part]:
        """Cut ``op`` at the page end; say what each part may do, and hold the kernel to it."""
        width, choices = WIDTH[op.do], False
        parts: list[Part] = []
        first = min(width, 4096 - (op.address & 0xFFF))
        for address, length in ((op.address, first), (op.address + first, width - first)):
            if not length:
                break
            here = op._replace(address=address)
            walked = self.cpu.walk(address)
            strict = self.envelope.allowed(self.cpu, here, walked, after_fault=False)
            loose = self.envelope.allowed(self.cpu, here, walked, after_fault=True)
            choice = self.envelope.choice(here, walked)
            self._hold(here, walked, choice, between)
            certain = not parts or not parts[0].loose.faults
            self.envelope.note(self.cpu, here, walked, loose, certain=certain)
            contents = {}
            if op.do not in WRITES:
                skip = op.do is Do.FETCH
                contents = {place: self._content(place + skip, length) for place in loose.places}
            parts.append(Part(address, length, strict, loose, contents))
            choices |= choice
            if not loose.places:
                break
        if not choices and any(len(p.loose.places) + len(p.loose.faults) != 1 for p in parts):
            raise RuntimeError(f"{op} has no choice and yet several outcomes: {parts}")
        self.envelope.choice_seen |= choices
        self.tally.either += choices
        self.tally.either_between += choices and between
        self.tally.exact += not choices
        return parts

    def _hold(self, op: Op, walked: Walk, choice: bool, between: bool) -> None:
        """The tables must say what the contract says; a choice needs a flush that is owed."""
        contract, page = self.contract, op.address & PAGE_MASK
        wanted = contract.at(page)
        good = walked.physical is None if wanted is None else wanted.agrees(walked)
        if between:
            # An entry half written may be absent, or what it was, or what it will be.
            was = contract.at(page, contract.before)
            if not good and walked.physical is not None and not (was and was.agrees(walked)):
                raise SequenceMismatch(f"{op} met {walked} amid a change of {was} to {wanted}")
            return
        if not good:
            raise SequenceMismatch(f"{op}: the tables say {walked}, Linux promises {wanted}")
        if choice and page not in contract.owed:
            held = [entry for entry in self.envelope.cached if entry.page == page]
            raise SequenceMismatch(f"{op}: a stale translation, and no flush owed: {held}")

    def _content(self, place: int, length: int) -> Content:
        """What may be read there: sets of bytes where a write of this sequence may have been."""
        raw = self.kernel.machine.memory.read(place, length)
        maybe = self.maybe
        if any(place + n in maybe for n in range(length)):
            return [set(maybe.get(place + n, (byte,))) for n, byte in enumerate(raw)]
        return raw

    def _note_write(self, op: Op, parts: list[Part]) -> None:
        """Take in what ``op`` may write where."""
        if not all(part.loose.places for part in parts):
            return
        certain = all(len(p.loose.places) == 1 and not p.loose.faults for p in parts)
        data, done = _data(op), 0
        read8 = self.kernel.machine.memory.read8
        for part in parts:
            for place in part.loose.places:
                for n in range(part.length):
                    new = {data[done + n]}
                    if not certain:
                        new |= self.maybe.get(place + n) or {read8(place + n)}
                    self.maybe[place + n] = new
            done += part.length


def _data(op: Op) -> bytes:
    width = WIDTH[op.do]
    return (op.value & ((1 << 8 * width) - 1)).to_bytes(width, "little")


def _fits(piece: bytes, content: Content) -> bool:
    if isinstance(content, bytes):
        return piece == content
    return all(byte in values for byte, values in zip(piece, content, strict=True))


def _judge(who: str, access: Access, outcome: Outcome, allowed: Sequence[Allowed]) -> bool:
    """Hold ``outcome`` to what its parts allow; answers whether only a stale entry explains it."""
    op, parts = access
    if not outcome.ok:
        for part, may in zip(parts, allowed, strict=True):
            if outcome.cr2 == part.address and outcome.value in may.faults:
                return may.fresh is not None
            if not may.places:
                break
        raise _wrong(who, access, outcome, allowed)
    if not all(may.places for may in allowed):
        raise _wrong(who, access, outcome, allowed)
    stale = any(may.fresh is None for may in allowed)
    if op.do in WRITES:
        return stale
    value, done = outcome.value.to_bytes(4, "little"), 0
    for part, may in zip(parts, allowed, strict=True):
        piece = value[done : done + part.length]
        hits = {place for place in may.places if _fits(piece, part.contents[place])}
        if not hits:
            raise _wrong(who, access, outcome, allowed)
        stale |= may.fresh not in hits
        done += part.length
    return stale


def _wrong(
    who: str, access: Access, outcome: Outcome, allowed: Sequence[Allowed]
) -> SequenceMismatch:
    op, parts = access
    return SequenceMismatch(f"{who}: {op} came to {outcome}, allowed is {allowed} of {parts}")


def _landed(who: str, memory: PhysicalMemory | UnicornMachine, access: Access) -> None:
    """A write with a choice of frames must have arrived in one of them."""
    op, part = access.op, access.parts[0]
    if op.do not in WRITES or len(access.parts) > 1:
        return  # later writes may share the bytes at a page end
    data = _data(op)
    if not any(memory.read(place, part.length) == data for place in part.loose.places):
        raise SequenceMismatch(f"{who}: {op} arrived in none of {part.loose.places}")
