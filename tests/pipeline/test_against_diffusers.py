"""fluxperf's pictures against those of diffusers' ``FluxPipeline``, with the same folder and the same noise."""

from __future__ import annotations

import numpy as np
import pytest

from tests.model.rung_runs import BFLOAT16_RUNGS, FLOAT32_RUNGS
from tests.pipeline.conftest import HOW, PROMPTS, as_pictures, psnr

pytestmark = pytest.mark.peer

#: PSNR in dB of the worst picture found here is 47; a wrong picture has about 8.
NARROW_PSNR = 42.0

MODELS = pytest.mark.parametrize("model", ["schnell", "dev"])


def _generators(*seeds):
    import torch

    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.fixture(scope="module")
def reference(saved):
    """diffusers' pictures of two prompts; cached."""
    known = {}

    def pictures(model):
        if model not in known:
            known[model] = saved[model].pictures(generator=_generators(7, 8))
        return known[model]

    return pictures


@MODELS
@pytest.mark.parametrize("rung", FLOAT32_RUNGS)
def test_a_float32_rung_gives_the_same_pictures(reference, pipeline_of, measure, model, rung):
    ours = as_pictures(pipeline_of(model, rung)(list(PROMPTS), generator=_generators(7, 8), **HOW).images)
    theirs = reference(model)
    assert ours.shape == theirs.shape == (2, 64, 96, 3)
    assert theirs.std() > 40, "pictures without contrast prove nothing"
    difference = np.abs(ours - theirs)
    measure(f"levels apart, {model}", rung, difference.max())
    assert difference.max() <= 1


@MODELS
@pytest.mark.parametrize("rung", [*BFLOAT16_RUNGS, "fp8"])
def test_a_narrow_rung_gives_nearly_the_same_pictures(reference, pipeline_of, measure, model, rung):
    noise = _float32_noise()
    ours = as_pictures(pipeline_of(model, rung)(list(PROMPTS), latents=noise, **HOW).images)
    found = psnr(ours, reference(model))
    measure(f"missing to 60 dB of PSNR, {model}", rung, 60 - found)
    assert found >= NARROW_PSNR


def _float32_noise():
    """Noise of diffusers for seeds 7 and 8 in float32."""
    import torch
    from diffusers import FluxPipeline

    spatial = torch.cat([torch.randn(1, 16, 8, 12, generator=one) for one in _generators(7, 8)])
    return FluxPipeline._pack_latents(spatial, 2, 16, 8, 12)


@MODELS
def test_diffusers_in_bfloat16_is_no_closer(saved, reference, pipeline_of, measure, model):
    import torch
    from diffusers import FluxPipeline

    narrow = FluxPipeline.from_pretrained(saved[model].folder, low_cpu_mem_usage=False)
    narrow.to(torch.bfloat16).set_progress_bar_config(disable=True)
    theirs = as_pictures(narrow(list(PROMPTS), latents=_float32_noise(), **HOW).images)
    ours = as_pictures(pipeline_of(model, "fused")(list(PROMPTS), latents=_float32_noise(), **HOW).images)
    own = psnr(theirs, reference(model))
    measure(f"missing to 60 dB of PSNR, {model}", "diffusers bfloat16", 60 - own)
    assert psnr(ours, reference(model)) >= own


@MODELS
def test_given_latents_are_where_both_begin(saved, pipeline_of, model):
    noise = _float32_noise()
    theirs = saved[model].pictures(latents=noise)
    ours = pipeline_of(model, "batched")
    for latents in (noise, noise.numpy()):
        assert np.abs(as_pictures(ours(list(PROMPTS), latents=latents, **HOW).images) - theirs).max() <= 1


@MODELS
def test_several_pictures_of_a_prompt_come_in_diffusers_order(saved, pipeline_of, model):
    arguments = {"num_images_per_prompt": 2, "generator": _generators(1)[0]}
    theirs = saved[model].pictures(**arguments)
    arguments["generator"] = _generators(1)[0]
    ours = as_pictures(pipeline_of(model, "batched")(list(PROMPTS), **HOW, **arguments).images)
    assert len(ours) == 4
    assert np.abs(ours - theirs).max() <= 1


def test_a_second_prompt_for_t5_is_t5s_alone(saved, pipeline_of):
    second = ["an empty street at night", "a lighthouse"]
    theirs = saved["dev"].pictures(prompt_2=second, generator=_generators(7, 8))
    ours = pipeline_of("dev", "batched")(list(PROMPTS), second, generator=_generators(7, 8), **HOW)
    assert np.abs(as_pictures(ours.images) - theirs).max() <= 1


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_guidance_is_diffusers(saved, pipeline_of, scale):
    theirs = saved["dev"].pictures(guidance_scale=scale, generator=_generators(7, 8))
    ours = pipeline_of("dev", "batched")(list(PROMPTS), guidance_scale=scale, generator=_generators(7, 8), **HOW)
    assert np.abs(as_pictures(ours.images) - theirs).max() <= 1


@pytest.mark.parametrize("kind", ["np", "pt", "latent"])
def test_other_outputs_are_diffusers(saved, pipeline_of, kind):
    arguments = {**HOW, "output_type": kind}
    theirs = saved["schnell"].pipeline(list(PROMPTS), generator=_generators(7, 8), **arguments).images
    ours = pipeline_of("schnell", "batched")(list(PROMPTS), generator=_generators(7, 8), **arguments).images
    assert type(ours) is type(theirs)
    assert tuple(ours.shape) == tuple(theirs.shape)
    assert float(np.abs(np.asarray(ours) - np.asarray(theirs)).max()) < 1e-3 * float(np.abs(np.asarray(theirs)).max())


def test_embeddings_in_place_of_a_prompt(saved, pipeline_of):
    text, pooled, _ = saved["dev"].pipeline.encode_prompt(list(PROMPTS), max_sequence_length=48)
    ours = pipeline_of("dev", "batched")
    expected = as_pictures(ours(list(PROMPTS), seed=7, **HOW).images)
    sizes = {key: value for key, value in HOW.items() if key != "max_sequence_length"}
    for both in ((text, pooled), (text.detach().numpy(), pooled.detach().numpy())):
        given = ours(prompt_embeds=both[0], pooled_prompt_embeds=both[1], seed=7, **sizes)
        assert np.abs(as_pictures(given.images) - expected).max() <= 1


@MODELS
def test_text_encoders_are_the_libraries_own(saved, pipeline_of, model):
    import torch

    encoders = pipeline_of(model, "batched").parts.encoders()
    with torch.no_grad():
        text, pooled, _ = saved[model].pipeline.encode_prompt(list(PROMPTS), max_sequence_length=48)
    embedded, _ = encoders.stored(PROMPTS, PROMPTS, 48)
    for one, theirs, theirs_pooled in zip(embedded, text, pooled, strict=True):
        np.testing.assert_allclose(one.text, theirs.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(one.pooled, theirs_pooled.numpy(), rtol=1e-5, atol=1e-5)
