"""Streams through the door: the caller writes bytes chunk by chunk; counted once, refused when sealed."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.device.transfers import LANES
from fluxperf.errors import ArgumentError, TransferError


def filler(numbers: np.ndarray, calls: list[tuple[int, int]] | None = None):
    """Writes the bytes of a host array; records offset and size of every chunk."""
    content = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)

    def fill(offset: int, memory: np.ndarray) -> None:
        if calls is not None:
            calls.append((offset, len(memory)))
        memory[:] = content[offset : offset + len(memory)]

    return fill


def numbers_of(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (17, 33), (3, 1, 5), (1000,)])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 22])
@pytest.mark.parametrize("readers", [1, 5])
def test_bytes_arrive(dtype, shape, chunk, readers, device: HostDevice) -> None:
    device.door.chunk_bytes, device.door.readers = chunk, readers
    numbers, calls = numbers_of(shape, dtype), []
    out = device.empty(shape, ml_dtypes.bfloat16.__name__ if dtype is ml_dtypes.bfloat16 else np.dtype(dtype).name)
    device.door.stream(out, filler(numbers, calls), "x")
    assert device.door.to_host(out, "back").tobytes() == numbers.tobytes()
    assert sum(size for _, size in calls) == numbers.nbytes
    assert all(offset % numbers.itemsize == 0 and size % numbers.itemsize == 0 for offset, size in calls)


def test_it_is_one_crossing_however_many_chunks(device: HostDevice) -> None:
    device.door.chunk_bytes = 64
    calls: list[tuple[int, int]] = []
    device.door.stream(device.empty((100,), "float32"), filler(np.ones(100, np.float32), calls), "weights")
    assert len(calls) == 7
    assert [(row.direction, row.bytes, row.label) for row in device.door.ledger.crossings] == [("h2d", 400, "weights")]
    assert device.door.ledger.syncs == 0


def test_a_view_of_rows_is_filled_and_nothing_else(device: HostDevice) -> None:
    whole = device.empty((6, 4), "float32")
    device.door.stream(whole[2:4], filler(np.ones((2, 4), np.float32)), "rows")
    back = device.door.to_host(whole, "whole")
    assert (back[2:4] == 1).all()
    assert np.isnan(back[[0, 1, 4, 5]]).all()


def test_crossings_are_written_in_order_when_the_bytes_are_there(device: HostDevice) -> None:
    device.door.chunk_bytes = 16
    with device.door.streaming():
        for index in range(5):
            device.door.stream(device.empty((40 - index,), "float32"), filler(np.ones(40, np.float32)), str(index))
        device.door.settle()
        assert [row.label for row in device.door.ledger.crossings] == ["0", "1", "2", "3", "4"]
        device.door.stream(device.empty((1,), "float32"), filler(np.ones(1, np.float32)), "last")
    assert [row.label for row in device.door.ledger.crossings] == ["0", "1", "2", "3", "4", "last"]


def test_inside_a_region_a_stream_does_not_wait(device: HostDevice) -> None:
    go, out = threading.Event(), device.empty((4,), "float32")

    def slow(offset: int, memory: np.ndarray) -> None:
        assert go.wait(20)
        memory.view(np.float32)[:] = 3

    with device.door.streaming():
        device.door.stream(out, slow, "slow")
        assert device.door.ledger.crossings == []
        go.set()
        assert (device.door.to_host(out, "another crossing waits") == 3).all()
        assert [row.label for row in device.door.ledger.crossings] == ["slow", "another crossing waits"]


def test_chunks_are_filled_by_several_threads_at_once(device: HostDevice) -> None:
    device.door.chunk_bytes, device.door.readers = 4, 3
    together = threading.Barrier(3, timeout=600)
    device.door.stream(device.empty((6,), "float32"), lambda offset, memory: together.wait() and None, "x")


@pytest.mark.parametrize("region", [False, True])
def test_an_error_comes_when_nothing_is_under_way_and_counts_nothing(region: bool, device: HostDevice) -> None:
    device.door.chunk_bytes, device.door.readers = 4, 2
    running, begun = set(), []

    def fails(offset: int, memory: np.ndarray) -> None:
        begun.append(offset)
        running.add(offset)
        try:
            if offset == 40:
                raise ValueError("no more")
        finally:
            running.discard(offset)

    def load() -> None:
        if not region:
            device.door.stream(device.empty((10_000,), "float32"), fails, "x")
            return
        with device.door.streaming():
            device.door.stream(device.empty((1,), "float32"), filler(np.ones(1, np.float32)), "before")
            device.door.stream(device.empty((10_000,), "float32"), fails, "x")

    with pytest.raises(ValueError, match="no more"):
        load()
    assert not running
    assert len(begun) < 10_000, "the rest is let go"
    assert device.door.ledger.crossings == []
    device.door.stream(device.empty((1,), "float32"), filler(np.ones(1, np.float32)), "the door works again")
    assert device.door.ledger.count("h2d") == 1
    assert threading.active_count() <= 1 + LANES * device.door.readers


def test_an_error_during_a_stream_releases_it(device: HostDevice) -> None:
    def load() -> None:
        with device.door.streaming():
            device.door.stream(device.empty((100,), "float32"), filler(np.ones(100, np.float32)), "x")
            raise KeyError("other")

    with pytest.raises(KeyError, match="other"):
        load()
    with device.door.sealed():
        pass
    assert device.door.ledger.crossings == []


def test_a_sealed_door_refuses_a_stream(device: HostDevice) -> None:
    out, calls = device.empty((4,), "float32"), []
    refusal = pytest.raises(TransferError, match=r"stream\('weights'\): the door is sealed \(the forward")
    with device.door.sealed("the forward makes no copies"), refusal:
        device.door.stream(out, filler(np.ones(4, np.float32), calls), "weights")
    assert calls == []
    assert device.door.ledger.crossings == []


def test_sealing_waits_for_streams(device: HostDevice) -> None:
    with device.door.streaming():
        device.door.stream(device.empty((4,), "float32"), filler(np.ones(4, np.float32)), "before")
        with device.door.sealed():
            assert [row.label for row in device.door.ledger.crossings] == ["before"]


def test_what_cannot_be_streamed_into(device: HostDevice) -> None:
    fill = filler(np.ones(12, np.float32))
    with pytest.raises(ArgumentError, match="expected a device array to fill"):
        device.door.stream(np.ones(4), fill, "x")
    with pytest.raises(ArgumentError, match="expected a contiguous array"):
        device.door.stream(device.empty((3, 4), "float32")[:, :2], fill, "x")
    with pytest.raises(ArgumentError, match="expected a contiguous array"):
        device.door.stream(device.empty((3, 4), "float32").swapaxes(0, 1), fill, "x")
    with pytest.raises(ArgumentError, match="expected a label"):
        device.door.stream(device.empty((3, 4), "float32"), fill, "")
    device.door.stream(device.empty((3, 1), "float32").swapaxes(0, 1), fill, "contiguous all the same")
