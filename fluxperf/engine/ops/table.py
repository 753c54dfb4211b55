"""The table of bound ops, which the model calls. It has one field per op; `specs` describes each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from fluxperf.engine.device.base import Array, Device
from fluxperf.engine.device.transfers import HostNumbers

__all__ = ["SECTIONS", "Array", "Deferred", "Device", "Halves", "Operand", "Ops", "Quantized", "Settings", "Unscaled"]

#: Parts of the model that may have different bindings. ``loop`` is the sampler around the forward.
SECTIONS = ("embed", "double", "single", "final", "loop")


class Quantized(NamedTuple):
    """Values in float8_e4m3fn with float32 scales: ``value = data * scale``. Scales are powers of two.

    Weights that a file stores in e4m3 have the file's own factor in their scales too, which may be any positive number.

    ``data`` is [.., K], ``scale`` [.., 1]. A weight [N, K] has one scale per output channel, an activation [B, L, K]
    one per token; queries, keys and values [B, H, L, d] have one scale [1, 1, 1, 1]. ``lengths`` [.., 1], where known,
    are upper bounds of the Euclidean length of each row; a product bounds its results by them. ``means`` [2] belongs to
    values of attention whose scale is larger than they need: the scale for their weighted means, and theirs divided by
    it. Without it means have the scale of the values.
    """

    data: Array
    scale: Array
    lengths: Array | None = None
    means: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the numbers."""
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size


class Halves(NamedTuple):
    """Rows in e4m3 whose halves have scales of their own: ``value = [first, second]`` along the last axis.

    A product with two scales per row reads it as it is. Other products bring both halves to one scale, in place if the
    halves lie side by side in one buffer, so one op may read it, once.
    """

    first: Quantized
    second: Quantized

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of whole rows."""
        return (*self.first.shape[:-1], self.first.shape[-1] + self.second.shape[-1])

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.first.size + self.second.size


class Unscaled(NamedTuple):
    """A product of two `Quantized` without its scales and bias: ``value = data * rows * columns + bias``.

    ``data`` [.., L, N] in the dtype of activations, ``rows`` [.., L, 1] and ``columns`` [N] in float32, ``bias`` [N] or
    ``None``. The kernel that reads the product applies them. That costs no time there, but would in the product.
    """

    data: Array
    rows: Array
    columns: Array
    bias: Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the product."""
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.data.size


class Deferred(NamedTuple):
    """A product ``x W^T`` that is not computed yet.

    The op that takes it computes the product, with its own work as epilogue.

    ``x`` [.., K] and ``weight`` [N, K] are both arrays or both `Quantized`.
    """

    x: Any
    weight: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the product."""
        return (*self.x.shape[:-1], self.weight.shape[0])

    @property
    def size(self) -> int:
        """Number of elements of the product."""
        return math.prod(self.shape)


class Settings(NamedTuple):
    """A phase's settings: the dtype of activations, whether independent work may overlap, ``image_only``.

    ``image_only`` says whether the last single block computes the image tokens alone.
    """

    activations: str
    overlaps: bool = False
    image_only: bool = False


#: Values that ops exchange inside a section: device arrays; in phases with e4m3 also arrays with scales, or products
#: without their scales; in the published baseline also arrays that rest in host memory. Only an `Array` leaves a
#: section.
Operand = Array | Quantized | Halves | Unscaled | Deferred | HostNumbers

#: Types of ops: one that returns an array, on the device or resting on the host; one that may return e4m3; one with
#: several results.
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
        """Results of independent pieces of work, in order. It is not an op, as it computes nothing.

        The pieces may overlap where the phase and the device allow it. The caller must hold what they read until all
        are done.
        """
        return self.device.beside(*work) if self.settings.overlaps else tuple(piece() for piece in work)


#: Ops that only some phases have. A table without a row for one of them can be bound.
OPTIONAL = ("quantize_rows",)

#: Names of all ops, in the order of the table.
OP_NAMES: tuple[str, ...] = tuple(name for name in Ops.__dataclass_fields__ if name not in ("device", "settings"))
