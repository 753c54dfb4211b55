"""Words in which the blocks of a launch add up a result: zeroed once, one pair for each stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.gpu import Gpu
from fluxperf.errors import DeviceError


class _Gpu(Gpu):
    """A GPU without a driver, whose memory is full of ones."""

    stream: Any = SimpleNamespace(ptr=1)
    products: Any = SimpleNamespace(trial=nullcontext)

    def __init__(self) -> None:
        self._tallies: dict[int, Any] = {}
        self.given: list[Any] = []

    def workspace(self, nbytes: int) -> Any:
        words = np.ones(nbytes, np.uint8)
        self.given.append(words)
        return SimpleNamespace(data=SimpleNamespace(ptr=words.ctypes.data), fill=words.fill)


def test_every_stream_has_its_own_and_finds_it_again() -> None:
    gpu = _Gpu()
    first = gpu.tally
    gpu.given[0][0] = 7  # a launch is under way
    gpu.stream = SimpleNamespace(ptr=2)
    second = gpu.tally
    assert second != first
    gpu.stream = SimpleNamespace(ptr=1)
    assert gpu.tally == first
    assert [words.tolist() for words in gpu.given] == [[7, 0, 0, 0, 0, 0, 0, 0], [0] * 8]


def test_trials_leave_none_behind() -> None:
    """A process that runs trials holds as much memory as one that finds stored choices, so gated peaks agree."""
    gpu, entered = _Gpu(), list[str]()

    @contextmanager
    def workspaces() -> Iterator[None]:
        entered.append("workspaces")
        yield

    gpu.products = SimpleNamespace(trial=workspaces)
    first = gpu.tally

    def fails() -> None:
        assert gpu.tally == first
        gpu.stream = SimpleNamespace(ptr=2)
        assert gpu.tally
        raise DeviceError("a trial that fails")

    with pytest.raises(DeviceError), gpu.trial():
        fails()
    assert list(gpu._tallies) == [1]
    assert entered == ["workspaces"]
    gpu.stream = SimpleNamespace(ptr=1)
    assert gpu.tally == first, "what was there before stays: a captured graph may use it"
