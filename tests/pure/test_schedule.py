"""Noise levels against the formulas of the reference implementations, in NumPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluxperf.engine.model.schedule import sigmas
from fluxperf.errors import ArgumentError

STEPS = [1, 2, 4, 28, 50]


@pytest.mark.parametrize("steps", STEPS)
def test_schnell_is_evenly_spaced(steps: int) -> None:
    levels = sigmas(steps, 4096, shifted=False)
    assert np.array_equal(levels[:-1], np.linspace(1, 1 / steps, steps).astype(np.float32).astype(float))
    assert levels[-1] == 0
    assert sigmas(4, 256, shifted=False) == (1, 0.75, 0.5, 0.25, 0)


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 9216])
@pytest.mark.parametrize("steps", STEPS)
def test_dev_is_shifted_by_the_number_of_image_tokens(steps: int, tokens: int) -> None:
    slope = (1.15 - 0.5) / (4096 - 256)
    mu = tokens * slope + 0.5 - slope * 256
    even = np.linspace(1, 1 / steps, steps)
    expected = np.exp(mu) / (np.exp(mu) + (1 / even - 1) ** 1.0)
    levels = np.array(sigmas(steps, tokens, shifted=True))
    np.testing.assert_allclose(levels[:-1], expected, rtol=1e-7)
    assert levels[-1] == 0


def test_dev_known_levels() -> None:
    """mu is 1.15 at 4096 tokens, so half of the noise is at e^1.15 / (e^1.15 + 1)."""
    assert sigmas(2, 4096, shifted=True) == pytest.approx((1, 0.759510916949111, 0))
    assert sigmas(2, 256, shifted=True) == pytest.approx((1, 0.6224593312018546, 0))


@given(st.integers(1, 200), st.integers(1, 20_000), st.booleans())
def test_levels_fall_from_one_to_zero_in_float32(steps: int, tokens: int, shifted: bool) -> None:
    levels = sigmas(steps, tokens, shifted)
    assert len(levels) == steps + 1
    assert (levels[0], levels[-1]) == (1, 0)
    assert all(high > low for high, low in pairwise(levels))
    assert all(type(level) is float and float(np.float32(level)) == level for level in levels)


def test_no_steps_are_refused() -> None:
    with pytest.raises(ArgumentError, match="at least 1 step, got 0"):
        sigmas(0, 64, shifted=False)
