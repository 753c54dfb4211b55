"""A peer's clock on the GPU: cycles of PyTorch's own stream."""

from __future__ import annotations

import pytest

from fluxperf.engine.device.cuda import CudaDevice

pytestmark = pytest.mark.peer


def test_a_peer_counts_cycles_of_the_stream_that_it_works_on(gpu: CudaDevice) -> None:
    torch = pytest.importorskip("torch", reason="the peer is made of PyTorch (the test extra)")
    pytest.importorskip("diffusers", reason="the peer is diffusers (the test extra)")
    if not torch.cuda.is_available():
        pytest.skip("this build of PyTorch has no CUDA")
    from benchmarks.peers.diffusers import TorchClock

    clock, before = TorchClock(), gpu.stream.ptr
    x = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            x @ x
        start = clock.stamp()
        for _ in range(50):
            x @ x
        end = clock.stamp()
    clock.synchronize()
    seconds, cycles, clock_hz = clock.elapsed(start, end)
    assert gpu.stream.ptr == before
    assert seconds > 50 * 2 * 4096**3 / 3e15, "all of the products lie between the stamps"
    assert cycles is not None
    assert clock_hz is not None
    assert cycles / clock_hz == pytest.approx(seconds, rel=0.02)
