"""Random programs over a booted kernel: map, unmap, access, flush, switch, in every order.

Whatever a driver of Linux may do with windows is done here, and what it should not: unmaps out of
order, one unmap too many, accesses to addresses that it gave back. Where accesses fall between two
operations of the kernel, they stand for an interrupt at that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from highmem.kernel.context import Task
from highmem.kernel.profile import Era, Profile
from highmem.machine.entry import ACCESSED, DIRTY, GLOBAL, NX, RW, USER
from support.kernel_contract import PAGE_MASK, Stack
from support.kernel_oracle import CODE_OFFSET, READ_BYTES, WRITE_OFFSET, KernelOracle, Tally
from support.mmu_sequences import WIDTH, WRITES, SequenceMismatch
from support.unicorn_machine import Do, Op

__all__ = ["Driver"]

PROT_NONE = 0x100  # not present, not empty


class Held(NamedTuple):
    """A temporary mapping that the program believes to have."""

    address: int
    kind: str
    km_type: int | None = None


@dataclass(slots=True)
class Program:
    """One task of the test: what it holds, and what the contract says it has."""

    task: Task
    held: list[Held] = field(default_factory=list)
    stack: Stack = field(default_factory=Stack)


class Driver(KernelOracle):
    """Runs random sequences of 6 to 12 steps on one kernel; equal seeds give equal sequences."""

    def __init__(self, profile: Profile | str, *, cpu: int, seed: int) -> None:
        self._offsets: list[int] = []
        super().__init__(profile, cpu=cpu, seed=seed)
        self.programs = [Program(self.kernel.current)]
        if self.profile.era is Era.LOCAL:  # before, windows belong to the CPU
            self.programs += [Program(self.kernel.spawn(name)) for name in ("b", "c")]
        self.program = self.programs[0]
        self.contract.stack = self.program.stack
        self._written = 0
        self._begun = False
        self._recent: list[int] = []
        typed = self.profile.era is Era.TYPED
        self._temporary = self._temporary_typed if typed else self._temporary_nested

    def begin(self) -> None:
        """Forget where this sequence wrote, too."""
        super().begin()
        self._offsets.clear()

    def run(self, sequences: int) -> Tally:
        """Do that many sequences; SequenceMismatch names the one that went wrong."""
        for number in range(sequences):
            try:
                self.sequence()
            except Exception as error:
                story = "\n".join(map(_tell, self.history))
                raise SequenceMismatch(f"sequence {number}: {error!r}\nafter:\n{story}") from error
        self.tally.sequences += sequences
        self.tally.flushes = self.contract.flushes
        self.tally.wraps = self.contract.wraps
        return self.tally

    def sequence(self) -> None:
        """Start without windows and with empty TLBs, do some steps, compare with Unicorn."""
        self.begin()
        self.history.clear()
        self._begun = False
        self._settle()
        self._begun = True
        for _ in range(self.rng.randint(6, 12)):
            roll = self.rng.random()
            if roll < 0.35:
                self._random_access()
            elif roll < 0.84:
                self._temporary()
            elif roll < 0.95:
                self._permanent()
            else:
                self.tally.reloads += 1
                if not self.profile.pge:
                    self.contract.flush_all()
                self._call("load_cr3", self.cpu.load_cr3, self.kernel.tables.cr3)
        self.finish()

    def _settle(self) -> None:
        """Unmap what is held, innermost first, and flush everything."""
        for program in self.programs:
            self._switch(program)
            while program.held:
                self._unmap(program.held[-1])
        self._switch(self.programs[0])
        if self.contract.stack.depth < 0:
            # Nothing in the kernel repairs an underflow.
            self.contract.stack.depth = self.kernel.context.this.kmap_atomic_idx = 0
        self.kernel.context.this.preempt_count = 0
        self.program.task.pagefault_disabled = 0
        self.kernel.log.splats.clear()
        for pfn in self.contract.users:
            for _ in range(self.contract.users[pfn]):
                self.kernel.kunmap(self.kernel.pfn_to_page(pfn))
        self.contract.users.clear()
        if self.rng.random() < 0.03:
            # As if others had used most of the permanent windows: the search comes round soon.
            last = self.contract.layout.LAST_PKMAP - self.rng.randint(1, 3)
            self.contract.last = self.kernel.permanent.last_pkmap_nr = last
        self.cpu.load_cr3(self.kernel.tables.cr3)
        self.cpu.set_pge(False)
        self.cpu.set_pge(self.profile.pge)
        self.contract.owed.clear()

    def _call(self, name: str, call: Callable[..., Any], *args: Any, near: int = 0) -> Any:
        """Call the kernel, sometimes with accesses ``near`` the page between its operations."""
        self.history.append((name, *args))
        # Before a sequence begins the TLBs hold what is no business of its envelope.
        near = near if self._begun and self.rng.random() < 0.25 else 0
        self.near = near or None
        self.flushed.clear()
        try:
            result = call(*args)
        finally:
            self.near = None
        wanted, self.contract.flushed = self.contract.flushed, []
        if self.flushed != wanted:
            raise SequenceMismatch(f"flushed {self.flushed}, Linux would flush {wanted}")
        return result

    def _expect(self, what: str, got: int, wanted: int) -> None:
        if got != wanted:
            raise SequenceMismatch(f"{what} returned {got:#x}, Linux would return {wanted:#x}")

    def _use(self, page: int) -> None:
        """Who maps a page mostly uses it at once; who confuses two uses the wrong one."""
        if self.rng.random() < 0.6:
            self.access(self.make_access(page))

    def _random_access(self) -> None:
        rng, contract = self.rng, self.contract
        roll, held = rng.random(), self.program.held
        if roll < 0.4 and contract.owed:
            page = rng.choice(sorted(contract.owed))
        elif roll < 0.5 and held:
            page = rng.choice(held).address
        elif roll < 0.7:
            depth = contract.stack.depth if self.profile.era is not Era.TYPED else 4
            page = contract.window(rng.randint(-1, depth))
        elif roll < 0.85 and self._recent:
            page = rng.choice(self._recent)
        elif roll < 0.95:
            page = contract.layout.PAGE_OFFSET + (rng.choice(self.low).pfn << 12)
        else:
            layout = contract.layout
            page = rng.choice((0, 0x08048000, layout.high_memory, layout.VMALLOC_START, 0xFFFFF000))
        self.access(self.make_access(page))

    def make_access(self, page: int) -> Op:
        """An access to ``page``, or over its end."""
        rng = self.rng
        user, kind = rng.random() < 0.25, rng.random()
        if kind < 0.12:
            return Op(Do.FETCH, page + CODE_OFFSET, 0, user)
        crossing = kind > 0.88 and page < PAGE_MASK
        if kind < 0.5 or kind > 0.94:
            do = rng.choice((Do.READ8, Do.READ16, Do.READ32, Do.READ32))
            offset = rng.randrange(READ_BYTES - 4)
            if self._offsets and rng.random() < 0.5:
                offset = rng.choice(self._offsets)
        else:
            do = rng.choice((Do.WRITE8, Do.WRITE16, Do.WRITE32, Do.WRITE32))
            offset = WRITE_OFFSET + self._written % ((CODE_OFFSET - WRITE_OFFSET) // 4) * 4
            self._written += 1
            self._offsets.append(offset)
        if crossing:
            do = rng.choice((Do.READ32, Do.READ16) if kind > 0.94 else (Do.WRITE32, Do.WRITE16))
            offset = 4096 - rng.randint(1, WIDTH[do] - 1)
        value = self._written * 0x9E3779B1 & 0xFFFFFFFF if do in WRITES else 0
        return Op(do, page + offset, value, user)

    def _random_prot(self) -> int:
        """Protections that drivers ask for: kmap_prot mostly, and what is not like it."""
        plain = self.contract.plain
        if self.rng.random() < 0.6:
            return plain
        return self.rng.choice(
            (plain & ~RW, plain | USER, plain & ~RW | USER, plain & ~NX, plain & ~NX | USER,
             plain & ~(ACCESSED | DIRTY), plain & ~GLOBAL, PROT_NONE)
        )  # fmt: skip

    def _temporary_nested(self) -> None:
        """Map, unmap, switch: stack and local era."""
        rng, program = self.rng, self.program
        roll, local = rng.random(), self.profile.era is Era.LOCAL
        if local and roll < 0.18:
            # Not while a window forbids preemption: the kernel would complain.
            if all(held.kind == "local" for held in program.held):
                self.tally.switches += 1
                self._switch(rng.choice([p for p in self.programs if p is not self.program]))
        elif roll < 0.65 or not program.held:
            if not local and self.contract.stack.depth == 0 and rng.random() < 0.04:
                self._underflow()
            elif self.contract.stack.depth < 6:
                self._map(local and rng.random() < 0.6)
        else:
            in_order = rng.random() < 0.2
            self._unmap(program.held[-1] if in_order else rng.choice(program.held))

    def _map(self, local: bool) -> None:
        kernel, contract = self.kernel, self.contract
        page, prot = self.rng.choice((*self.low[:2], *self.high)), self._random_prot()
        by_frame = self.rng.random() < 0.15
        contract.before = dict(contract.pages)
        if page.highmem or by_frame or self.profile.maps_low_pages:
            wanted = contract.push(contract.mapping(page.pfn, prot))
        else:
            wanted = contract.layout.PAGE_OFFSET + (page.pfn << 12)
        near = wanted if page.highmem else 0
        plain = prot == contract.plain
        if local and by_frame:
            call: tuple[Any, ...] = (kernel._local().kmap_local_pfn_prot, page.pfn, prot)
        elif local:
            call = (kernel.kmap_local_page_prot, page, prot)
            if plain:
                call = (kernel.kmap_local_page, page)
        elif by_frame:
            call = (kernel.kmap_atomic_prot_pfn, page.pfn, prot)
        else:
            call = (kernel.kmap_atomic, page) if plain else (kernel.kmap_atomic_prot, page, prot)
        got = self._call(call[0].__name__, *call, near=near)
        self._expect(call[0].__name__, got, wanted)
        self.program.held.append(Held(wanted, "local" if local else "atomic"))
        self._use(wanted)

    def _unmap(self, held: Held) -> None:
        if held.km_type is not None:
            self._unmap_typed(held)
            return
        contract = self.contract
        self.program.held.remove(held)
        contract.before = dict(contract.pages)
        near = 0
        if not contract.layout.PAGE_OFFSET <= held.address < contract.layout.high_memory:
            near = contract.window(contract.stack.depth - 1)
            self.tally.in_order += near == held.address
            self.tally.out_of_order += near != held.address
        contract.pop(held.address)
        kernel = self.kernel
        call = kernel.kunmap_atomic if held.kind == "atomic" else kernel.kunmap_local
        self._call(call.__name__, call, held.address + self.rng.randrange(4096), near=near)
        if self._begun and near != held.address:
            self._use(near or held.address)

    def _underflow(self) -> None:
        """Unmap one too many, which without DEBUG_HIGHMEM nobody notices."""
        if self.profile.debug_highmem:
            return
        self.tally.underflows += 1
        address = self.contract.window(self.rng.randrange(3))
        self.contract.pop(address)
        self._call("kunmap_atomic", self.kernel.kunmap_atomic, address)

    def _switch(self, to: Program) -> None:
        if to is self.program:
            return
        contract = self.contract
        contract.before = dict(contract.pages)
        contract.switch(to.stack)
        self.program = to
        near = contract.window(self.rng.randrange(3))
        self._call("switch_to", self.kernel.context.switch_to, to.task, near=near)

    def _temporary_typed(self) -> None:
        """Map and unmap by type; a frame may be mapped over a window in use."""
        rng, contract, held = self.rng, self.contract, self.program.held
        if held and rng.random() < 0.4:
            self._unmap_typed(rng.choice(held), wrong=rng.random() < 0.15)
            return
        km_type, prot = rng.randrange(5), self._random_prot()
        page = rng.choice((self.low[0], *self.high))
        flushes = self.profile.features.map_flushes_tlb
        used = [h for h in held if h.km_type == km_type]
        by_frame = bool(used) and not flushes
        name = "kmap_atomic_prot_pfn" if by_frame else "kmap_atomic_prot"
        wanted = contract.layout.PAGE_OFFSET + (page.pfn << 12)
        if page.highmem or by_frame:
            wanted = contract.window(km_type)
            self.tally.overwritten += wanted in contract.pages
            contract.put(wanted, contract.mapping(page.pfn, prot))
            if flushes:
                contract.flush(wanted)
        call = getattr(self.kernel, name)
        got = self._call(name, call, page.pfn if by_frame else page, prot, km_type)
        self._expect(name, got, wanted)
        held[:] = [h for h in held if h.km_type != km_type] + [Held(wanted, "atomic", km_type)]
        self._use(wanted)

    def _unmap_typed(self, held: Held, *, wrong: bool = False) -> None:
        """2.6.20 on: clear and flush if address and type fit, else nothing at all (up to 2.6.18
        never anything)."""
        contract, km_type = self.contract, held.km_type
        contract.before = dict(contract.pages)
        assert km_type is not None
        if wrong:
            km_type = (km_type + 1) % 5
        else:
            self.program.held.remove(held)
            if held.address == contract.window(km_type) and not (
                self.profile.features.map_flushes_tlb
            ):
                self.tally.in_order += 1
                contract.put(held.address, None)
                contract.flush(held.address)
        self.tally.out_of_order += wrong
        call, near = self.kernel.kunmap_atomic, held.address
        self._call("kunmap_atomic", call, near, km_type, near=near)

    def _permanent(self) -> None:
        """kmap, kunmap, kmap_flush_unused."""
        rng, contract, kernel = self.rng, self.contract, self.kernel
        users = sorted(pfn for pfn, count in contract.users.items() if count)
        roll = rng.random()
        contract.before = dict(contract.pages)
        if roll < 0.2 and not self.profile.features.has_kmap_flush_unused:
            # Only the search's coming round flushes: let somebody else's kmap() bring it about.
            page = next(page for page in self.others if page.pfn not in contract.numbers)
            contract.last = kernel.permanent.last_pkmap_nr = contract.layout.LAST_PKMAP - 1
            near = contract.kmap(page.pfn)
            self._expect("kmap", self._call("kmap", kernel.kmap, page, near=near), near)
            self._call("kunmap", kernel.kunmap, page)
            contract.users[page.pfn] = 0
        elif roll < 0.2:
            contract.flush_unused()
            near = rng.choice(self._recent) if self._recent else 0
            self._call("kmap_flush_unused", kernel.kmap_flush_unused, near=near)
        elif roll < 0.55 and users:
            pfn = rng.choice(users)
            contract.users[pfn] -= 1
            self._call("kunmap", kernel.kunmap, kernel.pfn_to_page(pfn))
        else:
            page = rng.choice((self.low[0], *self.high))
            wanted = contract.layout.PAGE_OFFSET + (page.pfn << 12)
            if page.highmem:
                wanted = contract.kmap(page.pfn)
            got = self._call("kmap", kernel.kmap, page, near=wanted if page.highmem else 0)
            self._expect("kmap", got, wanted)
            self._recent = [*self._recent[-5:], wanted & PAGE_MASK]


def _tell(step: tuple[Any, ...]) -> str:
    return " ".join(hex(word) if isinstance(word, int) else str(word) for word in step)
