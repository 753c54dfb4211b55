"""Arguments of diffusers' calls: noise levels, negative prompts, callbacks; compared with diffusers' results."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest

from fluxperf.errors import ConfigError, DeviceError, FluxperfError, UnknownNameError

HOW = {"height": 32, "width": 48, "max_sequence_length": 24, "output_type": "latent"}
SHORT = HOW | {"num_inference_steps": 3}


def _latents(pipeline, **arguments):
    import torch

    given = {"prompt": "a red fox", "generator": torch.Generator().manual_seed(7), **arguments}
    return np.asarray(pipeline(**given).images.float())


def _apart(got, expected):
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


class _Changing:
    """A callback that changes latents, and records its arguments."""

    def __init__(self, **changes):
        self.seen, self.changes = [], changes

    def __call__(self, pipe, step, timestep, tensors):
        self.seen.append((step, round(float(timestep)), {name: tuple(x.shape) for name, x in tensors.items()}))
        if self.changes.get("stop_at") == step:
            pipe._interrupt = True
        return {name: self.changes.get(name, 1.0) * x for name, x in tensors.items()}


CALLS = {
    "sigmas": {"sigmas": [1.0, 0.6, 0.3]},
    "sigmas of NumPy": {"sigmas": np.array([0.9, 0.2])},
    "a negative prompt": {"negative_prompt": "blurry", "true_cfg_scale": 2.5, "num_inference_steps": 3},
    "two negative prompts": {
        "negative_prompt": "blurry", "negative_prompt_2": "a cat", "true_cfg_scale": 4.0, "num_inference_steps": 2,
    },
    "several prompts": {
        "prompt": ["a", "b c"], "negative_prompt": ["d", "e"], "true_cfg_scale": 1.5, "num_inference_steps": 2,
        "num_images_per_prompt": 2,
    },
    "no tokens' number": {"max_sequence_length": None, "num_inference_steps": 1},
    "a scale of adapters that are not there": {"joint_attention_kwargs": {"scale": 1.0}, "num_inference_steps": 1},
    "an empty negative prompt": {"negative_prompt": "", "true_cfg_scale": 3.0, "num_inference_steps": 2},
}  # fmt: skip


@pytest.mark.parametrize("model", ["schnell", "dev"])
@pytest.mark.parametrize("call", CALLS)
def test_results_are_those_of_diffusers(saved, pipeline_of, model, call):
    arguments = HOW | CALLS[call]
    expected = _latents(saved[model].pipeline, **arguments)
    assert _apart(_latents(pipeline_of(model, "batched"), **arguments), expected) < 2e-5


@pytest.mark.parametrize("names", [["latents"], ["latents", "prompt_embeds"], None])
def test_a_callback_sees_and_changes_what_it_does_in_diffusers(saved, pipeline_of, names):
    results, seen = [], []
    for pipeline in (saved["dev"].pipeline, pipeline_of("dev", "batched")):
        callback = _Changing(latents=0.9, prompt_embeds=1.1)
        asked = {} if names is None else {"callback_on_step_end_tensor_inputs": names}
        results.append(_latents(pipeline, callback_on_step_end=callback, **SHORT, **asked))
        seen.append(callback.seen)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3
    assert _apart(results[1], results[0]) < 2e-5


def test_a_callback_that_changes_nothing_changes_nothing(pipeline_of):
    for rung in ("batched", "captured", "fp8"):
        pipeline = pipeline_of("dev", rung)
        plain = _latents(pipeline, **SHORT)
        assert np.array_equal(_latents(pipeline, callback_on_step_end=lambda *_: {}, **SHORT), plain), rung
        assert np.array_equal(_latents(pipeline, callback_on_step_end=lambda *_: None, **SHORT), plain), rung


def test_a_callback_ends_a_generation_as_in_diffusers(saved, pipeline_of):
    results = [
        _latents(pipeline, callback_on_step_end=_Changing(stop_at=1), **SHORT)
        for pipeline in (saved["schnell"].pipeline, pipeline_of("schnell", "batched"))
    ]
    assert _apart(results[1], results[0]) < 2e-5
    again = _latents(pipeline_of("schnell", "batched"), **SHORT)
    assert _apart(again, results[1]) > 1e-3, "the next call takes all of its steps"


def test_metadata_tells_what_made_the_picture(pipeline_of):
    pipeline = pipeline_of("dev", "batched")
    seen = []
    inner = pipeline.generation.batch
    pipeline.generation.batch = lambda *a, **k: seen.append(inner(*a, **k)) or seen[-1]
    try:
        pipeline("a", seed=3, negative_prompt="b", true_cfg_scale=2.0, sigmas=[1.0, 0.5], **HOW)
    finally:
        del pipeline.generation.batch
    told = seen[0].metadata[0]
    assert (told["negative_prompt"], told["true_cfg_scale"], told["sigmas"]) == ("b", "2", "1.0, 0.5")
    assert told["steps"] == "2"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"sigmas": []}, ConfigError, "expected noise levels above 0"),
        ({"sigmas": [1.0, float("nan")]}, ConfigError, "expected noise levels"),
        ({"sigmas": "1.0"}, ConfigError, "expected noise levels"),
        ({"sigmas": [1.0, 0.0]}, ConfigError, "it is added"),
        ({"sigmas": [1.0, 0.5], "num_inference_steps": 3}, ConfigError, "expected 3 levels"),
        ({"true_cfg_scale": float("inf")}, ConfigError, "expected a finite number"),
        ({"true_cfg_scale": "2"}, ConfigError, "expected a finite number"),
        ({"negative_prompt": ["a", "b"], "true_cfg_scale": 2.0}, ConfigError, "expected 1 text, or 1 as in prompt"),
        ({"negative_prompt_2": "a", "true_cfg_scale": 2.0}, ConfigError, "expected a negative_prompt"),
        ({"callback_on_step_end": print, "callback_on_step_end_tensor_inputs": ["image"]}, UnknownNameError, "latents"),
        ({"callback_on_step_end": lambda *_: 5}, ConfigError, "expected a dict of tensors"),
        (
            {"callback_on_step_end": lambda *_: {"latents": np.ones((1, 2, 3))}},
            FluxperfError,
            "expected packed latents",
        ),
    ],
)
def test_what_cannot_be_is_refused(pipeline_of, arguments, error, says):
    with pytest.raises(error, match=says):
        pipeline_of("dev", "batched")("a", seed=1, **HOW, **arguments)


def test_what_has_no_effect_is_reported(pipeline_of):
    pipeline = pipeline_of("dev", "batched")
    plain = _latents(pipeline, **SHORT)
    for arguments in ({"true_cfg_scale": 2.0}, {"negative_prompt": "b"}):
        with pytest.warns(UserWarning, match="no effect"):
            assert np.array_equal(_latents(pipeline, **SHORT, **arguments), plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _latents(pipeline, true_cfg_scale=None, negative_prompt=None, sigmas=None, callback_on_step_end=None, **SHORT)


def test_a_static_shift_is_that_of_diffusers(saved, tmp_path):
    import diffusers

    from fluxperf import Pipeline

    shutil.copytree(saved["schnell"].folder, tmp_path / "m")
    path = tmp_path / "m/scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shift": 3.0}))
    peer = saved["schnell"].pipeline
    plain, peer.scheduler = peer.scheduler, diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(path.parent)
    try:
        expected = _latents(peer, **SHORT), _latents(peer, sigmas=[0.9, 0.5], **HOW)
    finally:
        peer.scheduler = plain
    ours = Pipeline.from_pretrained(tmp_path / "m", rung="batched", device="host")
    got = _latents(ours, **SHORT), _latents(ours, sigmas=[0.9, 0.5], **HOW)
    ours.close()
    assert max(map(_apart, got, expected)) < 2e-5


@pytest.mark.parametrize("kind", ["text", "torch.device"])
@pytest.mark.parametrize("number", [1, 12])
def test_another_gpu_is_refused_with_the_way_to_it(saved, kind, number):
    import torch

    from fluxperf import Pipeline

    device = torch.device("cuda", number) if kind == "torch.device" else f"cuda:{number}"
    with pytest.raises(DeviceError, match=f"CUDA_VISIBLE_DEVICES={number} to"):
        Pipeline.from_pretrained(saved["schnell"].folder, device=device)


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_the_first_gpu_has_two_names(saved, monkeypatch, name):
    """As text or as a PyTorch device; a stand-in opens it, so that no GPU is needed."""
    import torch

    from fluxperf import Pipeline
    from fluxperf.engine.device import cuda

    def opened():
        raise DeviceError("the first GPU was asked for.")

    monkeypatch.setattr(cuda, "CudaDevice", opened)
    for device in (name, torch.device(name)):
        with pytest.raises(DeviceError, match="the first GPU was asked for"):
            Pipeline.from_pretrained(saved["schnell"].folder, rung="batched", device=device)


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cuda:0:0", "cpu"])
def test_an_unknown_device_is_refused(saved, name):
    from fluxperf import Pipeline

    with pytest.raises(UnknownNameError, match=f"device.*{name}"):
        Pipeline.from_pretrained(saved["schnell"].folder, device=name)


def _embedded(pipeline, text, tokens):
    import torch

    with torch.inference_mode():
        both = pipeline.encode_prompt(text, max_sequence_length=tokens)[:2]
    return [x.clone() for x in both]


@pytest.mark.parametrize("model", ["schnell", "dev"])
@pytest.mark.parametrize("given", ["beside a prompt", "beside embeddings", "of another length", "as NumPy arrays"])
def test_negative_embeddings_are_those_of_diffusers(saved, pipeline_of, model, given):
    peer, ours = saved[model].pipeline, pipeline_of(model, "batched")
    text, pooled = _embedded(peer, ["blurry"], 16 if given == "of another length" else 24)
    call = {"negative_prompt_embeds": text, "negative_pooled_prompt_embeds": pooled, "true_cfg_scale": 2.5} | SHORT
    if given == "beside embeddings":
        positive = _embedded(peer, ["a red fox"], 24)
        call |= {"prompt": None, "prompt_embeds": positive[0], "pooled_prompt_embeds": positive[1]}
    expected = _latents(peer, **call)
    if given == "as NumPy arrays":
        call = {name: x.numpy() if "embeds" in name else x for name, x in call.items()}
    assert _apart(_latents(ours, **call), expected) < 2e-5
    without = {name: x for name, x in call.items() if "negative" not in name and "cfg" not in name}
    assert _apart(_latents(ours, **without), expected) > 1e-3, "they have an effect"


def test_negative_embeddings_are_those_of_the_negative_prompt(saved, pipeline_of):
    pipeline = pipeline_of("dev", "batched")
    text, pooled = _embedded(saved["dev"].pipeline, ["d", "e"], 24)
    call = {"prompt": ["a", "b c"], "true_cfg_scale": 1.5, "num_images_per_prompt": 2} | SHORT
    given = _latents(pipeline, negative_prompt_embeds=text, negative_pooled_prompt_embeds=pooled, **call)
    assert _apart(given, _latents(pipeline, negative_prompt=["d", "e"], **call)) < 1e-5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"negative_prompt": "b"}, "expected either negative_prompt or negative_prompt_embeds, got both"),
        ({"negative_pooled_prompt_embeds": None}, r"negative_pooled_prompt_embeds \[B, P\]"),
        ({"negative_prompt_embeds": None}, r"expected negative_prompt_embeds \[B, T, C\]"),
        ({"negative_prompt_embeds": np.zeros((1, 8, 5), np.float32)}, "^negative_prompt_embeds .*got 5 and 24"),
        ({"negative_prompt_embeds": np.full((1, 8, 32), np.nan, np.float32)}, "negative_prompt_embeds.*finite"),
        (
            {"negative_pooled_prompt_embeds": np.full((1, 24), np.inf, np.float32)},
            "negative_pooled_prompt_embeds.*finite",
        ),
        ({"negative_prompt_embeds": np.zeros((0, 8, 32), np.float32)}, r"\[0, 8, 32\]"),
        ({"prompt": ["a", "b"]}, "negative_prompt_embeds: expected 2, one per prompt, got 1"),
        ({"negative_prompt_embeds": "words"}, r"expected negative_prompt_embeds \[B, T, C\]"),
    ],
)
def test_negative_embeddings_that_cannot_be_are_refused(pipeline_of, changes, says):
    call = {"prompt": "a", "negative_prompt_embeds": np.zeros((1, 8, 32), np.float32)}
    call |= {"negative_pooled_prompt_embeds": np.zeros((1, 24), np.float32), "true_cfg_scale": 2.0, **changes}
    with pytest.raises(FluxperfError, match=says):
        pipeline_of("dev", "batched")(seed=1, **HOW, **call)


def test_negative_embeddings_without_a_scale_have_no_effect_and_say_so(saved, pipeline_of):
    pipeline = pipeline_of("dev", "batched")
    text, pooled = _embedded(saved["dev"].pipeline, ["blurry"], 24)
    with pytest.warns(UserWarning, match="negative prompts have no effect"):
        given = _latents(pipeline, negative_prompt_embeds=text, negative_pooled_prompt_embeds=pooled, **SHORT)
    assert np.array_equal(given, _latents(pipeline, **SHORT))


def test_latents_leave_nothing_to_a_generator_as_in_diffusers(saved, pipeline_of):
    import torch

    start = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(3))
    expected = _latents(saved["dev"].pipeline, latents=start, **SHORT)
    generator = torch.Generator().manual_seed(7)
    with pytest.warns(UserWarning, match="generator has no effect, because latents are given"):
        got = _latents(pipeline_of("dev", "batched"), latents=start, generator=generator, **SHORT)
    assert _apart(got, expected) < 2e-5
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(7).get_state()), "nothing was drawn"


@pytest.mark.parametrize(
    "arguments",
    [{"output_type": None}, {"output_type": 3}, {"noise_from": None}, {"callback_on_step_end_tensor_inputs": [None]}],
    ids=str,
)
def test_what_is_no_name_is_refused_as_one(pipeline_of, arguments):
    call = HOW | {"callback_on_step_end": print} | arguments
    with pytest.raises(UnknownNameError, match=r"None|3"):
        pipeline_of("dev", "batched")("a", seed=1, **call)


@pytest.mark.parametrize(
    "arguments", [{"t5": None}, {"t5_precision": 8}, {"dtype": 16}, {"rung": 5}, {"device": 0}], ids=str
)
def test_what_is_no_name_is_refused_at_loading(saved, arguments):
    from fluxperf import Pipeline

    with pytest.raises(UnknownNameError):
        Pipeline.from_pretrained(saved["schnell"].folder, **{"rung": "batched", "device": "host"} | arguments)
