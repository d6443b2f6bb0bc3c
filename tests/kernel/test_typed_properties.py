"""Random use of typed windows, wrong types included: I1 to I9, I11, I12, I15, I16, I22, I23."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from highmem.kernel.bug import KernelBug, KernelPageFault
from support.kernel_machine import TYPED, Watch, window_entry
from support.window_machine import CPUS, Held, WindowMachine, run_machine

cpus = st.integers(0, CPUS - 1)
pages = st.integers(0, 7)
types = st.integers(0, 12)


class TypedUse(WindowMachine):
    @initialize(data=st.data(), pae=st.booleans(), debug=st.booleans())
    def boot(self, data: st.DataObject, pae: bool, debug: bool) -> None:
        self.start(data.draw(st.sampled_from(self.families)), pae, debug)
        self.held: list[dict[int, Held]] = [{} for _ in range(CPUS)]
        self.keeps = self.family == "T0" and not self.debug  # unmap leaves the entry

    def slot(self, number: int) -> int:
        return 2 * number + 1 if self.debug else number  # I2

    @rule(cpu=cpus, number=types, page=pages, frame=st.booleans())
    def kmap_atomic(self, cpu: int, number: int, page: int, frame: bool) -> None:
        if number in self.held[cpu]:
            return
        one, kernel = self.page(page), self.kernel
        with kernel.on(cpu), Watch(kernel) as watch:
            if frame:
                address = kernel.kmap_atomic_pfn(one.pfn, number)
            else:
                address = kernel.kmap_atomic(one, number)
        windowed = one.highmem or frame
        self.seen["pfn" if frame else "high" if windowed else "low"] += 1
        self.held[cpu][number] = Held(
            address, one.pfn, self.slot(number) if windowed else None, km_type=number
        )
        if not windowed:  # I4
            assert address == 0xC0000000 + (one.pfn << 12)
            assert watch.steps == []
            return
        with kernel.on(cpu):
            self.check_new_window(address, one.pfn, self.slot(number))
        flushes = [("flush", address)] if self.family == "T0" else []
        per_cpu = kernel.profile.windows_per_cpu
        assert watch.brief == [("set", self.slot(number) + cpu * per_cpu), *flushes]

    @rule(cpu=cpus, number=types, page=st.integers(0, 5))
    def map_a_busy_slot(self, cpu: int, number: int, page: int) -> None:
        """I6: the entry must be empty before, except up to 2.6.18 without DEBUG_HIGHMEM."""
        held = self.held[cpu].get(number)
        if held is None or held.slot is None or self.keeps:
            return
        kernel = self.kernel
        with kernel.on(cpu):
            with Watch(kernel) as watch, pytest.raises(KernelBug, match="pte_none"):
                kernel.kmap_atomic(self.high[page], number)
            kernel.context.pagefault_enable()
        assert watch.steps == []
        self.seen["busy"] += 1

    @rule(cpu=cpus, data=st.data(), offset=st.integers(0, 4095))
    def kunmap_atomic(self, cpu: int, data: st.DataObject, offset: int) -> None:
        if not self.held[cpu]:
            return
        number = data.draw(st.sampled_from(sorted(self.held[cpu])))
        held = self.held[cpu].pop(number)
        kernel, slot = self.kernel, self.slot(number)
        index = slot + cpu * kernel.profile.windows_per_cpu
        with kernel.on(cpu):
            with Watch(kernel) as watch:
                kernel.kunmap_atomic(held.address + offset, number)
            if held.slot is None:
                # 2.6.19 clears the type's entry for a low address as well.
                wild = self.family == "T1" and not self.debug
                assert watch.brief == (
                    [("clear", index), ("flush", held.address & ~0xFFF)] if wild else []
                )
                return
            self.seen["unmap"] += 1
            if self.keeps:
                assert watch.steps == []
                return
            assert watch.brief == [("clear", index), ("flush", held.address)]  # I7
            del self.entries[cpu, slot]
            with pytest.raises(KernelPageFault):  # I22
                kernel.read32(held.address)

    @rule(cpu=cpus, wrong=types, data=st.data(), other_cpu=st.booleans())
    def unmap_with_the_wrong_type(
        self, cpu: int, wrong: int, data: st.DataObject, other_cpu: bool
    ) -> None:
        """I7, I12: only an exact match clears (2.6.20 on); DEBUG_HIGHMEM is a BUG."""
        mapped = [n for n, held in sorted(self.held[cpu].items()) if held.slot is not None]
        if not mapped or self.family in ("T0", "T1"):
            return
        number = data.draw(st.sampled_from(mapped))
        if other_cpu:
            cpu, wrong, address = (cpu + 1) % CPUS, number, self.held[cpu][number].address
        elif wrong == number:
            return
        else:
            address = self.held[cpu][number].address
        kernel = self.kernel
        with kernel.on(cpu), Watch(kernel) as watch:
            if self.debug:
                with pytest.raises(KernelBug, match="vaddr >= high_memory"):  # I15
                    kernel.kunmap_atomic(address, wrong)
            else:
                kernel.kunmap_atomic(address, wrong)
                kernel.context.pagefault_disable()
        assert watch.steps == []
        self.seen["wrong cpu" if other_cpu else "wrong type"] += 1

    @rule(cpu=cpus, page=st.integers(0, 5))
    def interrupt(self, cpu: int, page: int) -> None:
        """I12: a handler uses its own type and leaves all as found."""
        number = 9 + page % 2  # KM_IRQ0, KM_IRQ1
        if number in self.held[cpu] or self.keeps:
            return
        kernel = self.kernel
        with kernel.on(cpu):
            kernel.context.irq_enter()
            address = kernel.kmap_atomic(self.high[page], number)
            assert kernel.read32(address) == self.high[page].pfn
            kernel.kunmap_atomic(address, number)
            kernel.context.irq_exit()
        self.seen["interrupt"] += 1

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        cpu = data.draw(st.sampled_from([c for c in range(CPUS) if self.held[c]]))
        held = data.draw(st.sampled_from(list(self.held[cpu].values())))
        with self.kernel.on(cpu):
            self.kernel.write32(held.address + 8, held.pfn ^ cpu)
        assert self.kernel.machine.memory.read32((held.pfn << 12) + 8) == held.pfn ^ cpu
        self.seen["use"] += 1

    @invariant()
    def state(self) -> None:
        if not hasattr(self, "held"):
            return
        self.check_entries()  # I6 to I9, fences included
        self.check_tlbs()
        for cpu, percpu in enumerate(self.kernel.context.cpus):
            assert percpu.preempt_count == len(self.held[cpu])  # I16
            for held in self.held[cpu].values():
                if held.slot is not None:
                    value = window_entry(self.kernel, held.pfn)
                    assert self.kernel.window_entry(cpu, held.slot) == value


@pytest.mark.parametrize("family", TYPED)
def test_random_use(family: str) -> None:
    wanted = ["high", "low", "pfn", "busy", "unmap", "interrupt", "use"]
    if family not in ("T0", "T1"):
        wanted += ["wrong type", "wrong cpu"]
    run_machine(TypedUse, family, [*wanted, "pae", "two-level", "debug", "plain"])
