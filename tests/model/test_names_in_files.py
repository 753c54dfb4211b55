"""Single files as other programs write them: the same values under other names; and files with other content."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.weights import parameters
from fluxperf.errors import CheckpointError
from tests.model.weight_files import SMALL, diffusers_shapes, original_layout, random_state, write_tensors

DIFFUSERS = random_state(diffusers_shapes(SMALL), seed=9)
ORIGINAL = original_layout(DIFFUSERS, SMALL)
OTHERS = {
    "vae.decoder.conv_in.weight": np.ones((4, 3), np.float32),
    "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight": np.ones(8, np.float32),
    # These files have no transformer next to the unsupported format.
    "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.qweight": np.ones(8, np.float32),
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
    assert "tensor 'strange.weight' does not belong to this model" in _complaint(
        write_tensors(tmp_path / "m.safetensors", state)
    )


@pytest.mark.parametrize("plain", ["img_in.weight", "double_blocks.0.img_attn.norm.query_norm.scale"])
def test_two_tensors_of_one_name_are_refused(tmp_path, plain):
    """One with the prefix and one without, or a scale that is also a weight: neither is chosen silently."""
    again = plain if plain.startswith("img") else f"model.diffusion_model.{plain.replace('.scale', '.weight')}"
    state = NAMES["ComfyUI"](ORIGINAL) | {again: ORIGINAL[plain]}
    assert f"which both stand for {plain!r}" in _complaint(write_tensors(tmp_path / "m.safetensors", state))


def test_a_tensor_that_cannot_be_read_is_reported_by_its_name_in_the_file(tmp_path):
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
        ("lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a", "a LoRA"),
        ("lycoris_double_blocks_0_img_attn_qkv.lokr_w1", "a LoRA"),
        ("base_model.model.transformer_blocks.0.attn.to_q.lora_A.default.weight", "a LoRA"),
        ("transformer.transformer_blocks.0.attn.to_q.lora.down.weight", "a LoRA"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", "a LoRA"),
        ("double_blocks.0.img_attn.qkv.lora_A.weight", "a LoRA"),
        ("double_blocks.0.processor.qkv_lora1.down.weight", "a LoRA"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.diff_b", "a LoRA"),
        ("diffusion_model.double_blocks.0.img_attn.qkv.alpha", "a LoRA"),
        ("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight", "an IP-Adapter"),
        ("image_proj.proj.0.weight", "an IP-Adapter"),
        ("pulid_ca.0.to_q.weight", "PuLID"),
        ("input_hint_block.0.weight", "a ControlNet"),
        ("double_stream_modulation_img.linear.weight", "FLUX.2"),
        ("txt_in.individual_token_refiner.blocks.0.norm1.weight", "HunyuanVideo"),
        ("context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight", "HunyuanVideo"),
        ("transformer_blocks.0.img_mod.1.weight", "Qwen-Image"),
        ("transformer_blocks.0.pos_embed.pos_embed", "Stable Diffusion 3"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a U-Net"),
        ("down_blocks.1.attentions.0.proj_in.weight", "a U-Net"),
        ("blocks.0.cross_attn.k.weight", "Wan"),
        ("adaln_single.linear.weight", "PixArt, Sana or LTX-Video"),
        ("cap_embedder.0.weight", "Lumina or Z-Image"),
        ("double_layers.0.attn.w1q.weight", "AuraFlow"),
        ("double_stream_blocks.0.block.attn1.to_q.weight", "HiDream"),
        ("transformer_blocks.0.attn.to_q._weight_qdata", "a model quantized by torchao"),
        ("double_blocks.0.img_attn.qkv.weight_scale_inv", "a model quantized by a tool with block-wise scales"),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "a LoRA"),
        ("distilled_guidance_layer.in_proj.weight", "Chroma"),
        ("double_stream_modulation_img.lin.weight", "FLUX.2"),
        ("controlnet_blocks.0.weight", "a ControlNet"),
        ("redux_up.weight", "FLUX.1 Redux"),
        ("joint_blocks.0.x", "Stable Diffusion 3"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5's text encoder"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "CLIP's text encoder"),
        ("decoder.conv_in.weight", "a VAE"),
        ("blocks.0.weight.absmax", "a model quantized by bitsandbytes"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, name, says):
    """In a file of its own, and together with tensors of a transformer, as such files often are."""
    alone = write_tensors(tmp_path / "alone.safetensors", {name: np.ones((4, 4), np.float32)})
    assert says in _complaint(alone)
    if not any(word in says for word in ("T5", "CLIP", "VAE")):
        beside = write_tensors(tmp_path / "beside.safetensors", ORIGINAL | {name: np.ones((4, 4), np.float32)})
        assert f"expected the transformer of FLUX.1, got {says}" in _complaint(beside)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("vae.decoder.conv_in.weight", "t5xxl.encoder.block.0.x"), "T5's text encoder and a VAE, without"),
        (("embeddings.token_embedding.weight",), "CLIP's text encoder: give the file of the transformer"),
        (("vision_model.embeddings.x",), "CLIP's image encoder"),
        (("model.layers.0.self_attn.q_proj.weight",), "a language model"),
        (("latents",), "latents, as written by --latents-out"),
        (("prompt_embeds.0",), "embeddings, as written by --embeddings-out"),
        (("x",), "Is it the transformer of FLUX.1, and not another part or another model?"),
    ],
)  # fmt: skip
def test_parts_without_a_transformer_are_named(tmp_path, names, says):
    path = write_tensors(tmp_path / "m.safetensors", {name: np.ones(4, np.float32) for name in names})
    assert says in _complaint(path)


@pytest.mark.parametrize("own", ["bfloat16", "float32", "int8"])
def test_numbers_of_4_bits_are_named_without_their_librarys_names(tmp_path, own):
    """bitsandbytes stores them in one column of any element type; all projections, or only those of blocks."""
    kind = ml_dtypes.bfloat16 if own == "bfloat16" else np.dtype(own)
    width = np.dtype(kind).itemsize
    for some in ("blocks.", ""):
        state = {
            name: np.zeros((x.size // 2 // width, 1), kind) if x.ndim == 2 and some in name else x
            for name, x in ORIGINAL.items()
        }
        path = tmp_path / f"{some}m.safetensors"
        save_file(state, path)
        assert "4-bit values, two to a byte, as bitsandbytes' nf4" in _complaint(path)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
@pytest.mark.parametrize("prefix", ["", "module.", "base_model.model.", "some.program."])
def test_a_file_of_either_layout_needs_no_config_and_may_have_any_prefix(tmp_path, layout, prefix):
    state = ORIGINAL if layout == "original" else DIFFUSERS
    expected = _numbers(write_tensors(tmp_path / "plain.safetensors", ORIGINAL))
    got = _numbers(write_tensors(tmp_path / "m.safetensors", {prefix + name: x for name, x in state.items()}))
    assert got.keys() == expected.keys()
    assert all(np.array_equal(got[key], expected[key]) for key in expected)


def test_two_transformers_in_one_file_are_refused(tmp_path):
    state = {f"{prefix}{name}": x for prefix in ("base.", "tuned.") for name, x in ORIGINAL.items()}
    says = "tensors with the prefixes 'base.' and 'tuned.'"
    assert says in _complaint(write_tensors(tmp_path / "m.safetensors", state))


def test_an_incomplete_file_is_named_as_one(tmp_path):
    half = {name: DIFFUSERS[name] for name in sorted(DIFFUSERS) if "transformer_blocks" in name}
    message = _complaint(write_tensors(tmp_path / "m.safetensors", half))
    assert "expected a complete FLUX.1 transformer, but tensor 'x_embedder.weight' is missing" in message


@pytest.mark.parametrize(
    ("start", "says"),
    [
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 238\n", "a git-lfs pointer"),
        (b"\n<!doctype html><html>", "a web page, probably a refused download"),
        (b"PK\x03\x04", "a zip file, probably a PyTorch pickle"),
        *(
            (bytes([0x80, protocol]) + b"\x95", "a PyTorch pickle, which may run any program")
            for protocol in range(2, 6)
        ),
        (b"\xef\xbb\xbf<html>", "a web page"),
        (b"<?xml version='1.0'?><Error>", "a server's answer"),
        (b"# xet version 0\n", "a Xet storage pointer"),
        (b'{"error":"Invalid username or password."}\n', "text instead of weights, probably a refused download: '{"),
        (b"Access to model X is restricted.\n", "text instead of weights, probably a refused download: 'Access"),
        (bytes(100), "a file that begins with zeros: a download that reserved its space"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (bytes(1) + b"x" * 256 + b"ustar", "a tar archive"),
        (b"", "an empty file"),
    ],
)
def test_another_format_is_named(tmp_path, start, says):
    (tmp_path / "m.safetensors").write_bytes(start + (bytes(4096) if len(start) > 3 else b""))
    message = _complaint(tmp_path / "m.safetensors")
    assert f"got {says}" in message
    assert "  " not in message


@pytest.mark.parametrize(("channels", "says"), [(384, "FLUX.1 Fill"), (128, "FLUX.1 Depth or Canny")])
def test_a_transformer_that_takes_a_picture_is_named(tmp_path, channels, says):
    dim = ORIGINAL["img_in.weight"].shape[0]
    state = ORIGINAL | {"img_in.weight": np.ones((dim, channels), np.float32)}
    assert f"got {channels} inputs and {SMALL.channels} outputs: {says}" in _complaint(
        write_tensors(tmp_path / "m.safetensors", state)
    )
