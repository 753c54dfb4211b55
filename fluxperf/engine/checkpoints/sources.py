"""Sources of weights, and their placement on a device."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device.base import Device
from fluxperf.engine.model.weights import FluxWeights, assemble
from fluxperf.engine.ops.bind import Bound
from fluxperf.engine.ops.table import Quantized


class WeightSource(Protocol):
    """Provides the tensors of one model. ``description`` is stored in records."""

    @property
    def config(self) -> FluxConfig:
        """Sizes of the model."""

    @property
    def description(self) -> str:
        """Where the weights come from, in words."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that are read from files to place all tensors; 0 if nothing is read."""

    def scales(self, path: str) -> npt.NDArray[np.float32] | None:
        """Factors [N] of the rows of a projection that is stored in e4m3; ``None`` for any other tensor."""

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        """The tensor of a canonical path, on the device, in the given dtype.

        Its values may arrive after the call returns (see `Door.streaming`). If not ``scaled``, the factors of `scales`
        are left out.
        """


class SyntheticWeights:
    """Random weights with a model's shapes: normal values from a seed, drawn in device memory. Nothing is copied.

    Projections have standard deviation ``1/sqrt(K)``, so activations keep their size. Modulations have a smaller one,
    so that activations do not grow over 57 gated blocks. Norms are near 1. Every tensor has its own seed, so the order
    in which tensors are drawn does not matter.
    """

    stored_bytes = 0

    def __init__(self, config: FluxConfig, seed: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.description = f"synthetic (seed {seed})"

    def scales(self, path: str) -> None:
        """Always ``None``: values are drawn in bfloat16."""

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        """Draws the tensor."""
        key = (self.seed, zlib.crc32(path.encode()))
        if path.endswith("norm"):
            return device.draw_normal(key, shape, dtype, std=0.1, mean=1.0)
        if path.endswith(".bias"):
            return device.draw_normal(key, shape, dtype, std=0.02)
        spread = 0.3 if path.startswith("modulation") else 1.0
        return device.draw_normal(key, shape, dtype, std=spread / math.sqrt(shape[1]))


class SharedWeights:
    """Another source's weights, placed once for each dtype and then reused: all rungs of a device share the arrays.

    Args:
        source: the weights.
    """

    def __init__(self, source: WeightSource) -> None:
        self.config, self.description, self.stored_bytes = source.config, source.description, source.stored_bytes
        self._source, self.scales = source, source.scales
        self._arrays: dict[tuple[str, str, bool], Any] = {}

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        """The tensor; the source places it on the first call."""
        key = (path, dtype, scaled)
        if key not in self._arrays:
            self._arrays[key] = self._source.put(device, path, shape, dtype, scaled)
        return self._arrays[key]


def place(
    source: WeightSource,
    bound: Bound,
    dtype: str,
    e4m3: tuple[str, ...] = (),
    keep: Callable[[str, Any], Any] = lambda path, tensor: tensor,
) -> FluxWeights:
    """Places a source's weights on a bound device. Weights from files go in one stream, without pauses between tensors.

    Args:
        source: the weights.
        bound: the phase's ops, which include quantization.
        dtype: of every tensor that is not quantized.
        e4m3: projections [N, K] to quantize with one scale per output channel: whole sections (``"double"``), or one
            projection of a section (``"double.qkv"``). Values that the source stores in e4m3 keep their bits: the scale
            of a row is a power of two, which rounds nothing, times the source's factor.
        keep: called with the path and the tensor, after quantization but possibly before its values have arrived; its
            result becomes the weight.
    """

    def tensor(path: str, shape: tuple[int, ...]) -> Any:
        parts = path.split(".")
        if parts[-1] != "weight" or {parts[0], f"{parts[0]}.{parts[-2]}"}.isdisjoint(e4m3):
            return keep(path, source.put(bound.device, path, shape, dtype))
        factors, door = source.scales(path), bound.device.door
        array = source.put(bound.device, path, shape, dtype, factors is None)
        door.settle()
        quantized = cast(Quantized, bound.ops[parts[0]].quantize_rows(array))
        if factors is not None:
            rows = door.to_host(quantized.scale, "weight scales") * factors[:, None]
            quantized = quantized._replace(scale=door.to_device(rows, "weight scales"))
        return keep(path, quantized)

    with bound.device.door.streaming():
        return assemble(source.config, tensor)
