"""Overlapping work on two streams gives the results of sequential work, whatever memory is freed or
reused meanwhile.
"""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Ops, Settings
from fluxperf.engine.phases import table

#: Matrices for which a product takes far longer than a launch, so that missing waits would show.
SIZE, ROUNDS = 2048, 40


def _ops(device: CudaDevice, overlaps: bool) -> Ops:
    return bind("fused", table("fused"), device, Settings("bfloat16", overlaps)).ops["double"]


def _chained(device: CudaDevice, overlaps: bool) -> np.ndarray:
    """Two chains of products that exchange their results every round; intermediate arrays are freed at once."""
    ops = _ops(device, overlaps)
    weights = [device.draw_normal((9, index), (SIZE, SIZE), "bfloat16", SIZE**-0.5) for index in range(2)]
    pair = tuple(device.draw_normal((8, index), (1, SIZE, SIZE), "bfloat16", 1.0) for index in range(2))

    def chain(index: int):
        first = ops.linear(pair[index], weights[0])
        return ops.add_broadcast(ops.linear(first, weights[1]), pair[1 - index])

    for _ in range(ROUNDS):
        pair = ops.beside(lambda: chain(0), lambda: chain(1))
        pair = tuple(ops.scale(x, 0.6) for x in pair)
    return np.stack([device.door.to_host(x, "result").astype(np.float32) for x in pair])


def test_overlapping_changes_no_bit(gpu: CudaDevice) -> None:
    in_turn = _chained(gpu, overlaps=False)
    assert np.isfinite(in_turn).all()
    assert np.abs(in_turn).max() > 0.1
    for _ in range(3):
        assert (_chained(gpu, overlaps=True) == in_turn).all()


def test_results_are_in_order_and_work_is_on_two_streams(gpu: CudaDevice) -> None:
    main = gpu.stream.ptr
    first, second = _ops(gpu, True).beside(lambda: gpu.stream.ptr, lambda: gpu.stream.ptr)
    assert (first, gpu.stream.ptr) == (main, main)
    assert second != main


def test_the_stream_of_before_is_current_after_an_error(gpu: CudaDevice) -> None:
    main = gpu.stream.ptr

    def fail() -> None:
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        _ops(gpu, True).beside(lambda: None, fail)
    assert gpu.stream.ptr == main
