"""Ops alone, as a rung implements them: baseline (float32, numpy round trips), batched (float32), fused (bfloat16)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .rungs import need_gpu_for, samples

#: Rungs whose tables differ in these ops.
OP_RUNGS = ("baseline", "batched", "fused")


class Shape(NamedTuple):
    """Tokens, heads and features per head of the joint sequence."""

    tokens: int
    heads: int
    dim: int


SHAPES = {"tiny": Shape(80, 4, 16), "schnell-1024": Shape(4608, 24, 128)}

Draw = Callable[..., Any]

#: Operands of each op, given a function that draws numbers of a shape in the rung's dtype.
OPERANDS: dict[str, Callable[[Draw, Shape], tuple[Any, ...]]] = {
    "layer_norm": lambda draw, s: (_tokens(draw, s),),
    "modulate": lambda draw, s: (_tokens(draw, s), _row(draw, s), _row(draw, s)),
    "norm_modulate": lambda draw, s: (_tokens(draw, s), _row(draw, s), _row(draw, s)),
    "gated_residual": lambda draw, s: (_tokens(draw, s), _row(draw, s), _tokens(draw, s)),
    "add_broadcast": lambda draw, s: (_tokens(draw, s), draw(s.heads * s.dim)),
    "apply_rope": lambda draw, s: (
        draw(1, s.tokens, s.heads, s.dim),
        draw(s.tokens, s.dim, dtype="float32"),
        draw(s.tokens, s.dim, dtype="float32"),
    ),
    "batched_matmul": lambda draw, s: (draw(1, s.heads, s.tokens, s.dim), draw(1, s.heads, s.dim, s.tokens)),
    "attention": lambda draw, s: tuple(draw(1, s.heads, s.tokens, s.dim) for _ in range(3)),
}


def _tokens(draw: Draw, shape: Shape) -> Any:
    return draw(1, shape.tokens, shape.heads * shape.dim)


def _row(draw: Draw, shape: Shape) -> Any:
    return draw(1, shape.heads * shape.dim)


class Ops:
    """Times of one op on numbers of a model's shape."""

    params = (tuple(OPERANDS), tuple(SHAPES), OP_RUNGS)
    param_names = ("op", "shape", "rung")
    timeout = 120
    unit = "seconds"
    version = "1"

    def setup(self, op: str, shape: str, rung: str) -> None:
        """Skips what cannot run here."""
        need_gpu_for(shape, "batched")

    def track_op(self, op: str, shape: str, rung: str) -> dict[str, Any]:
        """Seconds of one call, back to back with others; on a GPU its operands may stay in the L2 cache."""
        from fluxperf.engine.device import open_device
        from fluxperf.engine.ops.bind import bind
        from fluxperf.engine.phases import phase_named, table

        phase, device = phase_named(rung), open_device("auto")
        call = getattr(bind(rung, table(rung), device, phase.settings).ops["double"], op)

        def draw(*extents: int, dtype: str = phase.activations) -> Any:
            return device.draw_normal((len(extents), *extents), extents, dtype, 1.0)

        operands = OPERANDS[op](draw, SHAPES[shape])
        return samples(device, lambda: call(*operands))
