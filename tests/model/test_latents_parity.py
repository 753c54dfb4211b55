"""Whole denoisings against diffusers' pipeline loop: its scheduler, its model, the settings of the model cards."""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine.model.schedule import sigmas
from tests.model.error_bounds import BFLOAT16_RATIO, LATENTS_FLOAT32_BOUND, LATENTS_FP8_BOUND
from tests.model.rung_runs import BFLOAT16_RUNGS, FLOAT32_RUNGS, Case, inputs, relative_error

pytestmark = pytest.mark.peer

CASES = (Case(1, 77, 4, 4), Case(2, 77, 4, 6))
#: Steps and guidance: those of the model cards, and short runs whose 1000 t and 1000 g are exact in bfloat16 (1000,
#: 500, 4000), where diffusers in bfloat16 does not lose most of its accuracy to the timestep.
PUBLISHED = {"schnell": (4, 0.0), "dev": (28, 3.5)}
EXACT = {"schnell": (2, 0.0), "dev": (1, 4.0)}
#: diffusers shifts in float32: 1/s, - 1, + e^mu, e^mu / .., each rounded; fluxperf rounds once.
LEVEL_ULPS = {"schnell": 0, "dev": 2}

loops = pytest.mark.parametrize(
    ("model", "case"), [(model, case) for model in ("schnell", "dev") for case in CASES], ids=str
)


def _errors(peers, rung_of, rung, model, case, how):
    """Error of the rung and of diffusers in bfloat16, both against diffusers in float32."""
    bound, peer = rung_of(rung, model, "folder"), peers[model]
    reference = peer.denoised("float32", case, *how)
    own = relative_error(peer.denoised("bfloat16", case, *how), reference)
    return relative_error(bound.denoised(inputs(bound.config, case), case, *how), reference), own


@loops
@pytest.mark.parametrize("rung", FLOAT32_RUNGS)
def test_a_float32_rung_ends_where_diffusers_does(peers, rung_of, measure, rung, model, case):
    error, _ = _errors(peers, rung_of, rung, model, case, PUBLISHED[model])
    measure(f"latents float32 error, {model}", rung, error)
    assert error <= LATENTS_FLOAT32_BOUND


@loops
@pytest.mark.parametrize("rung", BFLOAT16_RUNGS)
def test_a_bfloat16_rung_ends_as_close_as_diffusers_in_bfloat16(peers, rung_of, measure, rung, model, case):
    for name, how in (("model card", PUBLISHED[model]), ("1000 t exact", EXACT[model])):
        error, own = _errors(peers, rung_of, rung, model, case, how)
        measure(f"latents bfloat16 ratio, {model}, {name}", rung, error / own)
        measure(f"latents bfloat16 error, {model}, {name}", rung, error)
        measure(f"latents bfloat16 error, {model}, {name}", "diffusers", own)
        assert error <= BFLOAT16_RATIO * own, name


@loops
def test_fp8_ends_within_its_rounding(peers, rung_of, measure, model, case):
    error, _ = _errors(peers, rung_of, "fp8", model, case, PUBLISHED[model])
    measure(f"latents fp8 error, {model}", "fp8", error)
    assert error <= LATENTS_FP8_BOUND


@pytest.mark.parametrize("model", ["schnell", "dev"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8, 20, 28, 50])
@pytest.mark.parametrize("image_tokens", [16, 256, 1024, 4096, 8160])
def test_noise_levels_are_those_of_the_scheduler(peers, measure, model, steps, image_tokens):
    from tests.model.diffusers_peer import scheduler

    ours = np.array(sigmas(steps, image_tokens, model == "dev"), np.float32)
    theirs = scheduler(steps, image_tokens, model == "dev").sigmas.numpy()
    assert ours.shape == theirs.shape
    assert (ours[0], ours[-1]) == (1, 0)
    ulps = np.abs(ours.astype(np.float64) - theirs) / np.spacing(theirs)
    measure("noise levels, ulp", model, ulps.max())
    assert ulps.max() <= LEVEL_ULPS[model]


@pytest.mark.parametrize(("steps", "image_tokens"), [(4, 16), (28, 256), (28, 4096), (50, 1024)])
def test_noise_levels_are_the_formula_rounded_once(steps, image_tokens):
    plain = np.linspace(1, 1 / steps, steps)
    lift = np.exp(0.5 + (1.15 - 0.5) * (image_tokens - 256) / (4096 - 256))
    for shifted, exact in ((False, plain), (True, lift / (lift + 1 / plain - 1))):
        levels = np.array(sigmas(steps, image_tokens, shifted))
        assert levels[-1] == 0
        assert (np.abs(levels[:-1] - exact) <= 0.501 * np.spacing(exact.astype(np.float32))).all()
