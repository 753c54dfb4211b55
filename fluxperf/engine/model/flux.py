"""FLUX.1: embeddings, double blocks, single blocks, final layer.

It is bound once; every call runs on the bound device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fluxperf.engine.config import FluxConfig
from fluxperf.engine.model import blocks
from fluxperf.engine.model.weights import FluxWeights, Linear, ModulationRows
from fluxperf.engine.ops.table import Array, Ops


class Sections(Protocol):
    """The part of a bound table that the model uses: ops by section, and a wrapper for a section's blocks."""

    @property
    def ops(self) -> Mapping[str, Ops]:
        """Ops by section."""

    def section(self, section: str, function: Any, index: int = 0) -> Any:
        """``function`` as block ``index`` of a section, called with the section's ops as first argument."""


class Computed:
    """Modulation vectors that are computed on demand, from the conditioning of one step.

    The product belongs to the section ``embed``, whichever section calls it, so it keeps that section's precision.

    Args:
        embed: ops of the section ``embed``.
        stacked: all modulation projections.
        temb: conditioning [B, D].
    """

    def __init__(self, embed: Ops, stacked: Linear, temb: Array) -> None:
        self._embed, self._stacked, self._temb = embed, stacked, temb

    def __call__(self, ops: Ops, rows: ModulationRows) -> tuple[Array, ...]:
        """``parts`` vectors [B, D]."""
        vectors = blocks.modulations(self._embed, self._stacked, self._temb, slice(rows.start, rows.stop))
        return tuple(ops.split_modulation(vectors, rows.parts))


class Hoisted:
    """Modulation vectors that are looked up in the precomputed product of all steps and blocks.

    Args:
        vectors: [S B, all rows], steps outermost; or pieces [S B, rows], by the first row of each piece.
        step: index of the step.
        batch: samples of a step, B.
    """

    def __init__(self, vectors: Array | Mapping[int, Array], step: int, batch: int) -> None:
        self._vectors, self._samples = vectors, slice(step * batch, (step + 1) * batch)

    def __call__(self, ops: Ops, rows: ModulationRows) -> tuple[Array, ...]:
        """``parts`` vectors [B, D]."""
        if isinstance(self._vectors, Mapping):
            return tuple(ops.split_modulation(self._vectors[rows.start][self._samples], rows.parts))
        return tuple(ops.split_modulation(self._vectors[self._samples, rows.start : rows.stop], rows.parts))


class Flux:
    """The transformer on a device.

    Args:
        config: its sizes.
        weights: on the device, in the layout that the phase needs.
        bound: the phase's ops.
    """

    def __init__(self, config: FluxConfig, weights: FluxWeights, bound: Sections) -> None:
        self.config, self.weights = config, weights
        self._embed = bound.ops["embed"]
        self._conditioning = bound.section("embed", blocks.conditioning)
        self._modulations = bound.section("embed", blocks.modulations)
        self._embedded = bound.section("embed", blocks.embedded)
        self._double = [bound.section("double", blocks.double_block, index) for index in range(config.double_blocks)]
        self._single = [bound.section("single", blocks.single_block, index) for index in range(config.single_blocks)]
        if self._single and bound.ops["single"].settings.image_only and not config.inner:
            self._single[-1] = bound.section("single", blocks.last_single_block, config.single_blocks - 1)
        self._final = bound.section("final", blocks.final_layer)

    def rope(self, text_tokens: int, rows: int, columns: int) -> tuple[Array, Array]:
        """cos and sin [T + rows columns, d]; computed once per shape."""
        cos, sin = self._embed.rope_table(text_tokens, rows, columns, self.config.axes, float(self.config.theta))
        return cos, sin

    def conditioning(self, timesteps: tuple[float, ...], pooled: Array, guidance: float | None) -> Array:
        """Conditioning [S B, D] of S timesteps; see `blocks.conditioning`."""
        temb: Array = self._conditioning(self.weights, timesteps, pooled, guidance)
        return temb

    def computed(self, temb: Array) -> Computed:
        """Modulation vectors computed on demand from the conditioning [B, D] of one step."""
        if not isinstance(self.weights.modulation, Linear):  # plans keep the projection whole for this executor
            raise AssertionError("pieces of the modulation projection are read in their order only")
        return Computed(self._embed, self.weights.modulation, temb)

    def all_modulations(self, temb: Array) -> Array | Mapping[int, Array]:
        """Modulation vectors [S B, all rows] of every block; by first row if the projection is in pieces."""
        stacked = self.weights.modulation
        if isinstance(stacked, Linear):
            vectors: Array = self._modulations(stacked, temb, slice(0, self.config.modulation_rows))
            return vectors
        return {start: self._modulations(piece, temb, slice(0, None)) for start, piece in stacked}

    def embed_text(self, text: Array) -> Array:
        """Text features [B, T, C] embedded as tokens [B, T, D]."""
        tokens: Array = self._embedded(text, self.weights.txt_in)
        return tokens

    def velocity(self, latents: Array, txt: Array, modulate: blocks.Modulate, rope: tuple[Array, Array]) -> Array:
        """Velocity [B, I, C] from latents [B, I, C], embedded text, modulation vectors and rotation tables."""
        img = self._embedded(latents, self.weights.img_in)
        heads = self.config.heads
        for block, weights in zip(self._double, self.weights.double, strict=True):
            txt, img = block(txt, img, modulate, rope, weights, heads)
        for block, merged in zip(self._single, self.weights.single, strict=True):
            txt, img = block(txt, img, modulate, rope, merged, heads)
        velocity: Array = self._final(img, modulate, self.weights.final_modulation, self.weights.final_out)
        return velocity
