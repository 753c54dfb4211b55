"""Streams to the GPU: through pinned lanes that are reused, in the order of the stream."""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.transfers import CHUNK_BYTES, LANES, READERS


def filler(numbers: np.ndarray):
    """Writes the bytes of host numbers."""
    content = numbers.reshape(-1).view(np.uint8)

    def fill(offset: int, memory: np.ndarray) -> None:
        memory[:] = content[offset : offset + len(memory)]

    return fill


@pytest.fixture
def small(gpu: CudaDevice):
    """A door with small chunks and few lanes, so that every lane is reused many times."""
    door = gpu.door
    before = door.chunk_bytes, door.readers
    door.chunk_bytes, door.readers = 1 << 16, 3
    yield door
    door.chunk_bytes, door.readers = before


@pytest.mark.parametrize("count", [1, 5, 32_768, 32_769, 4_000_037])
def test_a_tensor_larger_than_all_lanes_arrives(count: int, small, gpu: CudaDevice) -> None:
    numbers = np.random.default_rng(3).integers(0, 1 << 16, count, np.uint16).view(np.float16)
    out, start = gpu.empty((count,), "float16"), len(small.ledger.crossings)
    small.stream(out, filler(numbers), "weights")
    assert [(row.direction, row.bytes) for row in small.ledger.crossings[start:]] == [("h2d", 2 * count)]
    assert small.to_host(out, "back").tobytes() == numbers.tobytes()


def test_tensors_follow_each_other_without_a_pause(small, gpu: CudaDevice) -> None:
    rng = np.random.default_rng(4)
    tensors = [rng.standard_normal((37 * (index % 9) + 1, 1001)).astype(np.float32) for index in range(40)]
    with small.streaming():
        arrays = []
        for numbers in tensors:
            arrays.append(gpu.empty(numbers.shape, "float32"))
            small.stream(arrays[-1], filler(numbers), "weights")
    doubled = [array + array for array in arrays]  # work on the device's stream comes after the copies
    for numbers, array, twice in zip(tensors, arrays, doubled, strict=True):
        assert small.to_host(array, "back").tobytes() == numbers.tobytes()
        assert np.array_equal(small.to_host(twice, "twice"), 2 * numbers)


def test_lanes_as_large_as_they_are_in_use(gpu: CudaDevice) -> None:
    count = (2 * LANES * READERS * CHUNK_BYTES + 12_345) // 4
    numbers = np.arange(count, dtype=np.uint32).view(np.float32)
    out = gpu.empty((count,), "float32")
    gpu.door.stream(out, filler(numbers), "weights")
    assert gpu.door.to_host(out, "back").tobytes() == numbers.tobytes()


def test_rows_of_a_tensor_are_filled_and_nothing_else(small, gpu: CudaDevice) -> None:
    whole = gpu.door.to_device(np.zeros((300, 700), np.float32), "zeros")
    small.stream(whole[100:200], filler(np.ones((100, 700), np.float32)), "rows")
    back = small.to_host(whole, "back")
    assert (back[100:200] == 1).all()
    assert not back[:100].any()
    assert not back[200:].any()


def test_an_error_leaves_the_door_usable(small, gpu: CudaDevice) -> None:
    def fails(offset: int, memory: np.ndarray) -> None:
        memory[:] = 0
        if offset >= 1 << 20:
            raise ValueError("no more")

    start = len(small.ledger.crossings)
    with pytest.raises(ValueError, match="no more"):
        small.stream(gpu.empty((1 << 22,), "float32"), fails, "weights")
    assert len(small.ledger.crossings) == start
    numbers = np.arange(1 << 20, dtype=np.float32)
    out = gpu.empty(numbers.shape, "float32")
    small.stream(out, filler(numbers), "weights")
    assert np.array_equal(small.to_host(out, "back"), numbers)
