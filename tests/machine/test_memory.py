from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from highmem.errors import BusError, InputError, MachineError
from highmem.machine.memory import FRAME_SIZE, PhysicalMemory

SIZE = 4 * FRAME_SIZE


def test_untouched_memory_reads_as_zero_and_reading_allocates_nothing() -> None:
    memory = PhysicalMemory(SIZE)
    assert memory.read(0, SIZE) == bytes(SIZE)
    assert memory.read64(0xFF8) == 0
    assert memory.touched_bytes == 0


def test_sixty_four_gibibytes_cost_only_the_frames_that_were_written() -> None:
    memory = PhysicalMemory(64 << 30)
    memory.write8((64 << 30) - 1, 0xA5)
    memory.write64(FRAME_SIZE - 4, 0x1122334455667788)
    assert memory.touched_bytes == 3 * FRAME_SIZE
    assert list(memory.touched_frames()) == [0, 1, (64 << 18) - 1]
    assert memory.read8((64 << 30) - 1) == 0xA5


def test_free_pages_read_as_the_fill_until_written() -> None:
    memory = PhysicalMemory(SIZE, free_page_fill=0x5A)
    memory.write8(1, 0)
    assert memory.read32(0) == 0x5A5A005A
    assert memory.read16(2 * FRAME_SIZE) == 0x5A5A


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("address", [0, 1, 7, FRAME_SIZE - 1, FRAME_SIZE - 3, SIZE - 8])
def test_words_are_little_endian_at_any_address(bits: int, address: int) -> None:
    memory = PhysicalMemory(SIZE)
    memory.write(0, bytes(range(256)) * (SIZE // 256))
    value = 0xF1E2D3C4B5A69788 & ((1 << bits) - 1)
    getattr(memory, f"write{bits}")(address, value)
    assert memory.read(address, bits // 8) == value.to_bytes(bits // 8, "little")
    assert getattr(memory, f"read{bits}")(address) == value
    before, after = address - 1, address + bits // 8
    assert before < 0 or memory.read8(before) == before % 256
    assert after >= SIZE or memory.read8(after) == after % 256


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_a_write_takes_the_low_bits_of_its_value(bits: int) -> None:
    memory = PhysicalMemory(SIZE)
    memory.write8(0, 1)  # the frame exists: the fast path
    for address in (0, FRAME_SIZE + 16, FRAME_SIZE - 1 if bits > 8 else 2):
        getattr(memory, f"write{bits}")(address, (1 << 80) - 1)
        assert memory.read(address, bits // 8 + 1)[: bits // 8] == b"\xff" * (bits // 8)
        assert memory.read8(address + bits // 8) == 0


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_an_access_beyond_the_end_is_a_bus_error(bits: int, touched: bool) -> None:
    size = FRAME_SIZE + 100
    memory = PhysicalMemory(size)
    if touched:
        memory.write8(FRAME_SIZE, 0)
    address = size - bits // 8 + 1
    with pytest.raises(BusError) as caught:
        getattr(memory, f"read{bits}")(address)
    assert caught.value.address == size
    with pytest.raises(BusError, match="beyond the machine's 0x1064 bytes"):
        getattr(memory, f"write{bits}")(address, 0)


def test_a_write_that_does_not_fit_stores_nothing() -> None:
    memory = PhysicalMemory(SIZE)
    with pytest.raises(BusError):
        memory.write(SIZE - 4, b"12345")
    assert memory.touched_bytes == 0


def test_a_negative_address_is_a_bus_error() -> None:
    memory = PhysicalMemory(SIZE)
    memory.write8(0, 1)
    with pytest.raises(BusError):
        memory.read32(-4)
    with pytest.raises(BusError):
        memory.write8(-1, 0)


def test_nonsense_sizes_are_refused() -> None:
    with pytest.raises(MachineError, match="makes no sense"):
        PhysicalMemory(0)
    with pytest.raises(MachineError, match="one byte"):
        PhysicalMemory(SIZE, free_page_fill=256)
    with pytest.raises(MachineError, match="does not fit"):
        PhysicalMemory(FRAME_SIZE, backing=bytes(FRAME_SIZE + 1))
    with pytest.raises(MachineError, match="ends inside a frame"):
        PhysicalMemory(SIZE, backing=bytes(10))
    with pytest.raises(MachineError, match="cannot access -1 bytes"):
        PhysicalMemory(SIZE).read(0, -1)


def test_a_writable_buffer_is_written_through_and_not_copied() -> None:
    buffer = bytearray(2 * FRAME_SIZE)
    memory = PhysicalMemory.from_buffer(buffer)
    memory.write32(FRAME_SIZE - 2, 0xAABBCCDD)
    assert buffer[FRAME_SIZE - 2 : FRAME_SIZE + 2] == b"\xdd\xcc\xbb\xaa"
    buffer[0] = 7
    assert memory.read8(0) == 7
    assert memory.touched_bytes == 0


def test_a_read_only_buffer_refuses_writes() -> None:
    memory = PhysicalMemory.from_buffer(b"x" * 5000)
    assert memory.read8(4999) == ord("x")
    for write in (memory.write8, memory.write16, memory.write32, memory.write64):
        with pytest.raises(MachineError, match="read-only"):
            write(4096, 0)


def test_a_buffer_that_ends_inside_a_frame_ends_the_memory_there() -> None:
    buffer = bytearray(b"y" * (FRAME_SIZE + 10))
    memory = PhysicalMemory.from_buffer(buffer)
    memory.write16(FRAME_SIZE + 8, 0x3131)
    assert buffer[-2:] == b"11"
    assert memory.read16(FRAME_SIZE + 8) == 0x3131
    with pytest.raises(BusError):
        memory.read16(FRAME_SIZE + 9)
    with pytest.raises(BusError):
        memory.read8(FRAME_SIZE + 10)


def test_memory_beyond_the_backing_is_sparse() -> None:
    backing = bytearray(FRAME_SIZE)
    memory = PhysicalMemory(SIZE, backing=backing)
    memory.write64(FRAME_SIZE - 4, 0x1111111122222222)
    assert backing[-4:] == b"\x22" * 4
    assert memory.read32(FRAME_SIZE) == 0x11111111
    assert memory.touched_bytes == FRAME_SIZE


def test_a_file_is_read_only_unless_asked_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"abcd" * 2048)
    memory = PhysicalMemory.from_file(path)
    assert memory.size == 8192
    assert memory.read(4, 4) == b"abcd"
    with pytest.raises(MachineError, match="read-only"):
        memory.write8(0, 0)


def test_a_writable_file_gets_the_writes_and_copy_on_write_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(8192))
    PhysicalMemory.from_file(path, writable=True).write8(5, 1)
    assert path.read_bytes()[5] == 1
    private = PhysicalMemory.from_file(path, copy_on_write=True)
    private.write8(5, 2)
    assert private.read8(5) == 2
    assert path.read_bytes()[5] == 1


def test_a_file_that_cannot_be_mapped_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        PhysicalMemory.from_file(tmp_path / "none")
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(InputError, match="the file is empty"):
        PhysicalMemory.from_file(tmp_path / "empty")


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.binary(max_size=FRAME_SIZE + 50)), max_size=12),
    st.booleans(),
)
def test_memory_behaves_like_one_flat_array(writes: list[tuple[int, bytes]], backed: bool) -> None:
    flat = bytearray(SIZE)
    backing = bytearray(2 * FRAME_SIZE) if backed else None
    memory = PhysicalMemory(SIZE, backing=backing)
    for address, data in writes:
        data = data[: SIZE - address]
        memory.write(address, data)
        flat[address : address + len(data)] = data
    assert memory.read(0, SIZE) == flat
    for address in (0, FRAME_SIZE - 3, 2 * FRAME_SIZE - 1, SIZE - 8):
        assert memory.read64(address) == int.from_bytes(flat[address : address + 8], "little")
