"""The clock of a peer: fluxperf's stamps on PyTorch's stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch", reason="the peer is made of PyTorch (the test extra)")
pytest.importorskip("diffusers", reason="the peer is diffusers (the test extra)")

import torch

from benchmarks.peers import diffusers as peer
from fluxperf.engine.device.stamps import Lapse

pytestmark = pytest.mark.peer


class Device:
    """A GPU whose streams have names; a stamp records the current one."""

    fails = False

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.stream = SimpleNamespace(name="fluxperf's", use=lambda: self._use("fluxperf's"))
        self.used = ["fluxperf's"]

    def _use(self, name: str) -> None:
        self.used.append(name)

    def stamp(self) -> str:
        if self.fails:
            raise RuntimeError
        return f"{self.used[-1]} stream of GPU {self.ordinal}"

    def elapsed(self, start: str, end: str) -> Lapse:
        return Lapse(1e-3, 1.5e6, 1.5e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=77))
    monkeypatch.setattr(peer, "CudaDevice", Device)
    made: Any = None

    def from_external(theirs: Any) -> Any:
        version, address = theirs.__cuda_stream__()
        assert version == 0
        return SimpleNamespace(use=lambda: made._device._use(f"PyTorch's at {address}"))

    stream = SimpleNamespace(from_external=from_external)
    monkeypatch.setattr(peer, "cupy", lambda: SimpleNamespace(cuda=SimpleNamespace(Stream=stream)))
    made = peer.TorchClock()
    return made


def test_a_stamp_is_of_pytorchs_stream_and_leaves_fluxperfs_in_use(clock: Any) -> None:
    assert clock.stamp() == "PyTorch's at 77 stream of GPU 1"
    assert clock._device.used == ["fluxperf's", "PyTorch's at 77", "fluxperf's"]
    clock._device.fails = True
    with pytest.raises(RuntimeError):
        clock.stamp()
    assert clock._device.used[-1] == "fluxperf's"


def test_a_peer_has_cycles_as_the_rung_beside_it(clock: Any) -> None:
    assert clock.elapsed(clock.stamp(), clock.stamp()) == (1e-3, 1.5e6, 1.5e9)
