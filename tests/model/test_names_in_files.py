"""Single files as other programs write them: the same numbers under other names, and files that are something else."""

from __future__ import annotations

import numpy as np
import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.weights import parameters
from fluxperf.errors import CheckpointError
from tests.model.weight_files import SMALL, diffusers_shapes, original_layout, random_state, write_tensors

ORIGINAL = original_layout(random_state(diffusers_shapes(SMALL), seed=9), SMALL)
OTHERS = {
    "vae.decoder.conv_in.weight": np.ones((4, 3), np.float32),
    "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": np.ones(8, np.float32),
}
NAMES = {
    "ComfyUI": lambda state: {f"model.diffusion_model.{name}": x for name, x in state.items()},
    "short prefix": lambda state: {f"diffusion_model.{name}": x for name, x in state.items()},
    "all in one": lambda state: {f"model.diffusion_model.{name}": x for name, x in state.items()} | OTHERS,
    "norms as weights": lambda state: {name.replace("_norm.scale", "_norm.weight"): x for name, x in state.items()},
    "both": lambda state: {f"model.{name.replace('_norm.scale', '_norm.weight')}": x for name, x in state.items()},
}


def _numbers(path):
    source, device = Checkpoint(path), HostDevice()
    with device.door.streaming():
        arrays = {key: source.put(device, key, shape, "float32") for key, shape in parameters(source.config).items()}
    return {key: device.door.to_host(array, "back") for key, array in arrays.items()}


def _complaint(path):
    with pytest.raises(CheckpointError) as error:
        Checkpoint(path)
    return str(error.value)


@pytest.mark.parametrize("kind", NAMES)
def test_other_names_have_the_same_numbers(tmp_path, kind):
    expected = _numbers(write_tensors(tmp_path / "plain.safetensors", ORIGINAL))
    got = _numbers(write_tensors(tmp_path / "other.safetensors", NAMES[kind](ORIGINAL)))
    assert got.keys() == expected.keys()
    for key, numbers in expected.items():
        assert got[key].tobytes() == numbers.tobytes(), key


def test_what_stands_beside_a_prefix_and_is_known_to_nobody_is_named(tmp_path):
    state = NAMES["all in one"](ORIGINAL) | {"strange.weight": np.ones(3, np.float32)}
    assert "tensor 'strange.weight' is none of its tensors" in _complaint(
        write_tensors(tmp_path / "m.safetensors", state)
    )


@pytest.mark.parametrize("plain", ["img_in.weight", "double_blocks.0.img_attn.norm.query_norm.scale"])
def test_two_tensors_of_one_name_are_refused(tmp_path, plain):
    """One with the prefix and one without, or a scale that is there as a weight too: neither is taken silently."""
    again = plain if plain.startswith("img") else f"model.diffusion_model.{plain.replace('.scale', '.weight')}"
    state = NAMES["ComfyUI"](ORIGINAL) | {again: ORIGINAL[plain]}
    assert f"which are both {plain!r}" in _complaint(write_tensors(tmp_path / "m.safetensors", state))


def test_a_tensor_that_cannot_be_read_is_told_by_its_name_in_the_file(tmp_path):
    state = NAMES["ComfyUI"](ORIGINAL)
    state["model.diffusion_model.img_in.weight"] = state["model.diffusion_model.img_in.weight"].copy()
    state["model.diffusion_model.img_in.weight"].flat[0] = np.nan
    path = write_tensors(tmp_path / "m.safetensors", state)
    with pytest.raises(CheckpointError, match=r"tensor 'model\.diffusion_model\.img_in\.weight' holds NaN"):
        _numbers(path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "a LoRA"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "a LoRA"),
        ("distilled_guidance_layer.in_proj.weight", "Chroma"),
        ("double_stream_modulation_img.lin.weight", "FLUX.2"),
        ("controlnet_blocks.0.weight", "a control net"),
        ("redux_up.weight", "FLUX.1 Redux"),
        ("joint_blocks.0.x", "Stable Diffusion 3"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5's text encoder"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "CLIP's text encoder"),
        ("decoder.conv_in.weight", "a VAE"),
        ("blocks.0.weight.absmax", "a model quantized by bitsandbytes"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, name, says):
    path = write_tensors(tmp_path / "m.safetensors", {name: np.ones((4, 4), np.float32)})
    assert says in _complaint(path)


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 238\n", "a git-lfs pointer"),
        (b"\n<!doctype html><html>", "a web page, probably a refused download"),
        (b"PK\x03\x04", "a PyTorch or other zip file"),
        (b"", "an empty file"),
    ],
)
def test_another_format_is_named(tmp_path, start, says):
    (tmp_path / "m.safetensors").write_bytes(start + (bytes(4096) if len(start) > 3 else b""))
    assert f"got {says}" in _complaint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("channels", "says"), [(384, "FLUX.1 Fill"), (128, "FLUX.1 Depth or Canny")])
def test_a_transformer_that_takes_a_picture_is_named(tmp_path, channels, says):
    dim = ORIGINAL["img_in.weight"].shape[0]
    state = ORIGINAL | {"img_in.weight": np.ones((dim, channels), np.float32)}
    assert f"got {channels} and {SMALL.channels}: {says}" in _complaint(
        write_tensors(tmp_path / "m.safetensors", state)
    )
