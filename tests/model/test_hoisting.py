"""Work that `captured` moves out of the step: counted by ops, and without changing results."""

from __future__ import annotations

import pytest

from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.model.schedule import sigmas
from fluxperf.engine.ops.meter import OpMeter
from tests.model.rung_runs import Case, Rung, inputs, relative_error

CASE = Case(2, 7, 2, 3)
STEPS = 3
#: Results of a product may differ with its number of rows, by float32 rounding, which can become 2^-8 in bfloat16.
SAME = 2e-3


class Calls:
    """Calls of an op by section, since the last query."""

    def __init__(self, meter):
        self._meter, self._before = meter, {}

    def since(self, op):
        totals = {key: total.count for key, total in self._meter.totals.items()}
        new: dict[str, int] = {}
        for key, count in totals.items():
            if key.op == op:
                new[key.section] = new.get(key.section, 0) + count - self._before.get(key, 0)
        return {section: count for section, count in new.items() if count}

    def forget(self):
        self._before = {key: total.count for key, total in self._meter.totals.items()}


def _metered(name, model):
    rung = Rung(name, SyntheticWeights(CONFIGS[model]), lambda device: [OpMeter(device)])
    return rung, Calls(rung.observers[0])


def _request(rung, case=CASE, seed=0, levels=None, guidance=3.5):
    given = inputs(rung.config, case, seed)
    levels = levels or sigmas(STEPS, case.image_tokens, rung.config.guidance)
    return rung.request(given, case, levels, guidance), rung.upload(inputs(rung.config, case).latents)


@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
def test_eager_computes_modulations_in_every_block_of_every_step(model):
    rung, calls = _metered("tensorcore", model)
    request, latents = _request(rung)
    forwards = rung.sampler.begin(request)
    assert calls.since("silu") == {}
    config = rung.config
    expected = {"double": 2 * config.double_blocks, "single": config.single_blocks, "final": 1}
    for step in range(STEPS):
        calls.forget()
        forwards.velocity(latents, step)
        # Two or three embedders, then each block's own.
        assert calls.since("silu") == {"embed": 2 + config.guidance, **expected}


@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
def test_stacked_computes_those_of_a_step_in_one_product(model):
    rung, calls = _metered("fused", model)
    request, latents = _request(rung)
    forwards = rung.sampler.begin(request)
    assert calls.since("silu_linear") == {}
    guided = rung.config.guidance
    for step in range(STEPS):
        calls.forget()
        forwards.velocity(latents, step)
        assert calls.since("silu_linear") == {"embed": 3 + guided}
        assert calls.since("linear")["embed"] == 4 + guided


@pytest.mark.parametrize("rung", ["captured", "fp8"])
@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
def test_captured_computes_them_once_per_image(rung, model):
    made, calls = _metered(rung, model)
    request, latents = _request(made)
    forwards = made.sampler.begin(request)
    guided = made.config.guidance
    # Two or three embedders, and one product for all modulations of all steps.
    assert calls.since("silu_linear") == {"embed": 3 + guided}
    # The first halves of the embedders, and the text tokens.
    assert calls.since("linear") == {"embed": 3 + guided}
    assert calls.since("timestep_embedding") == {"embed": 1 + guided}
    for step in range(STEPS):
        calls.forget()
        forwards.velocity(latents, step)
        assert calls.since("silu_linear") == {}
        assert calls.since("timestep_embedding") == {}
        assert calls.since("linear")["embed"] == 1, "the latents only"


@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
def test_captured_gives_what_fused_gives(model):
    results = {}
    for name in ("fused", "captured"):
        rung, _ = _metered(name, model)
        request, latents = _request(rung)
        forwards = rung.sampler.begin(request)
        steps = [rung.download(forwards.velocity(latents, step)) for step in range(STEPS)]
        results[name] = [*steps, rung.download(rung.sampler.denoise(latents, request))]
    for captured, fused in zip(results["captured"], results["fused"], strict=True):
        assert relative_error(captured, fused) <= SAME


@pytest.mark.parametrize("rung", ["fused", "captured"])
def test_what_was_computed_once_belongs_to_its_request(rung):
    made, _ = _metered(rung, "tiny-dev")

    def velocity(step=0, **changes):
        request, latents = _request(made, **changes)
        return made.download(made.sampler.begin(request).velocity(latents, step))

    first = velocity()
    assert (velocity() == first).all()
    changes = {
        "another prompt": {"seed": 1},
        "another step": {"step": 1},
        "another guidance": {"guidance": 1.0},
        "another schedule": {"levels": (0.7, 0.3, 0.0)},
    }
    for name, change in changes.items():
        assert relative_error(velocity(**change), first) > 10 * SAME, name


def test_samples_of_a_batch_keep_their_own_modulations():
    made, _ = _metered("captured", "tiny")
    given, alone = inputs(made.config, CASE), CASE._replace(batch=1)
    levels = sigmas(STEPS, CASE.image_tokens, False)

    def velocity(part, case):
        forwards = made.sampler.begin(made.request(part, case, levels, 0.0))
        return made.download(forwards.velocity(made.upload(part.latents), 1))

    both = velocity(given, CASE)
    for sample in range(CASE.batch):
        part = type(given)(*(numbers[sample : sample + 1] for numbers in given))
        assert relative_error(both[sample : sample + 1], velocity(part, alone)) <= SAME
