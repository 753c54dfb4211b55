"""Whole denoisings against diffusers' pipeline loop: its scheduler, its model, the settings of the model cards."""

from __future__ import annotations

import numpy as np
import pytest
from rung_runs import BFLOAT16_RUNGS, FLOAT32_RUNGS, Case, inputs, relative_error

from fluxperf.engine.model.schedule import sigmas

pytestmark = pytest.mark.peer

#: Steps and guidance of the model cards.
STEPS = {"schnell": 4, "dev": 28}
GUIDANCE = {"schnell": 0.0, "dev": 3.5}
CASES = (Case(1, 77, 4, 4), Case(2, 77, 4, 6))
FLOAT32_BOUND = 2e-5
BFLOAT16_RATIO = 1.1
FP8_BOUND = 0.05

loops = pytest.mark.parametrize(
    ("model", "case"), [(model, case) for model in ("schnell", "dev") for case in CASES], ids=str
)


def _errors(peers, rung_of, rung, model, case, layout="folder"):
    """Error of the rung and of diffusers in bfloat16, both against diffusers in float32."""
    bound, peer, how = rung_of(rung, model, layout), peers[model], (STEPS[model], GUIDANCE[model])
    reference = peer.denoised("float32", case, *how)
    own = relative_error(peer.denoised("bfloat16", case, *how), reference)
    return relative_error(bound.denoised(inputs(bound.config, case), case, *how), reference), own


@loops
@pytest.mark.parametrize("rung", FLOAT32_RUNGS)
def test_a_float32_rung_ends_where_diffusers_does(peers, rung_of, measure, rung, model, case):
    error, _ = _errors(peers, rung_of, rung, model, case)
    measure(f"latents float32 error, {model}", rung, error)
    assert error <= FLOAT32_BOUND


@loops
@pytest.mark.parametrize("rung", BFLOAT16_RUNGS)
def test_a_bfloat16_rung_ends_as_close_as_diffusers_in_bfloat16(peers, rung_of, measure, rung, model, case):
    error, own = _errors(peers, rung_of, rung, model, case)
    measure(f"latents bfloat16 ratio, {model}", rung, error / own)
    measure(f"latents bfloat16 error, {model}", rung, error)
    measure(f"latents bfloat16 error, {model}", "diffusers", own)
    assert error <= BFLOAT16_RATIO * own


@loops
def test_fp8_ends_within_its_rounding(peers, rung_of, measure, model, case):
    error, _ = _errors(peers, rung_of, "fp8", model, case)
    measure(f"latents fp8 error, {model}", "fp8", error)
    assert error <= FP8_BOUND


@pytest.mark.parametrize("model", ["schnell", "dev"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 20, 28, 50])
@pytest.mark.parametrize("image_tokens", [16, 256, 1024, 4096, 8160])
def test_noise_levels_are_those_of_the_scheduler(peers, measure, model, steps, image_tokens):
    from diffusers_peer import scheduler

    ours = np.array(sigmas(steps, image_tokens, model == "dev"), np.float32)
    theirs = scheduler(steps, image_tokens, model == "dev").sigmas.numpy()
    assert ours.shape == theirs.shape
    assert (ours[0], ours[-1]) == (1, 0)
    ulps = np.abs(ours.astype(np.float64) - theirs) / np.spacing(theirs)
    measure("noise levels, ulp", model, ulps.max())
    assert ulps.max() <= 1
