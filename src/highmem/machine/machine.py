"""A machine: one physical memory, one bus, one or more CPUs."""

from __future__ import annotations

from highmem.errors import MachineError
from highmem.machine.bus import Bus
from highmem.machine.cpu import Cpu, CpuFeatures
from highmem.machine.memory import PhysicalMemory
from highmem.machine.paging import PagingMode

__all__ = ["Machine"]


class Machine:
    """``cpus`` equal CPUs over ``memory_size`` bytes of shared memory.

    ``pae`` decides the paging mode of all of them, ``tlb_capacity`` the entries of each TLB.
    A ``memory`` that exists already is used instead of a new one; its size then counts.
    """

    __slots__ = ("bus", "cpus", "features", "is_pae", "memory")

    def __init__(
        self,
        memory_size: int,
        *,
        cpus: int = 1,
        pae: bool = False,
        features: CpuFeatures | None = None,
        tlb_capacity: int = 64,
        memory: PhysicalMemory | None = None,
    ) -> None:
        if cpus < 1:
            raise MachineError(f"a machine of {cpus} CPUs makes no sense")
        self.memory = PhysicalMemory(memory_size) if memory is None else memory
        self.bus = Bus()
        self.features = features or CpuFeatures()
        self.is_pae = pae
        self.cpus = [
            Cpu(number, self.memory, self.bus, self.features, pae=pae, tlb_capacity=tlb_capacity)
            for number in range(cpus)
        ]

    @property
    def mode(self) -> PagingMode:
        """The paging mode of the first CPU; all start equal."""
        return self.cpus[0].mode
