"""Random legal use of the index stack, and mis-ordered unmaps: I1 to I12, I16, I22, I23, I25."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from highmem.kernel.bug import KernelPageFault, Severity
from support.kernel_machine import STACK, Watch
from support.window_machine import CPUS, Held, WindowMachine, run_machine

COUNTS = {"S0": (1, 0), "S1": (1, 0), "S2": (1, 0), "S3": (1, 1), "S4": (1, 1)}
cpus = st.integers(0, CPUS - 1)
pages = st.integers(0, 7)


class StackUse(WindowMachine):
    @initialize(data=st.data(), pae=st.booleans(), debug=st.booleans())
    def boot(self, data: st.DataObject, pae: bool, debug: bool) -> None:
        self.start(data.draw(st.sampled_from(self.families)), pae, debug)
        self.held: list[list[Held]] = [[] for _ in range(CPUS)]
        self.limit = 41 if self.debug else 20

    def depth(self, cpu: int) -> int:
        return sum(held.slot is not None for held in self.held[cpu])

    def note(self, held: Held, cpu: int) -> None:
        self.held[cpu].append(held)
        self.seen[f"depth {min(self.depth(cpu), 5)}"] += 1

    @rule(cpu=cpus, number=pages, times=st.integers(1, 8))
    def kmap_atomic(self, cpu: int, number: int, times: int) -> None:
        page = self.page(number)
        with self.kernel.on(cpu):
            for _ in range(times):
                depth = self.depth(cpu)
                if depth == self.limit:  # I3
                    self.seen["full"] += 1
                    return
                with Watch(self.kernel) as watch:
                    address = self.kernel.kmap_atomic(page)
                if page.highmem:
                    assert watch.brief == [("set", depth + cpu * self.limit)]
                    self.check_new_window(address, page.pfn, depth)
                    self.note(Held(address, page.pfn, depth), cpu)
                else:  # I4
                    assert watch.steps == []
                    assert address == 0xC0000000 + (page.pfn << 12) < self.kernel.layout.high_memory
                    self.note(Held(address, page.pfn, None), cpu)
                    self.seen["low"] += 1

    @rule(cpu=cpus, number=pages)
    def kmap_atomic_pfn(self, cpu: int, number: int) -> None:
        depth = self.depth(cpu)
        if depth == self.limit:
            return
        with self.kernel.on(cpu):
            pfn = self.page(number).pfn
            address = self.kernel.kmap_atomic_pfn(pfn)
            self.check_new_window(address, pfn, depth)
            self.note(Held(address, pfn, depth), cpu)
            self.seen["pfn"] += 1

    @rule(cpu=cpus, times=st.integers(1, 6), offset=st.integers(0, 4095))
    def kunmap_atomic(self, cpu: int, times: int, offset: int) -> None:
        with self.kernel.on(cpu):
            for _ in range(min(times, len(self.held[cpu]))):
                held = self.held[cpu].pop()
                with Watch(self.kernel) as watch:
                    self.kernel.kunmap_atomic(held.address + offset)
                if held.slot is None:
                    assert watch.steps == []
                    continue
                index = held.slot + cpu * self.limit
                assert watch.brief == [("clear", index), ("flush", held.address)]  # I7
                del self.entries[cpu, held.slot]
                self.seen["unmap"] += 1
                with pytest.raises(KernelPageFault):  # I22
                    self.kernel.read32(held.address)

    @rule(cpu=cpus, number=st.integers(0, 5), depth=st.integers(1, 3))
    def interrupt(self, cpu: int, number: int, depth: int) -> None:
        """I12: a handler leaves the depth as found."""
        with self.kernel.on(cpu):
            before = self.depth(cpu)
            if before + depth > self.limit:
                return
            self.kernel.context.irq_enter()
            addresses = [self.kernel.kmap_atomic(self.high[number]) for _ in range(depth)]
            windows = [self.kernel.layout.window_of(address) for address in addresses]
            assert windows == [(cpu, before + n) for n in range(depth)]
            assert all(self.kernel.read32(a) == self.high[number].pfn for a in addresses)
            for address in reversed(addresses):
                self.kernel.kunmap_atomic(address)
            self.kernel.context.irq_exit()
            self.seen["interrupt"] += 1

    @rule(cpu=cpus, touch=st.booleans())
    def unmap_in_the_wrong_order(self, cpu: int, touch: bool) -> None:
        """I7, I11, I22: the top goes whatever is passed; the other address may be stale."""
        held = self.held[cpu]
        if len(held) < 2 or None in (held[-1].slot, held[-2].slot):
            return
        with self.kernel.on(cpu):
            top, below = held.pop(), held.pop()
            assert top.slot is not None and below.slot is not None
            for address in (top.address, below.address):
                self.kernel.read32(address)
            first = top.slot + cpu * self.limit
            with Watch(self.kernel) as watch:
                self.kernel.kunmap_atomic(below.address)
                if touch:
                    self.kernel.read32(below.address)
                self.kernel.kunmap_atomic(top.address)
            assert watch.brief == [
                ("clear", first), ("flush", below.address),
                ("clear", first - 1), ("flush", top.address),
            ]  # fmt: skip
            assert self.kernel.stale(below.address) is touch
            assert not self.kernel.stale(top.address)
            self.kernel.context.this.cpu.invlpg(below.address)
            del self.entries[cpu, top.slot], self.entries[cpu, below.slot]
            self.seen["misordered"] += 1
        assert any(s.severity is Severity.WARN for s in self.kernel.log) is self.debug

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        cpu = data.draw(st.sampled_from([c for c in range(CPUS) if self.held[c]]))
        held = data.draw(st.sampled_from(self.held[cpu]))
        with self.kernel.on(cpu):
            self.kernel.write32(held.address + 8, held.pfn ^ cpu)
            assert self.kernel.machine.memory.read32((held.pfn << 12) + 8) == held.pfn ^ cpu
            if held.slot is not None:
                self.check_overrun(held)
            self.seen["use"] += 1

    @rule(cpu=cpus)
    def switch_with_nothing_held(self, cpu: int) -> None:
        if self.held[cpu]:
            return
        with self.kernel.on(cpu):
            before = len(self.kernel.log)
            self.kernel.run_on(cpu, self.kernel.spawn("next"))
            assert len(self.kernel.log) == before
            self.seen["switch"] += 1

    @invariant()
    def state(self) -> None:
        if not hasattr(self, "held"):
            return
        self.check_entries()
        self.check_tlbs()
        preempt, nofault = COUNTS[self.family]
        for cpu, percpu in enumerate(self.kernel.context.cpus):
            number = len(self.held[cpu])  # I16: low pages count too
            assert percpu.preempt_count == preempt * number
            assert percpu.current.pagefault_disabled == nofault * number
            assert percpu.kmap_atomic_idx == self.depth(cpu)


@pytest.mark.parametrize("family", STACK)
def test_random_use(family: str) -> None:
    wanted = ["unmap", "interrupt", "misordered", "use", "low", "pfn", "switch", "full", "depth 5"]
    run_machine(StackUse, family, [*wanted, "pae", "two-level", "debug", "plain"])
