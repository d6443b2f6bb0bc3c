from __future__ import annotations

import numpy as np
import pytest

from highmem.trace.buffers import CODES, Pool, sparse, zeros
from highmem.trace.schema import COLUMNS, Batch, Strings


@pytest.mark.parametrize("dtype", CODES)
def test_buffers_are_what_numpy_calls_them(dtype: str) -> None:
    for made in (zeros(5, dtype), sparse(5, dtype)):
        column = np.asarray(made)
        assert column.dtype == np.dtype(dtype)
        assert column.tolist() == [0] * 5
        made[2] = 7
        assert column[2] == 7  # shared, not copied


def test_a_pool_never_hands_out_memory_that_somebody_looks_at() -> None:
    pool = Pool(COLUMNS, 4)
    kept = []
    for number in range(8):
        columns = pool.take()
        columns["value"][0] = number
        batch = Batch(**columns, strings=Strings())
        # A view of a view, an array of it, an array's slice: each keeps the memory.
        kept.append((batch.head(2).buffer("value"), batch.value, batch.value[:1])[number % 3])
        del columns, batch
    assert [int(view[0]) for view in kept] == list(range(8))


def test_a_pool_uses_memory_again_that_nobody_looks_at() -> None:
    pool = Pool(COLUMNS, 4)
    pool.take()["value"][3] = 99
    assert pool.take()["value"][3] == 99


def test_columns_of_a_batch_become_arrays_when_they_are_asked_for() -> None:
    batch = Batch.empty(3, Strings())
    batch.time[1] = 5
    assert batch.buffer("time").tolist() == [0, 5, 0]
    assert batch.head(2).time.tolist() == [0, 5]
    assert {name: getattr(batch, name).dtype.name for name in COLUMNS} == COLUMNS
    with pytest.raises(AttributeError):
        _ = batch.hour
    with pytest.raises(TypeError):
        Batch(strings=Strings(), line=zeros(3, "int64"))
