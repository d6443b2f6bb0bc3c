"""A tiny writer of ring buffers and of trace.dat, versions 6 and 7.

Written after trace-cmd.dat(5) and include/linux/ring_buffer.h, not after the reader: the
tests hold one against the other.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import zstandard

__all__ = ["KALLSYMS", "SWITCH", "Machine", "Page", "call", "dat", "folder", "formats_of", "switch"]

_COMMON = """\
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;
"""
MAP, RETURN, UNMAP, SWITCH, OTHER = 1394, 1395, 1401, 366, 77
KALLSYMS = (
    b"c1000000 T _stext\nc1068620 T kmap_atomic_high_prot\nc121d280 T copy_strings\n"
    b"c121d280 T alias_of_it\nc121d300 t after\nf7800000 t helper\t[mod]\n"
)


def _format(name: str, number: int, fields: Sequence[tuple[str, int, int]], printed: str) -> bytes:
    lines = [f"\tfield:{text};\toffset:{at};\tsize:{size};\tsigned:0;" for text, at, size in fields]
    body = "\n".join(lines)
    return (
        f"name: {name}\nID: {number}\nformat:\n{_COMMON}\n{body}\n\nprint fmt: {printed}\n".encode()
    )


def formats_of(word: int) -> list[tuple[str, str, bytes]]:
    """System, name and text of the events, for a kernel with words of *word* bytes."""
    long = "unsigned long"
    entry = (f"{long} __probe_ip", 8, word)
    back = [(f"{long} __probe_func", 8, word), (f"{long} __probe_ret_ip", 8 + word, word)]
    comm = 8
    states = '__print_flags(REC->prev_state & 0xff, "|", { 0x0001, "S" }, { 0x0002, "D" })'
    plus = '"R", REC->prev_state & (((0x0000 | 0x0001 | 0x0002) + 1) << 1) ? "+" : ""'
    switch_fields = [
        ("char prev_comm[16]", comm, 16),
        ("pid_t prev_pid", comm + 16, 4),
        ("int prev_prio", comm + 20, 4),
        ("long prev_state", comm + 24, word),
        ("char next_comm[16]", comm + 24 + word, 16),
        ("pid_t next_pid", comm + 40 + word, 4),
        ("int next_prio", comm + 44 + word, 4),
    ]
    at = 8 + word
    one = [entry, ("u32 page", at, 4), (f"{long} prot", at + 4, word)]
    return [
        (system, name, _format(name, number, fields, printed))
        for system, name, number, fields, printed in (
            ("kprobes", "m_kmap_atomic_high_prot", MAP, one, '"(%lx)"'),
            (
                "kprobes",
                "r_kmap_atomic_high_prot",
                RETURN,
                [*back, ("u32 vaddr", 8 + 2 * word, 4)],
                '"(%lx <- %lx)"',
            ),
            ("kprobes", "u_kunmap_atomic_high", UNMAP, [entry, ("u32 vaddr", at, 4)], '"(%lx)"'),
            ("sched", "sched_switch", SWITCH, switch_fields, f'"", {states} : {plus}'),
            ("other", "noise", OTHER, [("int x", 8, 4)], '""'),
        )
    ]


@dataclass(frozen=True)
class Machine:
    """The kernel and the file: byte order, words, pages, compression."""

    order: str = "little"
    word: int = 4
    page_size: int = 4096
    compression: str = "none"
    version: int = 7

    def number(self, value: int, size: int = 4) -> bytes:
        """*value* in *size* bytes of this machine."""
        return (value % (1 << 8 * size)).to_bytes(size, "big" if self.order == "big" else "little")

    def packed(self, data: bytes) -> bytes:
        """*data* compressed."""
        if self.compression == "zlib":
            return zlib.compress(data)
        return zstandard.compress(data)


@dataclass
class Page:
    """One sub-buffer, filled record by record."""

    machine: Machine
    time: int
    missed: int | None = None
    """Events lost before it: None none, 0 an unknown number."""
    stored: bool = True
    data: bytes = b""
    _now: int = field(default=-1)

    def _word(self, kind: int, delta: int) -> bytes:
        assert 0 <= delta < 1 << 27
        big = self.machine.order == "big"
        return self.machine.number(kind << 27 | delta if big else delta << 5 | kind)

    def _delta(self, time: int) -> int:
        now = self.time if self._now < 0 else self._now
        self._now = time
        if time - now >= 1 << 27:
            self.data += self._word(30, (time - now) & (1 << 27) - 1)
            self.data += self.machine.number((time - now) >> 27)
            return 0
        return time - now

    def record(self, time: int, data: bytes, *, long_form: bool = False) -> Page:
        """A record at *time* (absolute)."""
        delta = self._delta(time)
        data += bytes(-len(data) % 4)
        if long_form or len(data) > 28 * 4:
            self.data += self._word(0, delta) + self.machine.number(len(data) + 4) + data
        else:
            self.data += self._word(len(data) // 4, delta) + data
        return self

    def stamp(self, time: int) -> Page:
        """An absolute time stamp."""
        self._now = time
        self.data += self._word(31, time & (1 << 27) - 1)
        self.data += self.machine.number(time >> 27 & (1 << 32) - 1)
        return self

    def discarded(self, time: int, length: int) -> Page:
        """A record that was taken back: padding of *length* bytes of data."""
        self.data += self._word(29, max(self._delta(time), 1))
        self.data += self.machine.number(length + 4) + b"\xff" * length
        return self

    def rest_is_padding(self) -> Page:
        """Padding up to the end."""
        self.data += self._word(29, 0)
        return self

    def bytes(self) -> bytes:
        """The sub-buffer."""
        machine = self.machine
        commit = len(self.data)
        data = self.data
        if self.missed is not None:
            commit |= 1 << 31
            if self.missed and self.stored:
                commit |= 1 << 30
                data += machine.number(self.missed, machine.word)
        page = machine.number(self.time, 8) + machine.number(commit, machine.word) + data
        assert len(page) <= machine.page_size
        return page.ljust(machine.page_size, b"\0")


def _head(machine: Machine, kind: int, pid: int, flags: int, depth: int) -> bytes:
    return machine.number(kind, 2) + bytes((flags, depth)) + machine.number(pid)


def call(
    machine: Machine,
    kind: str,
    pid: int,
    value: int,
    *,
    prot: int = 0x163,
    caller: int = 0xC121D28C,
    flags: int = 0,
    depth: int = 0,
) -> bytes:
    """The data of a map (m), its return (r), an unmap (u) or an event of no interest (o)."""
    word = machine.word
    ip = machine.number(0xC1068620, word)
    if kind == "m":
        rest = ip + machine.number(value) + machine.number(prot, word)
        return _head(machine, MAP, pid, flags, depth) + rest
    if kind == "r":
        rest = ip + machine.number(caller, word) + machine.number(value)
        return _head(machine, RETURN, pid, flags, depth) + rest
    if kind == "u":
        return _head(machine, UNMAP, pid, flags, depth) + ip + machine.number(value)
    return _head(machine, OTHER, pid, flags, depth) + machine.number(value)


def switch(machine: Machine, pid: int, comm: bytes, state: int, to: int, to_comm: bytes) -> bytes:
    """The data of a sched_switch."""
    return b"".join(
        (
            _head(machine, SWITCH, pid, 1, 0),
            comm.ljust(16, b"\0"),
            machine.number(pid) + machine.number(120),
            machine.number(state, machine.word),
            to_comm.ljust(16, b"\0"),
            machine.number(to) + machine.number(120),
        )
    )


def _header_page(machine: Machine) -> bytes:
    data = 8 + machine.word
    return (
        f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
        f"\tfield: local_t commit;\toffset:8;\tsize:{machine.word};\tsigned:1;\n"
        f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
        f"\tfield: char data;\toffset:{data};\tsize:{machine.page_size - data};\tsigned:1;\n"
    ).encode()


_HEADER_EVENT = b"# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n"


def _sections(machine: Machine, cmdlines: bytes, kallsyms: bytes) -> dict[int, bytes]:
    number, page = machine.number, _header_page(machine)
    formats = b"".join(
        system.encode() + b"\0" + number(1) + number(len(text), 8) + text
        for system, _, text in formats_of(machine.word)
    )
    ftrace = _format("function", 1, [("unsigned long ip", 8, 4)], '""')
    return {
        16: b"header_page\0"
        + number(len(page), 8)
        + page
        + b"header_event\0"
        + number(len(_HEADER_EVENT), 8)
        + _HEADER_EVENT,
        17: number(1) + number(len(ftrace), 8) + ftrace,
        18: number(len(formats_of(machine.word))) + formats,
        19: number(len(kallsyms)) + kallsyms,
        20: number(3) + b"abc",
        21: number(len(cmdlines), 8) + cmdlines,
    }


def dat(
    machine: Machine,
    cpus: dict[int, list[Page]],
    *,
    cmdlines: bytes = b"106 sh\n12 rcu_sched\n",
    kallsyms: bytes = KALLSYMS,
    options: Sequence[tuple[int, bytes]] = ((5, b"Linux (none) 5.10.0-32-686 i686\0"),),
    pages_in_chunk: int = 2,
) -> bytes:
    """A whole trace.dat with the pages of *cpus*."""
    big = machine.order == "big"
    start = b"\x17\x08\x44tracing" + str(machine.version).encode() + b"\0"
    start += bytes((big, machine.word)) + machine.number(machine.page_size)
    sections = _sections(machine, cmdlines, kallsyms)
    data = {cpu: b"".join(page.bytes() for page in pages) for cpu, pages in cpus.items()}
    if machine.version == 6:
        return _v6(machine, start, sections, data, options)
    return _v7(machine, start, sections, data, options, pages_in_chunk)


def _v6(
    machine: Machine,
    start: bytes,
    sections: dict[int, bytes],
    data: dict[int, bytes],
    options: Sequence[tuple[int, bytes]],
) -> bytes:
    number = machine.number
    count = max(data, default=-1) + 1
    out = start + b"".join(sections.values()) + number(count) + b"options  \0"
    for kind, text in options:
        out += number(kind, 2) + number(len(text)) + text
    out += number(0, 2) + b"flyrecord\0"
    at = len(out) + 16 * count
    at += -at % machine.page_size
    table = blob = b""
    for cpu in range(count):
        pages = data.get(cpu, b"")
        table += number(at + len(blob) if pages else 0, 8) + number(len(pages), 8)
        blob += pages
    return (out + table).ljust(at, b"\0") + blob


def _v7(
    machine: Machine,
    start: bytes,
    sections: dict[int, bytes],
    data: dict[int, bytes],
    options: Sequence[tuple[int, bytes]],
    pages_in_chunk: int,
) -> bytes:
    number = machine.number
    plain = machine.compression == "none"
    out = start + machine.compression.encode() + b"\x001.0\0"
    place = len(out)
    out += bytes(8)

    def header(kind: int, size: int, packed: bool) -> bytes:
        return number(kind, 2) + number(int(packed), 2) + number(0) + number(size, 8)

    listed = list(options)
    for kind, text in sections.items():
        listed.append((kind, number(len(out), 8)))
        if not plain:
            packed = machine.packed(text)
            text = number(len(packed)) + number(len(text)) + packed
        out += header(kind, len(text), not plain) + text
    buffer = len(out)
    out += header(3, sum(map(len, data.values())), not plain)
    out += bytes(-len(out) % machine.page_size)
    table = b""
    for cpu, pages in data.items():
        at, size = len(out), len(pages)
        if plain:
            out += pages
        else:
            step = machine.page_size * pages_in_chunk
            chunks = [pages[i : i + step] for i in range(0, len(pages), step)]
            out += number(len(chunks))
            for chunk in chunks:
                packed = machine.packed(chunk)
                out += number(len(packed)) + number(len(chunk)) + packed
            size = len(out) - at - 4
        table += number(cpu) + number(at, 8) + number(size, 8)
    listed.append(
        (
            3,
            number(buffer, 8)
            + b"\0local\0"
            + number(machine.page_size)
            + number(len(data))
            + table,
        )
    )
    first, second = listed[:1], listed[1:]
    next_at = len(out) + 16 + sum(6 + len(text) for _, text in first) + 14
    out = out[:place] + number(len(out), 8) + out[place + 8 :]
    for some, after in ((first, next_at), (second, 0)):
        body = b"".join(number(kind, 2) + number(len(text)) + text for kind, text in some)
        body += number(0, 2) + number(8) + number(after, 8)
        out += header(0, len(body), False) + body
    return out


def folder(machine: Machine, cpus: dict[int, list[Page]]) -> dict[str, bytes]:
    """The files of a tracefs with the pages of *cpus*, by their paths."""
    files = {
        f"per_cpu/cpu{cpu}/trace_pipe_raw": b"".join(page.bytes() for page in pages)
        for cpu, pages in cpus.items()
    }
    for system, name, text in formats_of(machine.word):
        files[f"events/{system}/{name}/format"] = text
    files["events/header_page"] = _header_page(machine)
    files["saved_cmdlines"] = b"106 sh\n12 rcu_sched\n"
    files["kallsyms"] = KALLSYMS
    return files
