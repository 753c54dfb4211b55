"""A `config.json` or an index that is missing, damaged or of another model."""

from __future__ import annotations

import json

import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.errors import CheckpointError, FluxperfError
from tests.model.rung_runs import Rung
from tests.model.weight_files import SMALL, STEM, diffusers_shapes, random_state, write_folder, write_shards

STATE = random_state(diffusers_shapes(SMALL), seed=4)
#: Nested deeper than the parser goes.
DEEP = "[" * 200_000
NOT_OBJECTS = ["", "{", "not JSON", "[]", "3", "null", DEEP, b"\xff\xfe\x00"]


def _complaint(path, kind=CheckpointError):
    with pytest.raises(kind) as caught:
        Rung("tensorcore", Checkpoint(path))
    return str(caught.value)


def _write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def _short(value):
    return repr(value)[:20]


def test_a_folder_without_config_says_so(tmp_path):
    folder = write_folder(tmp_path, STATE)
    (folder / "config.json").unlink()
    message = _complaint(folder)
    assert "config.json" in message
    assert "expected a JSON object" in message


@pytest.mark.parametrize("content", NOT_OBJECTS, ids=_short)
def test_a_config_that_is_no_object_is_refused(tmp_path, content):
    folder = write_folder(tmp_path, STATE)
    _write(folder / "config.json", content)
    message = _complaint(folder)
    assert "config.json: expected a JSON object" in message


@pytest.mark.parametrize("content", NOT_OBJECTS, ids=_short)
def test_an_index_that_is_no_object_is_refused(tmp_path, content):
    folder = write_shards(tmp_path, STATE, 3)
    _write(folder / f"{STEM}.index.json", content)
    assert f"{STEM}.index.json: expected a JSON object" in _complaint(folder)


@pytest.mark.parametrize(
    "content", [{}, {"metadata": {}}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": "x"}], ids=_short
)
def test_an_index_without_a_weight_map_is_refused(tmp_path, content):
    folder = write_shards(tmp_path, STATE, 3)
    (folder / f"{STEM}.index.json").write_text(json.dumps(content))
    assert "expected a 'weight_map'" in _complaint(folder)


@pytest.mark.parametrize("file", [None, 7, [], "", "..", "no\0file", "x" * 5000], ids=_short)
def test_an_index_may_name_no_file(tmp_path, file):
    folder = write_shards(tmp_path, STATE, 3)
    index = folder / f"{STEM}.index.json"
    contents = json.loads(index.read_text())
    contents["weight_map"]["proj_out.weight"] = file
    index.write_text(json.dumps(contents))
    message = _complaint(folder)
    assert "expected 4 shards in the same folder, 1 missing" in message


@pytest.mark.parametrize(
    "file", [".", "../elsewhere.safetensors", "/elsewhere.safetensors", "below/elsewhere.safetensors"]
)
def test_an_index_names_files_beside_it_alone(tmp_path, file):
    folder = write_shards(tmp_path, STATE, 3)
    index = folder / f"{STEM}.index.json"
    contents = json.loads(index.read_text())
    contents["weight_map"]["proj_out.weight"] = file
    index.write_text(json.dumps(contents))
    assert f"expected names of files in the same folder, got '{file}'" in _complaint(folder)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("Flux2Transformer2DModel", "FLUX.2"),
        ("FluxControlNetModel", "FLUX.1 with a ControlNet"),
        ("ChromaTransformer2DModel", "Chroma"),
        ("SD3Transformer2DModel", "Stable Diffusion 3"),
        ("NunchakuFluxTransformer2dModel", "a model quantized by nunchaku"),
        ("AutoencoderKL", "a VAE"),
        (7, "another model"),
    ],
)
def test_another_class_is_named(tmp_path, kind, told):
    message = _complaint(write_folder(tmp_path, STATE, _class_name=kind))
    assert f"expected FluxTransformer2DModel (FLUX.1), got {kind}: {told}" in message


def test_a_config_that_says_quantized_is_refused(tmp_path):
    message = _complaint(write_folder(tmp_path, STATE, quantization_config={"quant_method": "bitsandbytes"}))
    assert "got weights quantized by bitsandbytes: give them in bfloat16" in message


def test_channels_of_a_picture_are_named(tmp_path):
    message = _complaint(write_folder(tmp_path, STATE, in_channels=384, out_channels=64))
    assert "got 384 and 64: FLUX.1 Fill, which takes an image" in message


@pytest.mark.parametrize("value", [[384], {}, "384"], ids=_short)
def test_channels_that_are_not_a_number_are_refused(tmp_path, value):
    message = _complaint(write_folder(tmp_path, STATE, in_channels=value, out_channels=64))
    assert f"out_channels: expected {value}, as in every FLUX.1 model, got 64" in message


def test_a_byte_order_mark_is_no_damage(tmp_path):
    folder = write_folder(tmp_path, STATE)
    config = folder / "config.json"
    config.write_bytes(b"\xef\xbb\xbf" + config.read_bytes())
    Checkpoint(folder)


@pytest.mark.parametrize("key", ["num_layers", "attention_head_dim", "guidance_embeds"])
def test_a_missing_key_is_named(tmp_path, key):
    message = _complaint(write_folder(tmp_path, STATE, **{key: None}))
    assert f"missing: {key}" in message


def test_all_missing_keys_are_named_together(tmp_path):
    message = _complaint(write_folder(tmp_path, STATE, num_layers=None, in_channels=None))
    assert "missing: num_layers, in_channels" in message


@pytest.mark.parametrize("value", ["two", -1, 0, 2.5, [2], {}, True], ids=_short)
@pytest.mark.parametrize(
    "key", ["num_layers", "num_single_layers", "num_attention_heads", "in_channels", "pooled_projection_dim"]
)
def test_a_size_that_is_not_a_count_is_refused(tmp_path, key, value):
    message = _complaint(write_folder(tmp_path, STATE, **{key: value}))
    assert f"config.json: {key}: expected a whole number of at least 1, got {value!r}" in message


@pytest.mark.parametrize("key", ["num_layers", "num_single_layers"])
def test_blocks_without_end_are_refused_before_they_are_counted(tmp_path, key):
    message = _complaint(write_folder(tmp_path, STATE, **{key: 10**8}))
    assert (
        f"{key}: expected at most as many blocks as the weights have tensors ({len(STATE)}), got 100000000" in message
    )


@pytest.mark.parametrize("value", ["yes", 1, []], ids=_short)
def test_guidance_is_true_or_false(tmp_path, value):
    message = _complaint(write_folder(tmp_path, STATE, guidance_embeds=value))
    assert f"guidance_embeds: expected true or false, got {value!r}" in message


ODD_AXES = [
    [4, 6, 8],
    [5, 5, 6],
    [8, 8],
    [4, 4, 4, 4],
    [16],
    [],
    16,
    "4,6,6",
    [4, "6", 6],
    [4, 6.0, 6],
    [-4, 10, 10],
]


@pytest.mark.parametrize("axes", ODD_AXES, ids=_short)
def test_odd_axes_are_refused(tmp_path, axes):
    message = _complaint(write_folder(tmp_path, STATE, axes_dims_rope=axes), FluxperfError)
    assert "axes" in message
    assert "expected" in message or "must" in message


def test_sizes_that_the_weights_do_not_have_are_refused(tmp_path):
    deeper = _complaint(write_folder(tmp_path / "deeper", STATE, num_layers=2))
    assert "tensor 'transformer_blocks.1.norm1.linear.weight' is missing" in deeper
    wider = _complaint(write_folder(tmp_path / "wider", STATE, num_attention_heads=3))
    assert "'x_embedder.weight' has shape [32, 4], expected [48, 4]" in wider
    guided = _complaint(write_folder(tmp_path / "guided", STATE, guidance_embeds=True))
    assert "time_text_embed.guidance_embedder.linear_1.weight" in guided


def test_weights_that_the_sizes_do_not_have_are_refused(tmp_path):
    sizes = SMALL._replace(double=2, guidance=True)
    state = random_state(diffusers_shapes(sizes), seed=4)
    shallower = _complaint(write_folder(tmp_path / "shallower", state, sizes, num_layers=1))
    assert "tensor 'transformer_blocks.1.attn.add_k_proj.bias' does not belong to this model" in shallower
    unguided = _complaint(write_folder(tmp_path / "unguided", state, sizes, guidance_embeds=False))
    assert "tensor 'time_text_embed.guidance_embedder.linear_1.bias' does not belong to this model" in unguided
