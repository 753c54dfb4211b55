"""The table of bound ops: what the model calls. One field per op; `specs` says what each means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fluxperf.engine.device.base import Array, Device
from fluxperf.engine.device.transfers import HostNumbers

__all__ = ["SECTIONS", "Array", "Deferred", "Device", "Operand", "Ops", "Quantized", "Settings", "Unscaled"]

#: The parts of the model that may be bound differently. ``loop`` is the sampler around the forward.
SECTIONS = ("embed", "double", "single", "final", "loop")


class Quantized(NamedTuple):
    """Numbers in float8_e4m3fn with float32 scales: ``value = data * scale``. Scales are powers of two.

    Those of weights that a file has in e4m3 have the file's own factor besides, which may be any positive number.

    ``data`` is [.., K], ``scale`` [.., 1]. As a weight [N, K] that is one scale per output channel, as an activation
    [B, L, K] one per token; queries, keys and values [B, H, L, d] have one scale [1, 1, 1, 1]. ``lengths`` [.., 1],
    where they are known, are no less than the Euclidean length of each row: a product bounds its results by them.
    """

    data: Array
    scale: Array
    lengths: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the numbers."""
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of the numbers."""
        return self.data.size


class Unscaled(NamedTuple):
    """A product of two `Quantized` before its scales, and its bias: ``value = data * rows * columns + bias``.

    ``data`` [.., L, N] in the dtype of activations, ``rows`` [.., L, 1] and ``columns`` [N] in float32, ``bias`` [N] or
    none. The kernel that reads the product multiplies and adds as it reads: that costs nothing there, and time in the
    product.
    """

    data: Array
    rows: Array
    columns: Array
    bias: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the numbers."""
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of the numbers."""
        return self.data.size


class Deferred(NamedTuple):
    """A product ``x W^T`` that is not computed yet: the op that takes it computes it, and does its own work behind it.

    ``x`` [.., K] and ``weight`` [N, K], both numbers or both `Quantized`.
    """

    x: Any
    weight: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the product."""
        return (*self.x.shape[:-1], self.weight.shape[0])

    @property
    def size(self) -> int:
        """Number of the product's numbers."""
        return math.prod(self.shape)


class Settings(NamedTuple):
    """Settings of a phase for every op: the dtype of activations, and whether independent work may overlap."""

    activations: str
    overlaps: bool = False


#: Numbers that an op may take and give inside a section: an array in the device's memory; in phases with e4m3 one with
#: scales, or a product before its scales; in the published baseline numbers that rest in the host's memory. What leaves
#: a section is an `Array`.
Operand = Array | Quantized | Unscaled | Deferred | HostNumbers

#: An op that gives an array, resting or not; one that may give numbers in e4m3; one with several results.
Op = Callable[..., Array]
MixedOp = Callable[..., Operand]
ManyOp = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Ops:
    """One callable per op, bound to a device and, where sections differ, to a section of the model."""

    device: Device
    settings: Settings

    # primitives
    layer_norm: Op
    modulate: Op
    gated_residual: Op
    add_broadcast: Op
    batched_matmul: Op
    scale: Op
    rms_norm: Op
    apply_rope: Op
    softmax: Op
    gelu: Op
    silu: Op
    linear: MixedOp
    concat_tokens: Op
    split_tokens: ManyOp
    split_modulation: ManyOp
    transpose_heads: Op
    cast: Op
    quantize_rows: MixedOp
    euler_step: Op

    # model ops
    timestep_embedding: Op
    rope_table: ManyOp
    silu_linear: Op
    linear_gelu: MixedOp
    norm_modulate: MixedOp
    qkv_heads: ManyOp
    attention: MixedOp
    linear_gated_residual: Op
    joined_halves: ManyOp
    join_features: MixedOp

    def beside(self, *work: Callable[[], Any]) -> tuple[Any, ...]:
        """Results of pieces of work that do not depend on each other, in order. Not an op: it computes nothing.

        They may overlap where the phase and the device let them. What a piece reads must be held until all are done.
        """
        return self.device.beside(*work) if self.settings.overlaps else tuple(piece() for piece in work)


#: Ops that only some phases have; a table without a row for one binds all the same.
OPTIONAL = ("quantize_rows",)

#: Names of all ops, in the order of the table.
OP_NAMES: tuple[str, ...] = tuple(name for name in Ops.__dataclass_fields__ if name not in ("device", "settings"))
