"""A single block by itself, with random weights, on any device: whole, for the image tokens alone, and in float64."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.blocks import last_single_block, single_block
from fluxperf.engine.model.weights import Linear, ModulationRows, SingleWeights
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import OP_NAMES, Settings
from fluxperf.engine.phases import phase_named, table
from tests.model.weight_files import as_bfloat16

#: Text and image tokens: none, one and many of text, odd sizes, more text than image.
TOKENS = [(77, 300), (0, 193), (1, 130), (200, 65)]

#: Bounds of the error of a block's change of its image tokens, against float64, by rung.
BOUNDS = {"captured": 1e-2, "fp8": 8e-2}


class Drawn(NamedTuple):
    """Numbers that bfloat16 can hold: tokens [B, T + I, D], three vectors [B, D], rotations, weights."""

    text: int
    heads: int
    x: Any
    vectors: tuple[Any, ...]
    tables: tuple[Any, ...]
    weights: tuple[Any, ...]


def drawn(batch: int, text: int, image: int, heads: int, dim: int) -> Drawn:
    """Numbers of one case."""
    rng, width = np.random.default_rng([batch, text, image, heads]), heads * dim

    def draw(*shape: int, std: float = 1.0, mean: float = 0.0) -> Any:
        return as_bfloat16(rng.standard_normal(shape) * std + mean)

    angles = rng.uniform(-3, 3, (text + image, dim // 2)).repeat(2, axis=1)
    vectors = tuple(draw(batch, width, std=0.5) for _ in range(3))
    weights = (
        draw(3 * width, width, std=width**-0.5), draw(3 * width, std=0.3), draw(dim, std=0.2, mean=1),
        draw(dim, std=0.2, mean=1), draw(4 * width, width, std=width**-0.5), draw(4 * width, std=0.3),
        draw(width, 5 * width, std=(5 * width) ** -0.5), draw(width, std=0.3),
    )  # fmt: skip
    tables = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return Drawn(text, heads, draw(batch, text + image, width), vectors, tables, weights)


class Added(NamedTuple):
    """Change of the image tokens [B, I, D] by a block, in float64: by the whole block, and by the shorter one."""

    whole: Any
    less: Any


def added(device: Device, rung: str, numbers: Drawn) -> Added:
    """Runs both forms of the block on a device. ``rung`` may be ``"oracle"``, on the host device."""
    rows = dict.fromkeys(OP_NAMES, "oracle") if rung == "oracle" else table(rung)
    settings = Settings("float64") if rung == "oracle" else phase_named(rung).settings
    ops = bind(rung, rows, device, settings).ops["single"]

    def up(array: Any) -> Any:
        return ops.cast(device.door.to_device(np.asarray(array, np.float32), "drawn"), settings.activations)

    def projection(weight: Any, bias: Any) -> Linear:
        placed = up(weight)
        return Linear(ops.quantize_rows(placed) if rung == "fp8" else placed, up(bias))

    qkv, qkv_bias, q_norm, k_norm, *rest = numbers.weights
    weights = SingleWeights(
        ModulationRows(0, 0, 3), projection(qkv, qkv_bias), up(q_norm), up(k_norm), projection(*rest[:2]),
        projection(*rest[2:]),
    )  # fmt: skip
    vectors, x = tuple(map(up, numbers.vectors)), up(numbers.x)
    rope = tuple(device.door.to_device(part, "rope") for part in numbers.tables)
    found = []
    for block in (single_block, last_single_block):
        _, image = block(
            ops, x[:, : numbers.text], x[:, numbers.text :], lambda *_: vectors, rope, weights, numbers.heads
        )
        result = device.door.to_host(image, "result").astype(np.float64)
        found.append(result - numbers.x[:, numbers.text :])
    return Added(*found)


def in_float64(numbers: Drawn) -> Any:
    """Change of the image tokens by the whole block, by the oracle."""
    return added(HostDevice(), "oracle", numbers).whole
