"""diffusers' transformer on the weights of fluxperf's rungs; on a GPU they even share the memory.

The weights are drawn or loaded on the device in bfloat16. diffusers' parameters are rows of them, by the inverse of the
loader's recipes, so a bfloat16 model of 24 GB is in memory only once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import FluxTransformer2DModel

from benchmarks.peers.diffusers import built
from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device.base import Device
from fluxperf.engine.model.weights import parameters


class Rows(NamedTuple):
    """Rows ``start`` to ``stop`` of a canonical tensor."""

    path: str
    start: int
    stop: int


def sources(config: FluxConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Rows]]:
    """For every parameter of diffusers, the rows of canonical tensors that form it, in order.

    Args:
        config: sizes of the model.
        shapes: of diffusers' parameters, by name.

    Raises:
        AssertionError: rows of a parameter, or of a canonical tensor, are used twice or not at all.
    """
    found: dict[str, list[tuple[int, Rows]]] = defaultdict(list)
    canonical = parameters(config)
    for path, pieces in layouts.diffusers(config).items():
        row = 0
        for piece in pieces:
            stop = shapes[piece.name][0] if piece.stop is None else piece.stop
            found[piece.name].append((piece.start, Rows(path, row, row + stop - piece.start)))
            row += stop - piece.start
        assert row == canonical.pop(path)[0], path
    assert not canonical, f"canonical tensors that diffusers does not have: {sorted(canonical)}"
    for name, parts in found.items():
        parts.sort()
        ends = [start + rows.stop - rows.start for start, rows in parts]
        assert [start for start, _ in parts] == [0, *ends[:-1]], name
        assert ends[-1] == shapes[name][0], name
    return {name: [rows for _, rows in parts] for name, parts in found.items()}


def on_meta(config: FluxConfig) -> FluxTransformer2DModel:
    """diffusers' model in bfloat16 without allocated memory."""
    with torch.device("meta"):
        return built(config).to(torch.bfloat16)


def assigned(config: FluxConfig, tensor: Callable[[str], torch.Tensor]) -> FluxTransformer2DModel:
    """diffusers' model of canonical tensors. Its parameters are views wherever their rows are contiguous.

    Args:
        config: sizes of the model.
        tensor: returns the canonical tensor of a path.
    """
    model = on_meta(config)
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    state = {}
    for name, parts in sources(config, shapes).items():
        rows = [tensor(path)[start:stop] for path, start, stop in parts]
        state[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
    model.load_state_dict(state, strict=True, assign=True)
    assert not [name for name, x in (*model.named_parameters(), *model.named_buffers()) if x.is_meta]
    return model.requires_grad_(False)


def as_torch(device: Device, array: Any) -> torch.Tensor:
    """A device's array as a PyTorch tensor: on a GPU on the same memory, on the host device a copy.

    bfloat16 is passed as 16-bit integers, because DLPack has no NumPy type for it.
    """
    narrow = str(array.dtype) == "bfloat16"
    if device.kind == "host":
        array = device.door.to_host(array, "weights")
    if narrow:
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


def of_source(source: WeightSource, device: Device) -> FluxTransformer2DModel:
    """diffusers' model of a source's weights in bfloat16, on the source's memory.

    Args:
        source: keeps the weights (`SharedWeights`); otherwise the model has a copy of its own.
        device: where the weights are placed.
    """
    shapes = parameters(source.config)
    return assigned(
        source.config, cache(lambda path: as_torch(device, source.put(device, path, shapes[path], "bfloat16")))
    )
