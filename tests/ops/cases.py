"""Arguments for every op: random numbers, never zero, in sizes that find bugs (odd, one token, empty, strided).

`CALLS` has, for each op, named variants of a call. Numbers are rounded to the dtype of activations when drawn, so that
an implementation and the oracle see the same operands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fluxperf.engine.device.host import host_dtype


class Sizes(NamedTuple):
    """Extents of a case. ``features`` are those of a product's result, ``axes`` split ``dim``."""

    batch: int
    tokens: int
    text: int
    heads: int
    dim: int
    axes: tuple[int, int, int]
    features: int
    grid: tuple[int, int]
    strided: bool = False

    @property
    def width(self) -> int:
        return self.heads * self.dim


SIZES = {
    "ordinary": Sizes(1, 7, 3, 4, 16, (4, 6, 6), 96, (2, 2)),
    "one_token": Sizes(1, 1, 1, 4, 16, (4, 6, 6), 96, (1, 1)),
    "odd": Sizes(2, 5, 3, 8, 6, (2, 2, 2), 33, (3, 1)),
    "strided": Sizes(2, 5, 3, 8, 6, (2, 2, 2), 33, (3, 1), strided=True),
    "empty": Sizes(0, 7, 3, 4, 16, (4, 6, 6), 96, (0, 3)),
    "batch": Sizes(2, 37, 5, 4, 16, (4, 6, 6), 96, (4, 8)),
    "long": Sizes(1, 160, 31, 2, 64, (16, 24, 24), 384, (8, 16)),
}


@dataclass(frozen=True)
class Weight:
    """Numbers [N, K] that an fp8 implementation gets quantized."""

    numbers: Any


@dataclass(frozen=True)
class Call:
    """An op's arguments, options, and the dtype of its result where that is not the activations'."""

    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    result: str = ""


class Draw:
    """Random numbers in the dtype of activations."""

    def __init__(self, seed: int, dtype: str) -> None:
        self.dtype = dtype
        self._rng = np.random.default_rng(seed)

    def float32(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Any:
        numbers = self._rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean)
        return np.where(np.abs(numbers) < 1e-3 * std, np.float32(1e-3 * std), numbers).astype(np.float32)

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0) -> Any:
        return self.float32(*shape, std=std, mean=mean).astype(host_dtype(self.dtype))

    def weight(self, outputs: int, inputs: int) -> Weight:
        return Weight(self(outputs, inputs, std=inputs**-0.5))

    def rotations(self, tokens: int, dim: int) -> tuple[Any, Any]:
        angles = self._rng.uniform(0.1, 6.2, (tokens, dim // 2)).repeat(2, axis=1)
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


Builder = Callable[[Draw, Sizes], Call]
CALLS: dict[str, dict[str, Builder]] = {}


def call(op: str, variant: str = "") -> Callable[[Builder], Builder]:
    """Registers a builder of calls."""

    def register(builder: Builder) -> Builder:
        CALLS.setdefault(op, {})[variant] = builder
        return builder

    return register


def _tokens(draw: Draw, s: Sizes) -> Any:
    return draw(s.batch, s.tokens, s.width, mean=0.3)


@call("layer_norm")
def layer_norm(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s),))


@call("modulate")
def modulate(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s), draw(s.batch, s.width), draw(s.batch, s.width)))


@call("gated_residual")
def gated_residual(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s), draw(s.batch, s.width), _tokens(draw, s)))


@call("add_broadcast")
def add_broadcast(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s), _tokens(draw, s)))


@call("add_broadcast", "vector")
def add_vector(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s), draw(s.width)))


@call("add_broadcast", "outer")
def add_outer(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.tokens, 1, s.width), draw(s.batch, s.width)))


@call("batched_matmul")
def batched_matmul(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.heads, s.tokens, s.dim), draw(s.batch, s.heads, s.dim, s.features)))


@call("batched_matmul", "float32")
def batched_matmul_wide(draw: Draw, s: Sizes) -> Call:
    return Call(batched_matmul(draw, s).args, {"float32": True}, "float32")


@call("scale")
def scale(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.heads, s.tokens, s.tokens), 0.3535533905932738))


@call("rms_norm")
def rms_norm(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.heads, s.dim), draw(s.dim, std=0.1, mean=1.0)))


@call("apply_rope")
def apply_rope(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.heads, s.dim), *draw.rotations(s.tokens, s.dim)))


@call("softmax")
def softmax(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.heads, s.tokens, s.tokens, std=3.0),))


@call("softmax", "of_scores")
def softmax_of_scores(draw: Draw, s: Sizes) -> Call:
    """Float32 scores to weights in the dtype of activations, as composed attention asks for."""
    return Call((draw.float32(s.batch, s.heads, s.tokens, s.tokens, std=3.0),), {"dtype": draw.dtype})


@call("gelu")
def gelu(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.features, std=2.0),))


@call("silu")
def silu(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.features, std=3.0),))


@call("linear")
def linear(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.width), draw.weight(s.features, s.width), draw(s.features)))


@call("linear", "no_bias")
def linear_without_bias(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.width), draw.weight(s.features, s.width)))


@call("concat_tokens")
def concat_tokens(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.text, s.width), _tokens(draw, s)))


@call("concat_tokens", "by_head")
def concat_tokens_by_head(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.text, s.heads, s.dim), draw(s.batch, s.tokens, s.heads, s.dim)))


@call("split_tokens")
def split_tokens(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.text + s.tokens, s.width), s.text))


@call("split_modulation", "two")
def split_modulation_final(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, 2 * s.width), 2))


@call("split_modulation", "six")
def split_modulation(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, 6 * s.width), 6))


@call("transpose_heads")
def transpose_heads(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.heads, s.dim),))


@call("cast")
def cast(draw: Draw, s: Sizes) -> Call:
    """From the other dtype of activations."""
    other = {"float32": "bfloat16", "bfloat16": "float32"}[draw.dtype]
    return Call((draw.float32(s.batch, s.tokens, s.width).astype(host_dtype(other)), draw.dtype))


@call("quantize_rows")
def quantize_rows(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s),))


@call("quantize_rows", "weight")
def quantize_weight(draw: Draw, s: Sizes) -> Call:
    return Call((draw.weight(s.features, s.width).numbers,))


@call("euler_step")
def euler_step(draw: Draw, s: Sizes) -> Call:
    shape = (s.batch, s.tokens, s.dim)
    return Call((draw.float32(*shape), draw(*shape), -0.2371), result="float32")


@call("timestep_embedding")
def timestep_embedding(draw: Draw, s: Sizes) -> Call:
    values = draw._rng.uniform(0, 1, s.batch * s.tokens).astype(np.float32)
    return Call((tuple(float(value) for value in values),), result="float32")


@call("timestep_embedding", "guidance")
def guidance_embedding(draw: Draw, s: Sizes) -> Call:
    return Call(((3.5,),), result="float32")


@call("rope_table")
def rope_table(draw: Draw, s: Sizes) -> Call:
    return Call((s.text, *s.grid, s.axes, 10_000.0), result="float32")


@call("silu_linear")
def silu_linear(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.width, std=2.0), draw.weight(s.features, s.width), draw(s.features)))


@call("linear_gelu")
def linear_gelu(draw: Draw, s: Sizes) -> Call:
    return Call((draw(s.batch, s.tokens, s.width), draw.weight(s.features, s.width), draw(s.features)))


@call("norm_modulate")
def norm_modulate(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s), draw(s.batch, s.width), draw(s.batch, s.width)))


def _heads(draw: Draw, s: Sizes, streams: tuple[int, ...]) -> Call:
    norms = [[draw(s.dim, std=0.1, mean=1.0) for _ in streams] for _ in range(2)]
    return Call(
        (
            tuple(draw(s.batch, tokens, 3 * s.width) for tokens in streams),
            tuple(draw(3 * s.width) for _ in streams),
            *(tuple(group) for group in norms),
            *draw.rotations(sum(streams), s.dim),
            s.heads,
        )
    )


@call("qkv_heads")
def qkv_heads(draw: Draw, s: Sizes) -> Call:
    return _heads(draw, s, (s.tokens,))


@call("qkv_heads", "two_streams")
def qkv_heads_of_two_streams(draw: Draw, s: Sizes) -> Call:
    return _heads(draw, s, (s.text, s.tokens))


@call("attention")
def attention(draw: Draw, s: Sizes) -> Call:
    return Call(tuple(draw(s.batch, s.heads, s.tokens, s.dim) for _ in range(3)))


@call("linear_gated_residual")
def linear_gated_residual(draw: Draw, s: Sizes) -> Call:
    y = draw(s.batch, s.tokens, s.features)
    return Call((_tokens(draw, s), draw(s.batch, s.width), y, draw.weight(s.width, s.features), draw(s.width)))


@call("join_features")
def join_features(draw: Draw, s: Sizes) -> Call:
    return Call((_tokens(draw, s), draw(s.batch, s.tokens, s.features)))
