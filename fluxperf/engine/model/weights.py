"""Weights of FLUX.1 in canonical form: merged projections, and all modulation projections stacked.

Projections with the same input are merged into one: ``qkv``, and the modulations of all blocks, which depend only on
timestep, pooled text and guidance. Weights are [out, in], biases [out], norms [d].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from fluxperf.engine.config import FluxConfig

Tensor = Callable[[str, tuple[int, ...]], Any]


@dataclass(frozen=True)
class Linear:
    """``x W^T + b``: weight [N, K], bias [N]."""

    weight: Any
    bias: Any


@dataclass(frozen=True)
class Embedder:
    """Two projections with a SiLU between them."""

    first: Linear
    second: Linear


@dataclass(frozen=True)
class ModulationRows:
    """Rows of the stacked modulation that belong to one stream: ``parts`` vectors of D, from the row ``start`` on."""

    start: int
    stop: int
    parts: int


@dataclass(frozen=True)
class StreamWeights:
    """One stream (text or image) of a double block.

    ``modulation``: shift, scale, gate for attention, then the same for the MLP.
    """

    modulation: ModulationRows
    qkv: Linear
    q_norm: Any
    k_norm: Any
    out: Linear
    mlp_up: Linear
    mlp_down: Linear


@dataclass(frozen=True)
class DoubleWeights:
    """A double block: two streams."""

    txt: StreamWeights
    img: StreamWeights


@dataclass(frozen=True)
class SingleWeights:
    """A single block. ``out`` [D, D + M] takes the attention output and the activated MLP half together.

    ``modulation``: shift, scale, gate.
    """

    modulation: ModulationRows
    qkv: Linear
    q_norm: Any
    k_norm: Any
    mlp_up: Linear
    out: Linear


Block = TypeVar("Block", covariant=True)


class Blocks(Protocol[Block]):
    """Weights of the blocks of a section, in order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Block]: ...


#: The stacked modulation projection in pieces: the rows of each, by the first row, in order.
Pieces = Blocks[tuple[int, Linear]]


@dataclass(frozen=True)
class FluxWeights:
    """All weights of a model. ``final_modulation``: shift, then scale (diffusers stores scale first).

    Blocks are iterated once per forward. In memory mode a streamed block is on the device only from the moment it is
    yielded until the next one is requested. ``modulation`` may then be in pieces, each with its first row.
    """

    img_in: Linear
    txt_in: Linear
    time_in: Embedder
    pooled_in: Embedder
    guidance_in: Embedder | None
    modulation: Linear | Pieces
    double: Blocks[DoubleWeights]
    single: Blocks[SingleWeights]
    final_modulation: ModulationRows
    final_out: Linear


def assemble(config: FluxConfig, tensor: Tensor) -> FluxWeights:
    """Weights of a model. Each tensor is requested once, by canonical path and shape.

    This is the only place that defines names and shapes. Loaders, synthetic weights and memory counts all use it.

    Args:
        config: sizes of the model.
        tensor: called with a path such as ``"double.0.img.qkv.weight"`` and a shape; returns the tensor.
    """
    dim, mlp = config.dim, config.mlp_dim
    taken = 0

    def rows(parts: int) -> ModulationRows:
        nonlocal taken
        start, taken = taken, taken + parts * dim
        return ModulationRows(start, taken, parts)

    def linear(path: str, outputs: int, inputs: int) -> Linear:
        return Linear(tensor(f"{path}.weight", (outputs, inputs)), tensor(f"{path}.bias", (outputs,)))

    def embedder(path: str, inputs: int) -> Embedder:
        return Embedder(linear(f"{path}.first", dim, inputs), linear(f"{path}.second", dim, dim))

    def attention(path: str) -> tuple[Linear, Any, Any]:
        norm = (config.head_dim,)
        return linear(f"{path}.qkv", 3 * dim, dim), tensor(f"{path}.q_norm", norm), tensor(f"{path}.k_norm", norm)

    def stream(path: str) -> StreamWeights:
        return StreamWeights(
            rows(6),
            *attention(path),
            linear(f"{path}.out", dim, dim),
            linear(f"{path}.mlp_up", mlp, dim),
            linear(f"{path}.mlp_down", dim, mlp),
        )

    def double(path: str) -> DoubleWeights:
        img = stream(f"{path}.img")
        return DoubleWeights(txt=stream(f"{path}.txt"), img=img)

    def single(path: str) -> SingleWeights:
        return SingleWeights(
            rows(3), *attention(path), linear(f"{path}.mlp_up", mlp, dim), linear(f"{path}.out", dim, dim + mlp)
        )

    return FluxWeights(
        img_in=linear("img_in", dim, config.in_channels),
        txt_in=linear("txt_in", dim, config.text_dim),
        time_in=embedder("time_in", config.time_features),
        pooled_in=embedder("pooled_in", config.pooled_dim),
        guidance_in=embedder("guidance_in", config.time_features) if config.guidance else None,
        modulation=linear("modulation", config.modulation_rows, dim),
        double=tuple(double(f"double.{index}") for index in range(config.double_blocks)),
        single=tuple(single(f"single.{index}") for index in range(config.single_blocks)),
        final_modulation=rows(2),
        final_out=linear("final_out", config.in_channels, dim),
    )


def parameters(config: FluxConfig) -> dict[str, tuple[int, ...]]:
    """Canonical path and shape of every tensor of a model."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(path: str, shape: tuple[int, ...]) -> None:
        shapes[path] = shape

    assemble(config, note)
    return shapes
