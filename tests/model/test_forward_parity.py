"""One forward of every rung against diffusers, in both published layouts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fluxperf.engine.ops import reference
from fluxperf.engine.ops.frequencies import timestep_frequencies
from fluxperf.engine.ops.host import primitives
from tests.model.error_bounds import BFLOAT16_RATIO, FLOAT32_BOUND, FP8_BOUND
from tests.model.rung_runs import (
    BFLOAT16_RUNGS,
    FAIR,
    FLOAT32_RUNGS,
    RUNGS,
    Case,
    Moment,
    inputs,
    relative_error,
    scheduled,
)

pytestmark = pytest.mark.peer

#: Every batch size with every shape, and once the text length of the published models, whose attention costs as much as
#: all others.
CASES = [Case(batch, 77, rows, columns) for batch in (1, 2) for rows, columns in ((4, 4), (4, 6))]
CASES.append(Case(1, 512, 4, 6))
MODELS = ("schnell", "dev")


def _layout(model: int, case: int) -> str:
    """Both published layouts for every model; each size is tested with one of them."""
    return ("folder", "original")[(model + case.bit_count()) % 2]


matrix = pytest.mark.parametrize(
    ("model", "case", "layout"),
    [(name, case, _layout(m, c)) for m, name in enumerate(MODELS) for c, case in enumerate(CASES)],
    ids=str,
)


@matrix
@pytest.mark.parametrize("rung", FLOAT32_RUNGS)
def test_a_float32_rung_is_diffusers_up_to_rounding(peers, rung_of, measure, rung, model, case, layout):
    bound = rung_of(rung, model, layout)
    given = inputs(bound.config, case)
    for moment in (*FAIR, scheduled(bound.config, case)):
        reference = peers[model].velocity("float32", case, moment.sigma, moment.guidance)
        error = relative_error(bound.velocity(given, case, moment), reference)
        measure("float32 error", rung, error)
        assert error <= FLOAT32_BOUND, moment


@pytest.mark.parametrize("guidance", [0.0, 30.0])
@pytest.mark.parametrize("rung", FLOAT32_RUNGS)
def test_the_ends_of_guidance_are_as_exact(peers, rung_of, measure, rung, guidance):
    """A guidance of 30 makes angles of 30,000 radians; one unit in a frequency's last place would
    change them by 1e-3.
    """
    bound, case = rung_of(rung, "dev", "folder"), Case(2, 77, 4, 6)
    reference = peers["dev"].velocity("float32", case, 0.5, guidance)
    error = relative_error(bound.velocity(inputs(bound.config, case), case, Moment((0.5, 0.0), 0, guidance)), reference)
    measure("float32 error", rung, error)
    assert error <= FLOAT32_BOUND


@pytest.mark.parametrize("source", ["host", "oracle"])
def test_timestep_features_are_diffusers(source):
    import torch
    from diffusers.models.embeddings import get_timestep_embedding

    from tests.model.diffusers_peer import known_frequencies

    times = (0.0, 1e-3, 0.25, 0.999, 1.0, 3.5, 4.0, 30.0)
    scaled = torch.tensor(times) * 1000
    with known_frequencies():
        right = get_timestep_embedding(scaled, 256, flip_sin_to_cos=True, downscale_freq_shift=0).numpy()
    if source == "oracle":  # angles in float64: half a unit of theirs
        bound = np.spacing(np.maximum(scaled.numpy(), 1))[:, None]
        assert (abs(reference.timestep_embedding(times) - right) <= bound).all()
    else:  # the same angles, bit for bit
        assert abs(primitives.timestep_embedding(times) - right).max() <= 2e-7


def test_frequencies_are_those_of_pytorch_but_for_roundings_of_its_processor():
    import torch

    exponents = -math.log(10_000) * torch.arange(128, dtype=torch.float32) / 128
    own, theirs = timestep_frequencies(128), torch.exp(exponents).numpy()
    assert (abs(own - theirs) <= np.spacing(theirs)).all()
    assert (own != theirs).sum() <= 16, "MKL's codes for x86 differ in up to 8 of 128"


@matrix
@pytest.mark.parametrize("rung", BFLOAT16_RUNGS)
def test_a_bfloat16_rung_is_as_close_as_diffusers_in_bfloat16(peers, rung_of, measure, rung, model, case, layout):
    bound = rung_of(rung, model, layout)
    given = inputs(bound.config, case)
    for moment in (*FAIR, scheduled(bound.config, case)):
        at = (case, moment.sigma, moment.guidance)
        reference = peers[model].velocity("float32", *at)
        own = relative_error(peers[model].velocity("bfloat16", *at), reference)
        ratio = relative_error(bound.velocity(given, case, moment), reference) / own
        kind = "exact" if moment in FAIR else "rounded"
        measure(f"bfloat16 ratio, 1000 t {kind}", rung, ratio)
        measure(f"bfloat16 error, 1000 t {kind}", rung, ratio * own)
        measure(f"bfloat16 error, 1000 t {kind}", "diffusers", own)
        assert ratio <= BFLOAT16_RATIO, moment


@matrix
def test_fp8_stays_within_its_rounding(peers, rung_of, measure, model, case, layout):
    bound = rung_of("fp8", model, layout)
    given = inputs(bound.config, case)
    for moment in (*FAIR, scheduled(bound.config, case)):
        reference = peers[model].velocity("float32", case, moment.sigma, moment.guidance)
        error = relative_error(bound.velocity(given, case, moment), reference)
        measure("fp8 error", "fp8", error)
        assert error <= FP8_BOUND, moment


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rung", RUNGS)
def test_every_layout_gives_the_same_bits(rung_of, rung, model):
    case = Case(2, 77, 4, 6)
    results = {
        layout: rung_of(rung, model, layout).velocity(inputs(rung_of(rung, model, layout).config, case), case, FAIR[1])
        for layout in ("folder", "shards", "original", "original32")
    }
    assert all((result == results["folder"]).all() for result in results.values())
