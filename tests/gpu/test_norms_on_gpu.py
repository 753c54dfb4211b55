"""Layer norms with modulation, in bfloat16 and e4m3, on rows that are hard on a variance; compared with float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops import reference
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Settings
from fluxperf.engine.phases import table
from tests.ops.checking import on_host, relative_error
from tests.ops.e4m3 import up

#: Largest ||result - reference|| / ||reference||: half a step of each type is 2^-9 and 2^-4 of a value at most.
ERRORS = {"fused": 0.75 * 2**-8, "fp8": 3.2e-2}

#: How rows are made from normal numbers.
ROWS: dict[str, Callable[[Any], Any]] = {
    "far from zero": lambda x: x + 300,
    "with outliers": lambda x: np.where(np.arange(x.shape[-1]) % 511 == 5, 2000 * x, x),
    "of one number": lambda x: np.broadcast_to(0.37 * np.arange(1, 1 + x.shape[1])[:, None], x.shape),
    "below eps": lambda x: 1e-5 * x,
}


@pytest.mark.parametrize("rung", ["fused", "fp8"])
@pytest.mark.parametrize("width", [48, 520, 1024, 2056, 3072, 3592, 4096])
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("tokens", [67, 901])
def test_rows_that_are_hard_on_a_variance(gpu: CudaDevice, rows: str, width: int, rung: str, tokens: int) -> None:
    """Rows of two samples in a larger array, so that blocks take several, and rows have gaps of NaN between them.

    901 rows of 3072 values are enough for a warp each on Hopper.
    """
    draw = np.random.default_rng(width)
    room = np.full((2, tokens + 3, width + 8), np.nan)
    room[:, :tokens, :width] = ROWS[rows](3 * draw.standard_normal((2, tokens, width)))
    x = room.astype(ml_dtypes.bfloat16)[:, :tokens, :width].astype(np.float64)
    shift, scale = (draw.standard_normal((2, width)).astype(ml_dtypes.bfloat16).astype(np.float64) for _ in range(2))
    ops = bind("a test", table(rung), gpu, Settings("bfloat16")).ops["single"]
    result = ops.norm_modulate(up(gpu, room)[:, :tokens, :width], up(gpu, shift), up(gpu, scale))
    right = reference.norm_modulate(x, shift, scale)
    assert relative_error(on_host(gpu, result), right) <= ERRORS[rung]
