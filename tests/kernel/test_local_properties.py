"""Random legal use of local windows: tasks, CPUs, interrupts, forks: I1 to I16, I22, I23, I25."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from highmem.errors import UsageError
from highmem.kernel.bug import KernelPageFault
from highmem.kernel.context import Task
from support.kernel_machine import LOCAL, Watch, window_entry
from support.window_machine import CPUS, Held, WindowMachine, run_machine

TASKS = 5
cpus = st.integers(0, CPUS - 1)
pages = st.integers(0, 7)


class LocalUse(WindowMachine):
    @initialize(data=st.data(), pae=st.booleans(), debug=st.booleans())
    def boot(self, data: st.DataObject, pae: bool, debug: bool) -> None:
        self.start(data.draw(st.sampled_from(self.families)), pae, debug)
        self.tasks: list[Task] = [p.idle for p in self.kernel.context.cpus]
        self.tasks += [self.kernel.spawn(f"task{n}") for n in range(TASKS)]
        self.held: dict[Task, list[Held]] = {task: [] for task in self.tasks}
        self.incr, self.limit = (2, 16) if self.debug else (1, 15)

    def depth(self, task: Task) -> int:
        return sum(held.slot is not None for held in self.held[task])

    def next_slot(self, task: Task) -> int:
        return self.incr * (self.depth(task) + 1) - 1  # I2

    @rule(
        cpu=cpus,
        number=pages,
        how=st.sampled_from(["page", "atomic", "pfn"]),
        times=st.integers(1, 5),
    )
    def map(self, cpu: int, number: int, how: str, times: int) -> None:
        kernel, page = self.kernel, self.page(number)
        with kernel.on(cpu):
            task = kernel.current
            for _ in range(times):
                if self.depth(task) == self.limit:  # I3
                    self.seen["full"] += 1
                    return
                slot = self.next_slot(task)
                call = {"page": kernel.kmap_local_page, "atomic": kernel.kmap_atomic}.get(how)
                with Watch(kernel) as watch:
                    address = call(page) if call else kernel.kmap_local_pfn(page.pfn)
                windowed = page.highmem or self.debug or how == "pfn"
                if windowed:
                    assert len(watch.steps) == 1  # I7, I8
                    self.check_new_window(address, page.pfn, slot)
                else:
                    assert address == 0xC0000000 + (page.pfn << 12)
                    assert watch.steps == []
                    self.seen["low"] += 1
                held = Held(address, page.pfn, slot if windowed else None, how == "atomic")
                self.held[task].append(held)
                self.seen[how] += 1

    @rule(cpu=cpus, times=st.integers(1, 4), offset=st.integers(0, 4095))
    def unmap(self, cpu: int, times: int, offset: int) -> None:
        kernel = self.kernel
        with kernel.on(cpu):
            task = kernel.current
            for _ in range(min(times, len(self.held[task]))):
                held = self.held[task].pop()
                call = kernel.kunmap_atomic if held.atomic else kernel.kunmap_local
                with Watch(kernel) as watch:
                    call(held.address + offset)
                if held.slot is None:
                    assert watch.steps == []
                    continue
                per_cpu = kernel.profile.windows_per_cpu
                index = held.slot + cpu * per_cpu
                assert watch.brief == [("clear", index), ("flush", held.address)]
                del self.entries[cpu, held.slot]
                self.seen["unmap"] += 1
                with pytest.raises(KernelPageFault):  # I22
                    kernel.read32(held.address)

    @rule(cpu=cpus, choice=st.integers(0, TASKS), hold=st.booleans())
    def switch(self, cpu: int, choice: int, hold: bool) -> None:
        """I13: a task that holds windows stays on its CPU; all its entries go and come."""
        kernel, this = self.kernel, self.kernel.context.cpus[cpu]
        leaving = this.current
        while any(held.atomic for held in self.held[leaving]):  # I12
            self.unmap(cpu, 1, 0)
        if hold:
            self.map(cpu, choice, "page", 1)
        running = {percpu.current for percpu in kernel.context.cpus}
        ready = [t for t in [this.idle, *self.tasks[CPUS:]] if t not in running]
        task = ready[choice % len(ready)]
        if self.depth(task) and task.cpu != cpu:
            with pytest.raises(UsageError, match="pinned"):
                kernel.run_on(cpu, task)
            kernel.run_on(0)
            self.seen["pinned"] += 1
            return
        with kernel.on(cpu), Watch(kernel) as watch:
            kernel.run_on(cpu, task)
        for held in self.held[leaving]:
            if held.slot is not None:
                del self.entries[cpu, held.slot]
        for held in self.held[task]:
            if held.slot is not None:
                self.entries[cpu, held.slot] = held.pfn
        out, into = self.depth(leaving), self.depth(task)
        assert len(watch.steps) == 2 * out + into
        self.seen["switch"] += 1
        self.seen["switched with windows"] += bool(out and into)

    @rule(cpu=cpus, number=st.integers(0, 5), depth=st.integers(1, 3))
    def interrupt(self, cpu: int, number: int, depth: int) -> None:
        kernel = self.kernel
        with kernel.on(cpu):
            task = kernel.current
            before = self.depth(task)
            if before + depth > self.limit:
                return
            kernel.context.irq_enter()
            addresses = [kernel.kmap_local_page(self.high[number]) for _ in range(depth)]
            slots = [self.incr * (before + n + 1) - 1 for n in range(depth)]
            assert [kernel.layout.window_of(a) for a in addresses] == [(cpu, s) for s in slots]
            for address in reversed(addresses):
                kernel.kunmap_local(address)
            kernel.context.irq_exit()
            self.seen["interrupt"] += 1

    @rule(cpu=cpus)
    def fork(self, cpu: int) -> None:
        with self.kernel.on(cpu):
            child = self.kernel.fork()
        assert child.kmap_ctrl.idx == 0 and not any(child.kmap_ctrl.pteval)  # I13
        self.seen["fork"] += 1
        self.seen["fork with windows"] += bool(self.depth(self.kernel.context.cpus[cpu].current))

    @rule(cpu=cpus)
    def exit_to_user_mode(self, cpu: int) -> None:
        with self.kernel.on(cpu):
            if self.depth(self.kernel.current) == 0:
                before = len(self.kernel.log)
                self.kernel.exit_to_user_mode()
                assert len(self.kernel.log) == before

    @rule(cpu=cpus)
    def unmap_in_the_wrong_order(self, cpu: int) -> None:
        kernel = self.kernel
        with kernel.on(cpu):
            held = self.held[kernel.current]
            if len(held) < 2 or None in (held[-1].slot, held[-2].slot):
                return
            if held[-1].atomic or held[-2].atomic:
                return
            top, below = held.pop(), held.pop()
            assert top.slot is not None and below.slot is not None
            kernel.read32(top.address)
            first = top.slot + cpu * kernel.profile.windows_per_cpu
            with Watch(kernel) as watch:
                kernel.kunmap_local(below.address)
            assert watch.brief == [("clear", first), ("flush", below.address)]  # I7
            assert kernel.stale(top.address)  # I22
            kernel.read32(below.address)
            kernel.kunmap_local(top.address)
            assert kernel.stale(below.address)
            kernel.context.this.cpu.invlpg(below.address)
            del self.entries[cpu, top.slot], self.entries[cpu, below.slot]
            self.seen["misordered"] += 1

    @rule(cpu=cpus, data=st.data())
    def use(self, cpu: int, data: st.DataObject) -> None:
        with self.kernel.on(cpu):
            held = self.held[self.kernel.current]
            if held:
                one = data.draw(st.sampled_from(held))
                self.kernel.write32(one.address + 8, one.pfn ^ cpu)
                assert self.kernel.machine.memory.read32((one.pfn << 12) + 8) == one.pfn ^ cpu
                if one.slot is not None:
                    self.check_overrun(one)
                self.seen["use"] += 1

    @invariant()
    def state(self) -> None:
        if not hasattr(self, "held"):
            return
        self.check_entries()  # I6 to I9, guards included
        self.check_tlbs()
        for task in self.tasks:
            depth = self.depth(task)
            assert task.kmap_ctrl.idx == self.incr * depth
            assert task.migrate_disabled == depth
            saved = [0] * self.kernel.profile.windows_per_cpu
            for held in self.held[task]:
                if held.slot is not None:
                    saved[held.slot] = window_entry(self.kernel, held.pfn)
            assert task.kmap_ctrl.pteval == saved
            assert task.pagefault_disabled == sum(held.atomic for held in self.held[task])
        for percpu in self.kernel.context.cpus:  # I16
            assert percpu.preempt_count == sum(h.atomic for h in self.held[percpu.current])


@pytest.mark.parametrize("family", LOCAL)
def test_random_use(family: str) -> None:
    wanted = ["page", "atomic", "pfn", "low", "full", "unmap", "switch", "switched with windows"]
    wanted += ["pinned", "interrupt", "fork", "fork with windows", "misordered", "use"]
    run_machine(LocalUse, family, [*wanted, "pae", "two-level", "debug", "plain"], share=1)
