"""Parts of a specification: cases, operands, counts of operations and tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

#: Elementwise work per element where a formula has transcendental functions: a count of operations, not of cycles.
EXP, TANH = 8, 12

# One rounding to bfloat16 is at most 2^-8 relative, and 0.44 of that over many numbers where truncation is 0.88:
# three quarters tell them apart. A composition of n rounded ops is given n of them. One rounding to float32 is at
# most 2^-24; an op made of a few is given two, one with long sums eight. The host's implementations use a fifth to
# four fifths of each.
BF16 = 0.75 * 2.0**-8
F32 = 2.0**-23
ELEMENTWISE = {"float32": F32, "bfloat16": BF16}
SUMS = {"float32": 4 * F32, "bfloat16": BF16}
CHAIN = {"float32": 4 * F32, "bfloat16": 2 * BF16}
# Two e4m3 operands (3 mantissa bits: at most 2^-4 relative each, over many numbers 2^-5.2), their errors independent.
FP8 = {"fp8": 0.06}
# Float32 results whatever the dtype of activations.
WIDE = {"float32": F32, "bfloat16": F32}
MOVED = {"float32": 0.0, "bfloat16": 0.0}


class Sizes(NamedTuple):
    """Extents of a case.

    ``features`` are those of a product's result, ``axes`` split ``dim``, ``grid`` is rows and columns of image tokens.
    ``joint`` says that ``tokens`` counts text and image together; otherwise it counts either stream that is not text.
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
        """Tokens of the second of two streams."""
        return self.tokens - self.text if self.joint else self.tokens


#: Sizes of a double block's joint sequence, by workload, for benchmarks.
WORKLOAD_SIZES = {
    "tiny": Sizes(1, 80, 16, 4, 16, (4, 6, 6), 64, (8, 8), joint=True),
    "schnell-1024": Sizes(1, 4608, 512, 24, 128, (16, 56, 56), 3072, (64, 64), joint=True),
}


class Draw(Protocol):
    """Draws operands: a test as NumPy numbers, a benchmark in a device's memory (`Operands`)."""

    #: Dtype of activations.
    dtype: str

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0, dtype: str = "") -> Any:
        """Normal numbers of a shape, in the dtype of activations unless another is named."""

    def weight(self, outputs: int, inputs: int) -> Any:
        """A weight [N, K], which an implementation in e4m3 gets quantized."""

    def rotations(self, tokens: int, dim: int) -> tuple[Any, Any]:
        """cos and sin [L, d] in float32."""

    def fractions(self, count: int) -> tuple[float, ...]:
        """So many numbers between 0 and 1."""


class Operands:
    """Draws operands in a device's memory.

    Args:
        device: where.
        dtype: of activations.
        skipped: elements that each array begins behind the beginning of its memory.
    """

    def __init__(self, device: Any, dtype: str, skipped: int = 0) -> None:
        self.device, self.dtype, self._skipped = device, dtype, skipped

    def __call__(self, *shape: int, std: float = 1.0, mean: float = 0.0, dtype: str = "") -> Any:
        """Normal numbers of a shape; the same ones for the same shape."""
        size = math.prod(shape) + self._skipped
        drawn = self.device.draw_normal((len(shape), *shape), (size,), dtype or self.dtype, std, mean)
        return drawn[self._skipped :].reshape(shape)

    def weight(self, outputs: int, inputs: int) -> Any:
        """A weight [N, K] in the dtype of activations."""
        return self(outputs, inputs, std=inputs**-0.5)

    def rotations(self, tokens: int, dim: int) -> tuple[Any, Any]:
        """Two tables [L, d] in float32; of any numbers, which take the time that cos and sin do."""
        return self(tokens, dim, dtype="float32"), self(tokens, dim, dtype="float32")

    def fractions(self, count: int) -> tuple[float, ...]:
        """Evenly spaced."""
        return tuple((index + 0.5) / count for index in range(count))


@dataclass(frozen=True)
class Call:
    """An op's arguments, options, and the dtype of its result where that is not the activations'."""

    args: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    result: str = ""


#: Draws the operands of one call; and one operand.
Case = Callable[[Draw, Sizes], Call]
Operand = Callable[[Draw, Sizes], Any]


def normal(axes: str, **how: Any) -> Operand:
    """An array of normal numbers, drawn with ``how``.

    Args:
        axes: letters of its extents with factors, such as ``"B L 3D"``: B samples, L tokens, T of text, I of the second
            stream, D width, H heads, d features of one, N features of a product.
        how: mean, standard deviation and dtype, as `Draw` takes them.
    """
    parts = [(int(word[:-1] or 1), word[-1]) for word in axes.split()]
    return lambda draw, s: draw(*(factor * _extent(s, letter) for factor, letter in parts), **how)


def weight(outputs: str, inputs: str) -> Operand:
    """A product's weight, by the letters of `normal`."""
    return lambda draw, s: draw.weight(_extent(s, outputs), _extent(s, inputs))


def _extent(s: Sizes, letter: str) -> int:
    extents = {"B": s.batch, "L": s.tokens, "T": s.text, "I": s.image, "D": s.width, "H": s.heads, "d": s.dim}
    return {**extents, "N": s.features}[letter]


def case(*operands: Any, result: str = "", **options: Any) -> Case:
    """A call of operands, drawn in order, and of what is no function as it is.

    Args:
        operands: of `normal`, `weight`, or a plain value.
        result: dtype of its result where that is not the activations'.
        options: of the call.
    """
    return lambda draw, s: Call(
        tuple(operand(draw, s) if callable(operand) else operand for operand in operands), options, result
    )


@dataclass(frozen=True)
class Spec:
    """An op's meaning, whoever computes it, and the calls that tests and benchmarks make of it.

    ``flops`` counts a multiply-add as two operations and takes the op's arguments. Bytes are those of every array
    argument and result, each once. ``tolerance`` bounds ``||out - oracle|| / ||oracle||`` by dtype of the activations,
    with the oracle given the operands as rounded to that dtype. ``cases`` are named; benchmarks time those that
    ``timed`` names. ``public`` is its name in `fluxperf.gpu`.
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
        """Its formula in float64, or ``None`` if it computes nothing."""
        from fluxperf.engine.ops import reference  # here, so that the suite can read specifications by themselves

        return getattr(reference, self.name, None)


def elements(x: Any, *_: Any) -> int:
    """One operation per element of the first argument."""
    return int(x.size)


def per_element(operations: int) -> Callable[..., int]:
    """So many operations per element of the first argument."""
    return lambda x, *_: operations * int(x.size)


def none(*_: Any) -> int:
    """No operations: numbers are moved."""
    return 0


def product(x: Any, weight: Any, *_: Any) -> int:
    """Of x [.., K] times W [N, K] transposed."""
    return 2 * int(x.size) * int(weight.shape[0])


def array_bytes(value: Any) -> int:
    """Bytes of every array in a value: each read or written once."""
    if isinstance(value, tuple | list):
        return sum(map(array_bytes, value))
    return int(getattr(value, "nbytes", 0))
