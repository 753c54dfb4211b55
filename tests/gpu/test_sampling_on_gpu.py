"""Flushing, hiding and reading clocks on the GPU."""

from __future__ import annotations

import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.harness.measure.clocks import Watch


def test_a_flush_lasts_as_long_as_asked_and_is_not_waited_for(gpu: CudaDevice) -> None:
    gpu.flush()
    gpu.synchronize()
    for busy_s in (1e-3, 20e-3):
        start = gpu.mark()
        gpu.flush(busy_s)
        end = gpu.mark()
        assert not end.done
        assert 0.7 * busy_s <= gpu.elapsed_s(start, end) <= 5 * busy_s + 5e-3


def test_a_flush_is_no_allocation_that_is_counted(gpu: CudaDevice) -> None:
    before = (gpu.memory.allocations, gpu.memory.in_use_bytes, len(gpu.door.ledger.crossings))
    gpu.flush()
    assert (gpu.memory.allocations, gpu.memory.in_use_bytes, len(gpu.door.ledger.crossings)) == before


def test_the_watch_finds_the_gpu_that_runs(gpu: CudaDevice) -> None:
    pytest.importorskip("pynvml")
    with Watch(gpu.bus_id, interval_s=0.05) as watch:
        gpu.flush(0.3)
        gpu.synchronize()
    assert watch.conditions is not None
    assert len(watch.conditions.readings) >= 4
    busy = watch.conditions.readings[len(watch.conditions.readings) // 2]
    assert busy.sm_mhz
    assert busy.sm_mhz > 0
    assert busy.reasons is not None
