"""A 32-bit x86 machine in Unicorn, whose MMU executes real instructions over real page tables.

A small program in machine code (the *harness*) runs inside: it takes a list of operations, does
each with the instruction that a kernel would use (mov, invlpg, mov cr3, ...) in ring 0 or ring 3,
and stores what came of it. One ``emu_start`` serves a whole list. Unicorn does not deliver
exceptions through the IDT; its interrupt hook stands in for the handler. The error code and the
"exception in flight" mark (which would turn the second page fault into a double fault) are not
registers that Unicorn names, so their place in the saved context is found by calibration: by
faults whose error codes follow from the SDM without doubt.

The CPU has MAXPHYADDR 40, NX, PGE, PSE-36 and PAT, whatever model is asked for.

The harness takes ``HARNESS_SPAN`` plus the RAM's size of linear addresses from ``base`` on.
"""

from __future__ import annotations

import ctypes
import enum
import mmap
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import unicorn
from unicorn import x86_const as x86

from highmem.machine.memory import FRAME_SIZE, PhysicalMemory

__all__ = ["ACCESSES", "HARNESS_SPAN", "Do", "Op", "Outcome", "UnicornMachine", "code_frame"]

HARNESS_SPAN = 4 << 20
"""Linear bytes of the harness itself; the window on all of RAM follows."""

_PHYSICAL = 0xE0000000  # the harness's own memory, out of the way of RAM
_SYSTEM, _BOOT, _OPS, _RESULTS, _TABLES = 0x1000, 0x2000, 0x10000, 0x30000, 0x50000  # in it
_MAX_OPS = 0x20000 // 16 - 1
_PRESET = 0x67  # present, writable, user, accessed, dirty
_PAGE_FAULT = 14
_OP = struct.Struct("<4I")


class Do(enum.Enum):
    """What an operation does; the word in the value is the label of its code."""

    READ8 = "read8"
    READ16 = "read16"
    READ32 = "read32"
    WRITE8 = "write8"
    WRITE16 = "write16"
    WRITE32 = "write32"
    FETCH = "fetch"  # executes code_frame(value) at the address; answers value
    INVLPG = "invlpg"
    LOAD_CR3 = "cr3"  # value
    SET_CR4 = "cr4"  # value
    SET_CR0 = "cr0"  # value
    POKE = "poke"  # physical address, 32-bit value


ACCESSES = (Do.READ8, Do.READ16, Do.READ32, Do.WRITE8, Do.WRITE16, Do.WRITE32, Do.FETCH)


class Op(NamedTuple):
    """One operation; ``user`` does it in ring 3, for accesses only."""

    do: Do
    address: int = 0
    value: int = 0
    user: bool = False


class Outcome(NamedTuple):
    """What came of an operation: a value (0 for a write), or the error code of a page fault."""

    ok: bool
    value: int
    cr2: int = 0


def code_frame(value: int) -> bytes:
    """The seven bytes of code that ``Do.FETCH`` expects at its target: mov eax,value; jmp ecx."""
    return b"\xb8" + struct.pack("<I", value) + b"\xff\xe1"


def _assemble(base: int, ram_window: int) -> tuple[bytes, dict[str, int]]:
    """The harness's code for linear address ``base``, and the address of each label."""
    code = bytearray()
    labels: dict[str, int] = {}
    fixups: list[tuple[int, str, bool]] = []

    def put(text: str) -> None:
        """Hex bytes; ``label:`` defines, ``@label`` is its address, ``>label`` the distance."""
        for word in text.split():
            if word.endswith(":"):
                labels[word[:-1]] = base + len(code)
            elif word[0] in "@>":
                fixups.append((len(code), word[1:], word[0] == ">"))
                code.extend(b"\0\0\0\0")
            else:
                code.extend(bytes.fromhex(word))

    put("next: 8b06 8b5e04 8b4e08 8b6e0c 83c610 ffe0")  # eax,ebx,ecx,ebp = [esi]; jmp eax
    put("done: 31c0 ok: bd01000000")  # eax = 0; ebp = 1
    put("store: 892f 894704 0f20d2 895708 83c710 e9 >next")  # [edi] = ebp, eax, cr2
    put("fault: bd02000000 e9 >store")
    put("uok: bd01000000 9a 00000000 3300 ufault: bd02000000 9a 00000000 3300")  # via call gate
    accesses = {
        "read8": "0fb603",
        "read16": "0fb703",
        "read32": "8b03",
        "write8": "880b 31c0",
        "write16": "66890b 31c0",
        "write32": "890b 31c0",
    }
    for name, body in accesses.items():
        put(f"{name}: {body} e9 >ok")
        put(f"u{name}: ba @in{name} 0f35 in{name}: {body} e9 >uok")  # edx = entry; sysexit
    put("fetch: b9 @ok ffe3 ufetch: b9 @uok ba @infetch 0f35 infetch: ffe3")
    put("invlpg: 0f013b e9 >done cr3: 0f22d9 e9 >done cr4: 0f22e1 e9 >done cr0: 0f22c1 e9 >done")
    put(f"poke: 898b {struct.pack('<I', ram_window).hex()} e9 >done")
    put("setup: 0f0115 @gdtr 66b82800 0f00d8 stop: 90 gdtr: 7f00")
    put(struct.pack("<I", base + _SYSTEM).hex())
    for place, label, relative in fixups:
        origin = base + place + 4 if relative else 0
        struct.pack_into("<I", code, place, (labels[label] - origin) & 0xFFFFFFFF)
    return bytes(code), labels


def _system_tables(base: int, store: int) -> bytes:
    """GDT at 0 (flat code and data of both rings, TSS, call gate to ``store``), TSS at 0x100."""
    tss = base + _SYSTEM + 0x100

    def segment(kind: int) -> int:
        return 0x00CF_0000_0000_FFFF | kind << 40

    gdt = [0, segment(0x9B), segment(0x93), segment(0xFB), segment(0xF3)]
    gdt.append(0x67 | (tss & 0xFFFFFF) << 16 | 0x89 << 40 | (tss >> 24) << 56)
    gdt.append(store & 0xFFFF | 0x08 << 16 | 0xEC << 40 | (store >> 16) << 48)
    stack = base + _SYSTEM + FRAME_SIZE
    body = struct.pack(f"<{len(gdt)}Q", *gdt).ljust(0x100, b"\0")
    return body + struct.pack("<3I", 0, stack, 0x10)


class UnicornMachine:
    """One CPU in Unicorn with ``ram_size`` bytes of RAM at 0, and more at ``high`` (start, size).

    ``memory`` is its RAM as a :class:`PhysicalMemory` over the very bytes that the CPU uses:
    the host may write tables there between two runs (a :attr:`Do.POKE` writes within one).
    """

    def __init__(
        self,
        ram_size: int,
        *,
        pae: bool,
        base: int = 0x40000000,
        high: tuple[int, int] | None = None,
        nxe: bool = True,
    ) -> None:
        self.pae = pae
        self.base = base
        engine: Any = unicorn  # its annotations miss what it defines at run time
        self._uc = uc = engine.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        uc.ctl_set_cpu_model(x86.UC_CPU_X86_N270)  # a 32-bit CPU with NX
        uc.ctl_set_tlb_mode(unicorn.UC_TLB_CPU)
        self._ram = self._map(0, ram_size)
        self.memory = PhysicalMemory.from_buffer(self._ram)
        self._high_start = high[0] if high else 0
        self.high_memory = PhysicalMemory.from_buffer(self._map(*high)) if high else None
        tables = (ram_size >> 12) * 8 + 8 * FRAME_SIZE
        self._own = self._map(_PHYSICAL, (_TABLES + tables + 0xFFFF) & ~0xFFFF)
        code, self._labels = _assemble(base, base + HARNESS_SPAN)
        self._own[: len(code)] = code
        system = _system_tables(base, self._labels["store"])
        self._own[_SYSTEM : _SYSTEM + len(system)] = system
        self._directory = _PHYSICAL + _TABLES  # in PAE, for roots that have none at ``base``
        self._pages = self._own_pages(ram_size)
        self._resumes = (self._labels["fault"], self._labels["ufault"])
        self._error_at = self._flight_at = 0
        self.unexpected: list[int] = []
        self._boot(nxe)
        self._calibrate()
        self._uc.hook_add(unicorn.UC_HOOK_INTR, self._interrupt)

    # ---- what tests use --------------------------------------------------------------------

    def install(self, write32: Callable[[int, int], None], cr3: int) -> None:
        """Add the harness to the tables at ``cr3``, in RAM; ValueError if its place is taken.

        ``write32`` stores a word of physical memory: pass the machine's own, and that of a model
        whose tables should stay comparable. In PAE the gigabyte of the harness needs a PDPTE of
        its own or an existing directory.
        """
        size = 8 if self.pae else 4
        shift = 21 if self.pae else 22
        directory = cr3 & ~0xFFF
        if self.pae:
            slot = (cr3 & ~0x1F) + (self.base >> 30) * 8
            pdpte = self.memory.read64(slot)
            if not pdpte & 1:
                write32(slot, self._directory | 1)
                write32(slot + 4, 0)
                return
            directory = pdpte & ~0xFFF
            if directory == self._directory:
                return
        for number, table in enumerate(self._pages):
            entry = directory + ((self.base >> shift) + number) % (FRAME_SIZE // size) * size
            if self.memory.read32(entry) not in (0, table | _PRESET):
                raise ValueError(f"the tables at {cr3:#x} use the harness's place, {entry:#x}")
            write32(entry, table | _PRESET)
            if self.pae:
                write32(entry + 4, 0)

    def run(self, ops: Sequence[Op]) -> list[Outcome]:
        """Do ``ops`` in order, under the tables and TLB as they are; one outcome each."""
        if len(ops) > _MAX_OPS:
            raise ValueError(f"{len(ops)} operations, the harness takes {_MAX_OPS}")
        labels = self._labels
        packed = b"".join(self._pack(ops)) + _OP.pack(labels["stop"], 0, 0, 0)
        self._own[_OPS : _OPS + len(packed)] = packed
        uc = self._uc
        uc.reg_write(x86.UC_X86_REG_ESI, self.base + _OPS)
        uc.reg_write(x86.UC_X86_REG_EDI, self.base + _RESULTS)
        self._start("next")
        count = (uc.reg_read(x86.UC_X86_REG_EDI) - self.base - _RESULTS) // 16
        if count != len(ops) or self.unexpected:
            self.unexpected, seen = [], self.unexpected
            raise RuntimeError(f"stopped after {count} operations, exceptions {seen}")
        raw = self._own[_RESULTS : _RESULTS + 16 * count]
        return [Outcome(tag == 1, value, cr2) for tag, value, cr2, _ in _OP.iter_unpack(raw)]

    def load(self, memory: PhysicalMemory, cr3: int) -> None:
        """Take over what ``memory`` holds, and run on its tables at ``cr3``.

        The frames that ``memory`` allocated are copied. The harness is added to the tables on
        both sides, so that they stay comparable; see :meth:`install` for what must be free.
        """
        for frame in memory.touched_frames():
            address = frame * FRAME_SIZE
            self.write(address, memory.read(address, FRAME_SIZE))

        def write_both(address: int, word: int) -> None:
            memory.write32(address, word)
            self.memory.write32(address, word)

        self.install(write_both, cr3)
        self.run([Op(Do.LOAD_CR3, value=cr3)])

    def read(self, address: int, length: int) -> bytes:
        """Bytes of physical memory, RAM or high memory."""
        if self.high_memory is not None and address >= self._high_start:
            return self.high_memory.read(address - self._high_start, length)
        return self.memory.read(address, length)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in physical memory, RAM or high memory; code that ran must not change."""
        if self.high_memory is not None and address >= self._high_start:
            self.high_memory.write(address - self._high_start, data)
        else:
            self.memory.write(address, data)

    def cr4(self, *, pse: bool = True, pge: bool = True) -> int:
        """A value for :attr:`Do.SET_CR4`."""
        return pse << 4 | self.pae << 5 | pge << 7

    @staticmethod
    def cr0(*, wp: bool = True) -> int:
        """A value for :attr:`Do.SET_CR0`."""
        return 0x80000011 | wp << 16

    # ---- inside ----------------------------------------------------------------------------

    def _map(self, start: int, size: int) -> mmap.mmap:
        buffer = mmap.mmap(-1, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self._uc.mem_map_ptr(start, size, unicorn.UC_PROT_ALL, address)
        return buffer

    def _own_pages(self, ram_size: int) -> list[int]:
        """Build the harness's page tables; answer their physical addresses, in linear order."""
        size = 8 if self.pae else 4
        per_table = FRAME_SIZE // size
        frames = [_PHYSICAL + n * FRAME_SIZE for n in range(len(self._own) // FRAME_SIZE)]
        frames += [0] * ((HARNESS_SPAN >> 12) - len(frames))
        entries = [frame and frame | _PRESET for frame in frames]
        entries += [address | _PRESET for address in range(0, ram_size, FRAME_SIZE)]
        raw = struct.pack(f"<{len(entries)}{'Q' if self.pae else 'I'}", *entries)
        first = _TABLES + FRAME_SIZE  # after the directory
        self._own[first : first + len(raw)] = raw
        count = -(-len(entries) // per_table)
        pages = [_PHYSICAL + first + n * FRAME_SIZE for n in range(count)]
        if self.pae:
            place = _TABLES + ((self.base >> 21) & 511) * 8
            directory = struct.pack(f"<{count}Q", *(page | _PRESET for page in pages))
            self._own[place : place + len(directory)] = directory
        return pages

    def _boot(self, nxe: bool) -> None:
        """Switch paging on over tables of the harness's own, which map nothing else."""
        uc = self._uc
        root = _PHYSICAL + _BOOT
        if self.pae:
            struct.pack_into("<Q", self._own, _BOOT + (self.base >> 30) * 8, self._directory | 1)
        else:
            entries = struct.pack(f"<{len(self._pages)}I", *(p | _PRESET for p in self._pages))
            place = _BOOT + (self.base >> 22) * 4
            self._own[place : place + len(entries)] = entries
        uc.msr_write(0x174, 0x08)  # SYSENTER_CS, which gives SYSEXIT its selectors
        uc.msr_write(0xC0000080, nxe << 11)
        uc.reg_write(x86.UC_X86_REG_CR4, self.cr4())
        uc.reg_write(x86.UC_X86_REG_CR3, root)
        uc.reg_write(x86.UC_X86_REG_CR0, self.cr0())
        self._start("setup")
        self._context = uc.context_save()

    def _start(self, label: str) -> None:
        self._uc.emu_start(self._labels[label], self._labels["stop"])

    def _interrupt(self, uc: Any, number: int, _: object) -> None:
        """Stand in for the page-fault handler: the harness goes on where ebp says."""
        if number != _PAGE_FAULT:
            self.unexpected.append(number)
            uc.emu_stop()
            return
        context = self._context
        uc.context_update(context)
        where = context.context.value
        code = ctypes.c_uint32.from_address(where + self._error_at)
        ctypes.c_int32.from_address(where + self._flight_at).value = -1
        resume = context.reg_read(x86.UC_X86_REG_EBP)
        if resume not in self._resumes:
            # The harness itself faulted: its place in the tables was taken or overwritten.
            self.unexpected.append(number)
            uc.emu_stop()
            return
        context.reg_write(x86.UC_X86_REG_EAX, code.value)
        context.reg_write(x86.UC_X86_REG_EIP, resume)
        uc.context_restore(context)

    def _calibrate(self) -> None:
        """Find the error code and the exception in flight in the saved context."""
        uc = self._uc
        pristine = uc.context_save()
        seen: list[bytes] = []

        def snapshot(uc: Any, number: int, _: object) -> None:
            seen.append(self._raw(uc.context_save()))
            uc.emu_stop()

        hook = uc.hook_add(unicorn.UC_HOOK_INTR, snapshot)
        # Error codes by the SDM for a page that is not present: W is 2, U is 4.
        probes = {"read32": 0, "write32": 2, "uread32": 4, "uwrite32": 6}
        for label in probes:
            uc.reg_write(x86.UC_X86_REG_EBX, self.base ^ 0x80000000)
            self._start(label)
            uc.context_restore(pristine)
        uc.hook_del(hook)
        before = self._raw(pristine)
        self._error_at = _only_place(seen, list(probes.values()))
        self._flight_at = _only_place([before, *seen], [0xFFFFFFFF, *[_PAGE_FAULT] * len(seen)])

    @staticmethod
    def _raw(context: Any) -> bytes:
        return ctypes.string_at(context.context.value, context.size)

    def _pack(self, ops: Iterable[Op]) -> Iterable[bytes]:
        labels = self._labels
        for do, address, value, user in ops:
            prefix = "u" if user else ""
            yield _OP.pack(labels[prefix + do.value], address, value, labels[prefix + "fault"])


def _only_place(images: Sequence[bytes], values: Sequence[int]) -> int:
    """The one offset of a 32-bit word that holds ``values`` in ``images``, in this order."""
    columns = [struct.unpack(f"<{len(image) // 4}I", image[: len(image) & ~3]) for image in images]
    found = [place for place, words in enumerate(zip(*columns, strict=True)) if words == (*values,)]
    if len(found) != 1:
        raise RuntimeError(f"this Unicorn keeps {len(found)} words like {values}, not one")
    return found[0] * 4
