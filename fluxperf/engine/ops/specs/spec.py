"""Parts of a specification: cases, operands, operation counts and tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

#: Operations per element that are counted for a formula with transcendental functions. It counts operations, not
#: cycles.
EXP, TANH = 8, 12

# Rounding to bfloat16 has a relative error of at most 2^-8; the norm over many values is 0.44 of that, and 0.88 with
# truncation, so a bound of three quarters tells them apart. A composition of n rounded ops gets n times the bound.
# Rounding to float32 has at most 2^-24; an op with a few roundings gets twice that, one with long sums eight times. The
# host's implementations use a fifth to four fifths of each bound.
BF16 = 0.75 * 2.0**-8
F32 = 2.0**-23
ELEMENTWISE = {"float32": F32, "bfloat16": BF16}
SUMS = {"float32": 4 * F32, "bfloat16": BF16}
CHAIN = {"float32": 4 * F32, "bfloat16": 2 * BF16}
# Two e4m3 operands with independent errors: 3 mantissa bits, at most 2^-4 relative each, 2^-5.2 over many values.
FP8 = {"fp8": 0.06}
# Float32 results, whatever the dtype of activations.
WIDE = {"float32": F32, "bfloat16": F32}
MOVED = {"float32": 0.0, "bfloat16": 0.0}


class Sizes(NamedTuple):
    """Extents of a case.

    ``features`` are those of a product's result, ``axes`` splits ``dim``, ``grid`` is rows and columns of image tokens.
    If ``joint``, ``tokens`` counts text and image together; otherwise it counts the tokens of the image stream.
    """

    batch: int
    tokens: int
    text: int
    heads: int
    dim: int
    axes: tuple[int, int, int]
    features: int
    grid: tuple[int, int]
    strided: bool = False
    joint: bool = False

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.heads * self.dim

    @property
    def image(self) -> int:
        """Tokens of the second of the two streams."""
        return self.tokens - self.text if self.joint else self.tokens


#: Sizes of a double block's joint sequence, by workload, for benchmarks.
WORKLOAD_SIZES = {
    "tiny": Sizes(1, 80, 16, 4, 16, (4, 6, 6), 64, (8, 8), joint=True),
    "schnell-1024": Sizes(1, 4608, 512, 24, 128, (16, 56, 56), 3072, (64, 64), joint=True),
}


class Draw(Protocol):
    """Draws operands: tests draw NumPy arrays, benchmarks draw in a device's memory (`Operands`)."""

    #: Dtype of activations.
    dtype: str

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0, dtype: str = "") -> Any:
        """Normally distributed values [shape], in the dtype of activations unless another is named."""

    def weight(self, outputs: int, inputs: int) -> Any:
        """A weight [N, K]; an e4m3 implementation receives it quantized."""

    def rotations(self, tokens: int, dim: int) -> tuple[Any, Any]:
        """cos and sin [L, d] in float32."""

    def fractions(self, count: int) -> tuple[float, ...]:
        """``count`` numbers between 0 and 1."""


class Operands:
    """Draws operands in a device's memory.

    Args:
        device: where the operands lie.
        dtype: of activations.
        skipped: number of elements between the begin of each allocation and its array, to test alignment.
    """

    def __init__(self, device: Any, dtype: str, skipped: int = 0) -> None:
        self.device, self.dtype, self._skipped = device, dtype, skipped

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0, dtype: str = "") -> Any:
        """Normally distributed values of a shape; the same shape gives the same values."""
        size = math.prod(shape) + self._skipped
        drawn = self.device.draw_normal((len(shape), *shape), (size,), dtype or self.dtype, std, mean)
        return drawn[self._skipped :].reshape(shape)

    def weight(self, outputs: int, inputs: int) -> Any:
        """A weight [N, K] in the dtype of activations."""
        return self(outputs, inputs, std=inputs**-0.5)

    def rotations(self, tokens: int, dim: int) -> tuple[Any, Any]:
        """Two tables [L, d] in float32 with arbitrary values, which take the same time as cos and sin."""
        return self(tokens, dim, dtype="float32"), self(tokens, dim, dtype="float32")

    def fractions(self, count: int) -> tuple[float, ...]:
        """``count`` evenly spaced numbers between 0 and 1."""
        return tuple((index + 0.5) / count for index in range(count))


@dataclass(frozen=True)
class Call:
    """An op's arguments and options, and the dtype of its result if it is not the activations'."""

    args: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    result: str = ""


#: Functions that draw the operands of one call, and a single operand.
Case = Callable[[Draw, Sizes], Call]
Operand = Callable[[Draw, Sizes], Any]


def normal(axes: str, **how: Any) -> Operand:
    """A function that draws an array of normally distributed values.

    Args:
        axes: letters of its extents with factors, such as ``"B L 3D"``: B samples, L tokens, T text tokens, I tokens of
            the second stream, D width, H heads, d head dimension, N features of a product.
        how: mean, standard deviation and dtype, as `Draw` takes them.
    """
    parts = [(int(word[:-1] or 1), word[-1]) for word in axes.split()]
    return lambda draw, s: draw(*(factor * _extent(s, letter) for factor, letter in parts), **how)


def weight(outputs: str, inputs: str) -> Operand:
    """A function that draws a product's weight, with extents in the letters of `normal`."""
    return lambda draw, s: draw.weight(_extent(s, outputs), _extent(s, inputs))


def _extent(s: Sizes, letter: str) -> int:
    extents = {"B": s.batch, "L": s.tokens, "T": s.text, "I": s.image, "D": s.width, "H": s.heads, "d": s.dim}
    return {**extents, "N": s.features}[letter]


def case(*operands: Any, result: str = "", **options: Any) -> Case:
    """A call whose operands are drawn in order; plain values are passed unchanged.

    Args:
        operands: results of `normal` and `weight`, or plain values.
        result: dtype of the op's result if it is not the activations'.
        options: keyword arguments of the call.
    """
    return lambda draw, s: Call(
        tuple(operand(draw, s) if callable(operand) else operand for operand in operands), options, result
    )


@dataclass(frozen=True)
class Spec:
    """An op's meaning, independent of implementations, and the calls that tests and benchmarks make.

    ``flops`` counts a multiply-add as two operations; it takes the op's arguments. The bytes of an op are those of
    every array argument and result, once each. ``tolerance`` bounds ``||out - oracle|| / ||oracle||`` by dtype of the
    activations; the oracle receives operands rounded to that dtype. ``cases`` have names; benchmarks time the cases in
    ``timed``. ``public`` is the op's name in `fluxperf.gpu`.
    """

    name: str
    tier: Literal["primitive", "model"]
    meaning: str
    signature: str
    cases: Mapping[str, Case]
    flops: Callable[..., int]
    tolerance: Mapping[str, float]
    timed: tuple[str, ...] = ()
    public: str = ""

    @property
    def oracle(self) -> Callable[..., Any] | None:
        """The op's formula in float64; ``None`` if it computes nothing."""
        from fluxperf.engine.ops import reference  # imported here, so that the suite can read specifications alone

        return getattr(reference, self.name, None)


def elements(x: Any, *_: Any) -> int:
    """One operation per element of the first argument."""
    return int(x.size)


def per_element(operations: int) -> Callable[..., int]:
    """A function that counts a fixed number of operations per element of the first argument."""
    return lambda x, *_: operations * int(x.size)


def none(*_: Any) -> int:
    """No operations: the op only moves data."""
    return 0


def product(x: Any, weight: Any, *_: Any) -> int:
    """Operations of x [.., K] times the transpose of W [N, K]."""
    return 2 * int(x.size) * int(weight.shape[0])


def array_bytes(value: Any) -> int:
    """Bytes of every array in a value, each of which is read or written once."""
    if isinstance(value, tuple | list):
        return sum(map(array_bytes, value))
    return int(getattr(value, "nbytes", 0))
