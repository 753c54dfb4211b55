"""Any sizes: every implementation against the oracle, with extents that Hypothesis chooses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.ops.specs import SPECS
from tests.ops import checking
from tests.ops.cases import CALLS, Draw, Sizes

#: With fewer elements the relative error is no average: one sum with cancellation may dominate it. Only their shapes
#: are checked.
FEW = 64


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    axes = draw(st.tuples(*[st.sampled_from([2, 4, 6])] * 3))
    extent = st.integers(1, 9)
    grid = (draw(extent), draw(extent))
    return Sizes(
        draw(st.integers(0, 3)),
        draw(extent),
        draw(extent),
        draw(st.integers(1, 5)),
        sum(axes),
        axes,
        draw(st.integers(1, 70)),
        grid,
        draw(st.booleans()),
    )


CASES = [
    (row, dtype)
    for row in checking.under_test()
    if row.op not in checking.WITHOUT_NUMBERS
    for dtype in checking.dtypes(row)
]


@pytest.mark.parametrize(
    ("implementation", "dtype"), CASES, ids=[f"{row.op}-{row.name}-{dtype}" for row, dtype in CASES]
)
@settings(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(extents=sizes(), seed=st.integers(0, 2**32 - 1))
def test_any_sizes(implementation: checking.Implementation, dtype: str, extents: Sizes, seed: int) -> None:
    device = HostDevice()
    for variant, builder in CALLS[implementation.op].items():
        call = builder(Draw(seed, dtype), extents)
        ops = checking.bound_ops(device, implementation, dtype)
        quantize = ops.quantize_rows if implementation.name == "fp8" else None
        args = checking.place(device, call.args, extents, quantize)
        results = checking.listed(getattr(ops, implementation.op)(*args, **call.options))
        function = SPECS[implementation.op].oracle
        assert function is not None
        expected = checking.listed(function(*checking.bare(call.args), **call.options))
        key = "fp8" if implementation.name == "fp8" else dtype
        for result, reference in zip(results, expected, strict=True):
            numbers, tolerance = checking.on_host(device, result), SPECS[implementation.op].tolerance[key]
            error = checking.relative_error(numbers, reference)
            assert error < float("inf"), (variant, extents, numbers.shape, reference.shape)
            if reference.size >= FEW or not tolerance:
                assert error <= 2 * tolerance, (variant, extents, error)


def test_property_tests_would_see_a_wrong_shape() -> None:
    assert checking.relative_error(np.zeros((1, 2)), np.zeros((2, 1))) == float("inf")
