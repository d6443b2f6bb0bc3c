"""A machine with page tables that map one region, for tests of the hardware."""

from __future__ import annotations

from highmem.machine.bus import HardwareOp
from highmem.machine.cpu import Cpu, CpuFeatures
from highmem.machine.machine import Machine

__all__ = ["SmallMachine"]

_ROOT, _DIRECTORY, _TABLE = 0x1000, 0x2000, 0x3000


class SmallMachine:
    """16 MiB and tables for the linear region from 0 on; ``ops`` is what was observed."""

    def __init__(
        self,
        *,
        pae: bool = False,
        features: CpuFeatures | None = None,
        cpus: int = 1,
        tlb_capacity: int = 64,
    ) -> None:
        self.pae = pae
        self.machine = Machine(
            16 << 20, pae=pae, features=features, cpus=cpus, tlb_capacity=tlb_capacity
        )
        self.memory = self.machine.memory
        self.cr3 = _ROOT
        self.directory = _DIRECTORY if pae else _ROOT
        self.entry_size = 8 if pae else 4
        if pae:
            self.memory.write64(_ROOT, _DIRECTORY | 1)
        self.set_directory(0, _TABLE | 0x67)
        for cpu in self.machine.cpus:
            cpu.load_cr3(_ROOT)
        self.ops: list[HardwareOp] = []

    @property
    def cpu(self) -> Cpu:
        """The first CPU."""
        return self.machine.cpus[0]

    def observe(self) -> None:
        """Collect every operation from now on in ``ops``."""
        self.machine.bus.observer = self.ops.append

    def entry_address(self, linear: int) -> int:
        """Where the page-table entry of ``linear`` is."""
        return _TABLE + (linear >> 12) * self.entry_size

    def map(self, linear: int, entry: int) -> None:
        """Set the page-table entry of ``linear`` behind the CPUs' backs."""
        self._write(self.entry_address(linear), entry)

    def entry(self, linear: int) -> int:
        """The page-table entry of ``linear``."""
        read = self.memory.read64 if self.pae else self.memory.read32
        return read(self.entry_address(linear))

    def set_directory(self, index: int, entry: int) -> None:
        """Set entry number ``index`` of the page directory."""
        self._write(self.directory + index * self.entry_size, entry)

    def _write(self, address: int, entry: int) -> None:
        (self.memory.write64 if self.pae else self.memory.write32)(address, entry)
