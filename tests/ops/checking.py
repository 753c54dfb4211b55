"""Runs an implementation on a device and compares its result with the oracle."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops import catalog
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.catalog import Implementation
from fluxperf.engine.ops.specs import SPECS
from fluxperf.engine.ops.table import Halves, Ops, Quantized, Settings, Unscaled
from fluxperf.engine.phases import table
from tests.ops.cases import CALLS, SIZES, Call, Draw, Sizes, Weight

#: Implementations of the published baseline, which uses float32 throughout.
FLOAT32_ONLY = ("roundtrip", "kept_on_host", "host_reshape")

#: Ops that compute nothing; `test_views` tests them.
WITHOUT_NUMBERS = ("joined_halves",)


class Trial(NamedTuple):
    """One implementation in one case."""

    implementation: Implementation
    dtype: str
    variant: str
    size: str

    @property
    def op(self) -> str:
        return self.implementation.op

    @property
    def key(self) -> str:
        """The name under which its tolerance is listed."""
        return "fp8" if self.implementation.name == "fp8" else self.dtype

    @property
    def tolerance(self) -> float:
        return SPECS[self.op].tolerance[self.key]

    def __str__(self) -> str:
        parts = self.op, self.implementation.name, self.dtype, self.variant, self.size
        return "-".join(part for part in parts if part)


#: The oracle, and a product that is left to the op behind it; `test_views` covers that.
WITHOUT_TRIALS = ("oracle", "deferred")


def under_test(kind: str = "host") -> list[Implementation]:
    """Every implementation that devices of a kind have and that computes something, except the oracle."""
    return [row for row in catalog.implementations(kind) if row.name not in WITHOUT_TRIALS]


def dtypes(implementation: Implementation) -> tuple[str, ...]:
    if implementation.name == "fp8":
        return ("bfloat16",)
    return ("float32",) if implementation.name in FLOAT32_ONLY else ("float32", "bfloat16")


def trials(kind: str = "host") -> Iterator[Trial]:
    """Implementations x dtypes x variants x sizes."""
    for implementation in under_test(kind):
        if implementation.op not in WITHOUT_NUMBERS:
            axes = dtypes(implementation), CALLS[implementation.op], SIZES
            yield from (Trial(implementation, *rest) for rest in itertools.product(*axes))


def drawn(trial: Trial) -> Call:
    """The trial's call. All dtypes and implementations of a case use the same seed."""
    seed = [*trial.op.encode(), *trial.variant.encode(), *trial.size.encode()]
    return CALLS[trial.op][trial.variant](Draw(seed, trial.dtype), SIZES[trial.size])


def bound_ops(device: Device, implementation: Implementation, dtype: str) -> Ops:
    """A full table with that implementation in one section, so that it may be composed of the op that it replaces."""
    rows = table("tensorcore" if dtype == "bfloat16" else "broadcast")
    rows |= {f"single.{implementation.op}": implementation.name}
    if implementation.name == "fp8":
        rows["quantize_rows"] = "fp8"
    return bind("a test", rows, device, Settings(dtype)).ops["single"]


def place(device: Device, value: Any, sizes: Sizes, quantize: Any = None) -> Any:
    """Arguments on the device; weights are quantized if ``quantize`` is given."""
    if isinstance(value, tuple):
        return tuple(place(device, item, sizes, quantize) for item in value)
    if isinstance(value, Weight):
        placed = place(device, value.numbers, sizes)
        return quantize(placed) if quantize else placed
    if not isinstance(value, np.ndarray):
        return value
    return _strided(device, value) if sizes.strided else device.door.to_device(value, "argument")


def _strided(device: Device, numbers: Any) -> Any:
    """A view of a larger device array that is NaN outside of the view."""
    larger = np.full([extent + 3 for extent in numbers.shape], np.nan, numbers.dtype)
    inside = tuple(slice(1, 1 + extent) for extent in numbers.shape)
    larger[inside] = numbers
    return device.door.to_device(larger, "argument")[inside]


def perform(device: Device, trial: Trial, call: Call) -> Any:
    """The implementation's own result."""
    ops = bound_ops(device, trial.implementation, trial.dtype)
    quantize = ops.quantize_rows if trial.key == "fp8" else None
    return getattr(ops, trial.op)(*place(device, call.args, SIZES[trial.size], quantize), **call.options)


def oracle(trial: Trial, call: Call) -> list[Any]:
    """The right result, in float64 from the rounded operands."""
    function = SPECS[trial.op].oracle
    assert function is not None
    return listed(function(*bare(call.args), **call.options))


def bare(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(bare(item) for item in value)
    return value.numbers if isinstance(value, Weight) else value


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) and not isinstance(value, Quantized | Halves | Unscaled) else [value]


def on_host(device: Device, value: Any) -> Any:
    """Values in float64: of a host or device array, of quantized rows, or of a product without its scales."""
    if isinstance(value, Halves):
        return np.concatenate([on_host(device, half) for half in value], axis=-1)
    if isinstance(value, Quantized):
        return _e4m3(on_host_as_it_is(device, value.data)) * on_host(device, value.scale)
    if isinstance(value, Unscaled):
        product = on_host(device, value.data) * on_host(device, value.rows) * on_host(device, value.columns)
        return product if value.bias is None else product + on_host(device, value.bias)
    return on_host_as_it_is(device, value).astype(np.float64)


def on_host_as_it_is(device: Device, value: Any) -> Any:
    return value if isinstance(value, np.ndarray) else device.door.to_host(value, "result")


def _e4m3(numbers: Any) -> Any:
    """e4m3 values in float64; a device without the dtype stores them as bytes."""
    held = numbers.view(ml_dtypes.float8_e4m3fn) if numbers.dtype == np.uint8 else numbers
    return held.astype(np.float64)


def relative_error(result: Any, expected: Any) -> float:
    """``||result - expected|| / ||expected||``; infinite for a result that is not finite or has another shape."""
    if result.shape != expected.shape or not np.isfinite(result).all():
        return float("inf")
    wrong, size = np.linalg.norm(result - expected), np.linalg.norm(expected)
    return float(wrong / size) if size else 0.0 if wrong == 0 else float("inf")


def judge(trial: Trial, results: list[Any], expected: list[Any]) -> float:
    """The worst relative error of the results.

    Raises:
        AssertionError: it exceeds the op's tolerance; the message gives the ratio of error and tolerance.
    """
    assert len(results) == len(expected), f"{trial}: {len(results)} results, the oracle gives {len(expected)}"
    worst = 0.0
    for place_, (result, reference) in enumerate(zip(results, expected, strict=True)):
        assert result.shape == reference.shape, f"{trial}: result {place_} is {result.shape}, not {reference.shape}"
        error = relative_error(result, reference)
        used = f"{error / trial.tolerance:.0%} of the allowed error used" if trial.tolerance else "it must be exact"
        assert error <= trial.tolerance, f"{trial}: result {place_}: {used} ({error:.2e} of {trial.tolerance:.2e})"
        worst = max(worst, error)
    return worst


@cache
def measured(trial: Trial) -> float:
    """The worst relative error of a trial."""
    device = HostDevice()
    call = drawn(trial)
    results = [on_host(device, value) for value in listed(perform(device, trial, call))]
    return judge(trial, results, oracle(trial, call))
