"""Where weights come from, and how they are placed on a device."""

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
    """Gives the tensors of one model. ``description`` goes into records."""

    @property
    def config(self) -> FluxConfig:
        """Sizes of the model."""

    @property
    def description(self) -> str:
        """Where the weights are from."""

    @property
    def stored_bytes(self) -> int:
        """Bytes that are read from files to place all of them; 0 where nothing is."""

    def scales(self, path: str) -> npt.NDArray[np.float32] | None:
        """Factors [N] of the rows of a projection whose numbers are e4m3; ``None`` where it has no such numbers."""

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        """The tensor of a canonical path, on the device, in that dtype; its numbers may follow (`Door.streaming`).

        Not ``scaled``: without the factors of `scales`.
        """


class SyntheticWeights:
    """Normal numbers from a seed, of a model's shapes, drawn in the device's memory; nothing is copied.

    Projections have standard deviation ``1/sqrt(K)``, so activations keep their size; modulations a smaller one, so
    that 57 gated blocks do not blow up; norms are near 1. Every tensor has a seed of its own: order does not matter.
    """

    stored_bytes = 0

    def __init__(self, config: FluxConfig, seed: int = 0) -> None:
        self.config = config
        self.seed = seed
        self.description = f"synthetic (seed {seed})"

    def scales(self, path: str) -> None:
        """None: numbers are drawn in bfloat16."""

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
    """Another source's weights, each put once for each dtype and kept: all rungs of a device have the same arrays.

    Args:
        source: what they are.
    """

    def __init__(self, source: WeightSource) -> None:
        self.config, self.description, self.stored_bytes = source.config, source.description, source.stored_bytes
        self._source, self.scales = source, source.scales
        self._arrays: dict[tuple[str, str, bool], Any] = {}

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        """The tensor, from the source when it is asked for first."""
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
    """Weights of a source on a bound device; those from files in one stream, without a pause between tensors.

    Args:
        source: where they come from.
        bound: the phase's ops (quantization is one of them).
        dtype: of every tensor that is not quantized.
        e4m3: whose projections [N, K] are quantized, one scale per output channel: sections (``"double"``), or those
            of one name in a section (``"double.qkv"``). Numbers that a source has in e4m3 stay what they are: the
            power of two that brings a row within reach never rounds them, and its scale takes the source's factor.
        keep: called with path and tensor, quantized if it is, but not settled; returns what becomes the weight.
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
