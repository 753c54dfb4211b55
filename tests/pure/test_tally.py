"""Words in which the blocks of a launch add up a result: zeroed once, one pair for each stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from fluxperf.engine.device.gpu import Gpu


class _Gpu(Gpu):
    """A GPU without a driver, whose memory is full of ones."""

    stream: Any = SimpleNamespace(ptr=1)

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
