"""The pipeline as a program uses it: seeds, copies, the prompt cache, T5's options, invalid arguments."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fluxperf.errors import ArgumentError, CheckpointError, ConfigError, UnknownNameError
from tests.pipeline.conftest import HOW, PROMPTS, as_pictures

pytestmark = pytest.mark.peer


@pytest.fixture
def schnell(pipeline_of):
    return pipeline_of("schnell", "batched")


def _pictures(pipeline, *arguments, **options):
    return as_pictures(pipeline(*arguments, **{**HOW, **options}).images)


def test_a_seed_is_the_noise_of_its_generator(schnell):
    import torch

    by_seed = _pictures(schnell, PROMPTS[0], seed=5)
    by_generator = _pictures(schnell, PROMPTS[0], generator=torch.Generator().manual_seed(5))
    assert np.array_equal(by_seed, by_generator)
    assert np.abs(by_seed - _pictures(schnell, PROMPTS[0], seed=6)).mean() > 5


def test_a_picture_does_not_depend_on_its_batch(schnell):
    together = _pictures(schnell, PROMPTS[0], seed=5, num_images_per_prompt=3)
    for index in range(3):
        alone = _pictures(schnell, PROMPTS[0], seed=5 + index)
        assert np.abs(together[index] - alone[0]).max() <= 1
    listed = _pictures(schnell, PROMPTS[0], seed=[7, 5, 6], num_images_per_prompt=3)
    assert np.abs(listed - together[[2, 0, 1]]).max() <= 1


def test_a_prompt_makes_a_difference(schnell):
    first, second = (_pictures(schnell, prompt, seed=5) for prompt in PROMPTS)
    assert np.abs(first - second).mean() > 1


def test_without_a_seed_it_is_random_and_reported(schnell):
    first, second = (schnell(PROMPTS[0], **HOW) for _ in range(2))
    assert first.seeds != second.seeds
    assert np.array_equal(as_pictures(first.images), _pictures(schnell, PROMPTS[0], seed=first.seeds[0]))


def test_what_crosses_is_prompt_ids_up_and_pixels_down(pipeline_of, saved):
    from fluxperf import Pipeline

    for rung in ("broadcast", "captured"):
        pipeline = Pipeline.from_pretrained(saved["schnell"].folder, rung=rung, device="host")
        stages = {stage.name: stage for stage in pipeline(PROMPTS[0], seed=1, **HOW).stages}
        assert list(stages) == ["text_encode", "noise", "denoise", "vae_decode"]
        crossed = {name: stage[2:] for name, stage in stages.items() if any(stage[2:])}
        # Ids are int64: CLIP's 77 and T5's 48; pixels are 3 bytes, and one says whether the picture is finite.
        assert crossed == {"text_encode": (2, 0, 8 * (77 + 48), 0), "vae_decode": (0, 1, 0, 64 * 96 * 3 + 1)}
        assert all(stage.seconds > 0 for stage in stages.values())
        labels = [row.label for row in pipeline.parts.device.door.ledger.crossings if "weights" not in row.label]
        assert labels == ["prompt ids", "prompt ids", "pixels"]
        pipeline.close()


def test_a_known_prompt_costs_no_copy(saved):
    from fluxperf import Pipeline

    pipeline = Pipeline.from_pretrained(saved["schnell"].folder, rung="batched", device="host", cache_prompts=2)

    def ups(prompt, **options):
        return pipeline(prompt, seed=1, **{**HOW, **options}).stages[0].h2d_copies

    assert ups("a") == 2
    assert ups("a") == 0
    assert ups("a", prompt_2="b") == 2
    assert ups("a", max_sequence_length=32) == 2, "another length is another embedding"
    assert ups("a") == 2, "the two that were used last are kept"
    assert ups(["a", "c", "a"]) == 2
    pipeline.close()


@pytest.mark.parametrize("keeping", ["keep", "offload", "free"])
def test_where_t5_is_kept_changes_no_picture(saved, schnell, keeping):
    from fluxperf import Pipeline

    read = []
    pipeline = Pipeline.from_pretrained(
        saved["schnell"].folder, rung="batched", device="host", t5=keeping, cache_prompts=0, on_bytes=read.append
    )
    for prompt in PROMPTS:
        assert np.array_equal(_pictures(pipeline, prompt, seed=2), _pictures(schnell, prompt, seed=2))
    folder = saved["schnell"].folder
    weights = pipeline.parts.transformer.source.stored_bytes
    t5 = sum(read) - weights
    size = (folder / "text_encoder_2" / "model.safetensors").stat().st_size
    assert t5 // (size - 20_000) == (2 if keeping == "free" else 1), "T5 is read again for every prompt if it is freed"
    assert (pipeline.parts.encoders().t5 is None) == (keeping == "free")
    pipeline.close()


def test_t5_in_fp8_takes_half_the_memory_and_stays_close(saved, schnell, measure):
    from fluxperf import Pipeline

    pipeline = Pipeline.from_pretrained(saved["schnell"].folder, rung="batched", device="host", t5_precision="fp8")
    narrow, whole = (one.parts.encoders().stored(PROMPTS, PROMPTS, 48)[0] for one in (pipeline, schnell))
    for ours, exact in zip(narrow, whole, strict=True):
        error = np.linalg.norm(ours.text - exact.text) / np.linalg.norm(exact.text)
        measure("T5 embeddings, relative error", "fp8", error)
        assert 1e-4 < error < 0.06
        assert np.array_equal(ours.pooled, exact.pooled), "CLIP stays as it is"
    model = pipeline.parts.encoders().t5
    stored = {name: x for name, x in model.named_buffers() if name.endswith("stored")}
    projections = [x for name, x in schnell.parts.encoders().t5.named_parameters() if x.ndim == 2 and "block" in name]
    biases = [x for x in projections if x.shape[1] == 4]  # relative positions by head, an embedding
    assert len(stored) == len(projections) - len(biases) == 2 * (4 + 3)
    assert {x.dtype.itemsize for x in stored.values()} == {1}
    pipeline.close()


def test_t5_is_streamed_as_the_library_reads_it(saved, schnell, tmp_path):
    from transformers import T5EncoderModel

    from fluxperf.engine.device.host import HostDevice
    from fluxperf.pipeline.bridge import Bridge
    from fluxperf.pipeline.modules import T5, plan

    library = T5EncoderModel.from_pretrained(saved["schnell"].folder / "text_encoder_2")
    library.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    for folder in (saved["schnell"].folder / "text_encoder_2", tmp_path):
        streamed = plan(folder, T5).load(Bridge(HostDevice()), "float32", "weights").state_dict()
        assert streamed.keys() == library.state_dict().keys()
        for name, tensor in library.state_dict().items():
            assert np.array_equal(streamed[name].numpy(), tensor.numpy()), name


def test_t5_of_another_config_is_refused(saved, tmp_path):
    import json
    import shutil

    from fluxperf.pipeline.modules import T5, plan

    shutil.copytree(saved["schnell"].folder / "text_encoder_2", tmp_path / "t5")
    config = tmp_path / "t5" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_layers": 3}))
    with pytest.raises(CheckpointError, match=r"9 tensors are missing or of another shape: encoder\.block\.2"):
        plan(tmp_path / "t5", T5)


def test_a_cut_prompt_is_reported_with_what_was_cut(schnell):
    words = " ".join(f"word{number}" for number in range(2000))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        made = schnell(words, seed=1, **HOW)
    assert [str(one.message) for one in told] == made.notes
    clip, t5 = made.notes
    assert clip.startswith("CLIP takes 77 tokens, the prompt 'word0 word1")
    assert t5.startswith("T5 takes 48 tokens")
    assert f"has {len(words) + 2}" in t5, "a letter is a token here, and the end is one"
    # Text after the cut changes nothing.
    with pytest.warns(UserWarning, match="takes"):
        assert np.array_equal(_pictures(schnell, words + " and a fox", seed=1), as_pictures(made.images))


def test_guidance_for_schnell_is_said_to_have_no_effect(schnell):
    with pytest.warns(UserWarning, match="guidance_scale has no effect"):
        picture = _pictures(schnell, PROMPTS[0], seed=1, guidance_scale=3.5)
    assert np.array_equal(picture, _pictures(schnell, PROMPTS[0], seed=1))


def test_steps_are_reported_once_each_and_in_order(schnell):
    told = []
    made = schnell(PROMPTS[0], seed=1, on_step=lambda step, seconds: told.append((step, seconds)), **HOW)
    assert [step for step, _ in told] == [0, 1, 2, 3]
    assert [seconds for _, seconds in told] == made.steps_s
    assert sum(made.steps_s) <= made.stages[2].seconds


def test_default_steps_are_the_model_cards(pipeline_of):
    for model, steps in (("schnell", 4), ("dev", 28)):
        made = pipeline_of(model, "batched")(PROMPTS[0], seed=1, height=32, width=32, max_sequence_length=48)
        assert len(made.steps_s) == steps


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"prompt": None}, ConfigError, "expected either prompt, or prompt_embeds"),
        ({"prompt": ["a", "b\udcff"]}, ConfigError, "prompt 2 of 2: expected Unicode text"),
        ({"prompt": []}, ConfigError, "expected at least one text, got an empty list"),
        ({"prompt": 3}, ConfigError, "expected text or a list of texts, got int"),
        ({"prompt": ["a", 3]}, ConfigError, "expected text or a list of texts, got int"),
        ({"prompt_2": ["a", "b"]}, ConfigError, "prompt_2: expected 1 text, or 1 as in prompt, got 2"),
        ({"height": 1000}, ConfigError, "height 1000: expected a positive multiple of 16"),
        ({"width": 0}, ConfigError, "width 0: expected a positive multiple of 16"),
        ({"num_inference_steps": 0}, ConfigError, "steps 0: expected at least 1"),
        ({"max_sequence_length": 513}, ConfigError, "max_sequence_length 513: expected 1 to 512"),
        ({"num_images_per_prompt": 0}, ConfigError, "num_images_per_prompt 0: expected at least 1"),
        ({"output_type": "jpg"}, UnknownNameError, "unknown output_type 'jpg'"),
        ({"noise_from": "gpu"}, UnknownNameError, "unknown noise_from 'gpu'"),
        ({"seed": -1}, ArgumentError, "expected whole numbers from 0"),
        ({"seed": [1, 2]}, ArgumentError, r"expected one number, or one per picture \(1\), got 2"),
        ({"latents": np.zeros((1, 4, 64), np.float32)}, ArgumentError, r"expected packed latents \[1, 24, 64\]"),
        ({"latents": np.zeros((1, 24, 64)), "seed": 1}, ConfigError, "one of seed, generator and latents"),
        ({"prompt_embeds": np.zeros((1, 8, 32))}, ConfigError, r"expected prompt_embeds \[B, T, C\]"),
        (
            {"prompt": None, "prompt_embeds": np.zeros((1, 8, 48)), "pooled_prompt_embeds": np.zeros((1, 24))},
            ConfigError,
            "expected 32 and 24 features, got 48 and 24",
        ),
        ({"hight": 64}, UnknownNameError, "Did you mean 'height'"),
    ],
)
def test_arguments_that_cannot_be(schnell, arguments, error, says):
    before = len(schnell.parts.device.door.ledger.crossings)
    with pytest.raises(error, match=says):
        schnell(**{"prompt": "a fox", **HOW, **arguments})
    labels = [row.label for row in schnell.parts.device.door.ledger.crossings[before:]]
    assert "pixels" not in labels


def test_arguments_of_diffusers_that_are_none_are_let_pass(schnell):
    assert schnell("a fox", seed=1, negative_prompt=None, ip_adapter_image=None, **HOW).images


def test_a_negative_prompt_without_guidance_changes_nothing_and_says_so(schnell):
    with pytest.warns(UserWarning, match="negative prompts have no effect: true_cfg_scale is not above 1"):
        given = schnell("a fox", seed=1, negative_prompt="blurry", output_type="latent", **HOW).images
    assert (given == schnell("a fox", seed=1, output_type="latent", **HOW).images).all()


def test_parts_that_were_left_out_are_named(saved):
    from fluxperf import Pipeline

    pipeline = Pipeline.from_pretrained(
        saved["schnell"].folder, rung="batched", device="host", text_encoders=False, vae=False
    )
    with pytest.raises(ConfigError, match="expected a pipeline with text encoders, got one without"):
        pipeline("a fox", output_type="latent", **HOW)
    with pytest.raises(ConfigError, match="expected a pipeline with a VAE, got one without"):
        pipeline("a fox", **HOW)
    pipeline.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"t5": "drop"}, "unknown t5 'drop'"),
        ({"t5_precision": "int4"}, "unknown t5_precision 'int4'"),
        ({"rung": "fastest"}, "unknown rung 'fastest'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
    ],
)
def test_options_that_cannot_be_are_reported_before_weights_are_read(saved, options, says):
    from fluxperf import Pipeline

    read = []
    with pytest.raises(UnknownNameError, match=says):
        Pipeline.from_pretrained(saved["schnell"].folder, on_bytes=read.append, **{"device": "host", **options})
    assert read == []


def test_a_memory_budget_changes_no_pixel_and_is_kept(saved):
    from fluxperf import Pipeline

    how = {"rung": "captured", "device": "host"}
    whole = Pipeline.from_pretrained(saved["schnell"].folder, **how)
    expected = _pictures(whole, PROMPTS[0], seed=1)
    whole.close()
    with pytest.raises(ConfigError, match=r"memory budget of 0\.01\d* GB: expected at least (0\.\d+) GB") as caught:
        Pipeline.from_pretrained(saved["schnell"].folder, memory_gb=0.01, **how)
    least = float(str(caught.value).partition("at least ")[2].split()[0])
    pipeline = Pipeline.from_pretrained(saved["schnell"].folder, memory_gb=least, **how)
    placed = pipeline.parts.transformer
    assert len(placed.plan.streamed) == len(placed.plan.demand.units)
    for _ in range(2):
        start = len(placed.device.door.ledger.crossings)
        assert np.array_equal(_pictures(pipeline, PROMPTS[0], seed=1), expected)
        labels = [row.label for row in placed.device.door.ledger.crossings[start:]]
        assert sum(label.startswith(("stream.double", "stream.single")) for label in labels) == 4 * 6
    pipeline.close()
