from __future__ import annotations

from highmem.trace.columns import BatchBuilder, Shape, Task
from highmem.trace.schema import Argument, Function, Kind, Strings


def test_rows_come_out_as_they_went_in_and_the_builder_is_empty() -> None:
    strings = Strings()
    builder = BatchBuilder(strings)
    cat, cp = strings.number("cat"), strings.number("cp")
    task = builder.task_number(Task(cat, 7, 1, 5))
    shape = builder.shape_number(Shape(Kind.MAP, Function.KMAP_HIGH, Argument.PAGE))
    switch = builder.shape_number(
        Shape(Kind.SWITCH, next_pid=9, next_comm=cat, state=3, prev_comm=cp)
    )
    assert builder.task_number(Task(cat, 7, 1, 5)) == task
    builder.add(1, 10**18, task, shape, 2**64 - 1, 0x163)
    builder.add(5, 4, task, switch, 0)
    batch = builder.batch()
    assert len(builder) == 0
    assert batch.line.tolist() == [1, 5]
    assert batch.time.tolist() == [10**18, 4]
    assert batch.value.tolist() == [2**64 - 1, 0]
    assert batch.prot.tolist() == [0x163, 0]
    assert batch.pid.tolist() == [7, 7]
    assert batch.cpu.tolist() == [1, 1]
    assert batch.flags.tolist() == [5, 5]
    assert [strings[n] for n in batch.comm.tolist()] == ["cat", "cp"]
    assert batch.kind.tolist() == [Kind.MAP, Kind.SWITCH]
    assert batch.function.tolist() == [Function.KMAP_HIGH, Function.NONE]
    assert batch.argument.tolist() == [Argument.PAGE, Argument.NONE]
    assert batch.next_pid.tolist() == [-1, 9]
    assert batch.km_type.tolist() == [-1, -1]


def test_an_empty_builder_gives_an_empty_batch() -> None:
    assert len(BatchBuilder(Strings()).batch()) == 0


def test_tables_that_grew_long_can_be_forgotten() -> None:
    builder = BatchBuilder(Strings())
    for pid in range(20_000):
        builder.task_number(Task(0, pid, 0, 0))
    assert builder.crowded
    builder.forget()
    assert not builder.crowded
    assert builder.task_number(Task(0, 1, 0, 0)) == 0
