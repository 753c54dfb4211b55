"""Sizes that find bugs (odd, one token, empty, strided), and NumPy operands for the cases of the specifications.

Values are random, never zero, and rounded to the dtype of activations when drawn, so that an implementation and the
oracle receive the same operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.ops.specs import SPECS, Call, Case, Sizes

__all__ = ["CALLS", "SIZES", "Call", "Draw", "Sizes", "Weight"]

SIZES = {
    "ordinary": Sizes(1, 7, 3, 4, 16, (4, 6, 6), 96, (2, 2)),
    "one_token": Sizes(1, 1, 1, 4, 16, (4, 6, 6), 96, (1, 1)),
    "odd": Sizes(2, 5, 3, 8, 6, (2, 2, 2), 33, (3, 1)),
    "strided": Sizes(2, 5, 3, 8, 6, (2, 2, 2), 33, (3, 1), strided=True),
    "empty": Sizes(0, 7, 3, 4, 16, (4, 6, 6), 96, (0, 3)),
    "batch": Sizes(2, 37, 5, 4, 16, (4, 6, 6), 96, (4, 8)),
    "long": Sizes(1, 160, 31, 2, 64, (16, 24, 24), 384, (8, 16)),
}

#: Named variants of a call, for each op that computes something.
CALLS: dict[str, Mapping[str, Case]] = {name: spec.cases for name, spec in SPECS.items() if spec.cases}


@dataclass(frozen=True)
class Weight:
    """Values [N, K] that an fp8 implementation receives quantized."""

    numbers: Any


class Draw:
    """Random numbers in the dtype of activations."""

    def __init__(self, seed: Any, dtype: str) -> None:
        self.dtype = dtype
        self._rng = np.random.default_rng(seed)

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0, dtype: str = "") -> Any:
        numbers = self._rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)
        numbers = np.where(np.abs(numbers) < 1e-3 * std, np.float32(1e-3 * std), numbers).astype(np.float32)
        return numbers.astype(host_dtype(dtype or self.dtype))

    def weight(self, outputs: int, inputs: int) -> Weight:
        return Weight(self(outputs, inputs, std=inputs**-0.5))

    def rotations(self, tokens: int, dim: int) -> tuple[Any, Any]:
        angles = self._rng.uniform(0.1, 6.2, (tokens, dim // 2)).repeat(2, axis=1)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def fractions(self, count: int) -> tuple[float, ...]:
        return tuple(float(value) for value in self._rng.uniform(0, 1, count).astype(np.float32))
