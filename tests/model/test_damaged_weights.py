"""Weights that are missing, damaged or of another model: one error says what was expected, found and what to do."""

from __future__ import annotations

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.errors import CheckpointError
from tests.model.rung_runs import Case, Rung, inputs, scheduled
from tests.model.weight_files import (
    SMALL,
    STEM,
    diffusers_shapes,
    original_layout,
    random_state,
    write_folder,
    write_shards,
    write_tensors,
)

DIFFUSERS = random_state(diffusers_shapes(SMALL), seed=3)
ORIGINAL = original_layout(DIFFUSERS, SMALL)


def _loaded(path):
    """Places every tensor of a checkpoint on a device."""
    Rung("tensorcore", Checkpoint(path))


def _complaint(path):
    """Message of the one error that loading raises."""
    with pytest.raises(CheckpointError) as caught:
        _loaded(path)
    message = str(caught.value)
    assert type(caught.value) is CheckpointError
    assert "Traceback" not in message
    assert message.endswith((".", "?"))
    return message


def _says(message, *phrases):
    missing = [phrase for phrase in phrases if phrase not in message]
    assert not missing, f"{missing} not in: {message}"


@pytest.fixture(params=["diffusers", "original"])
def layout(request, tmp_path):
    """Writes a state in either layout, after a change; returns the path. ``name`` is the same tensor in both."""
    published = request.param == "diffusers"
    tensors = DIFFUSERS if published else ORIGINAL

    def write(change):
        state = dict(tensors)
        change(state)
        if published:
            return write_folder(tmp_path / "model", state)
        return write_tensors(tmp_path / "model.safetensors", state)

    write.name = "transformer_blocks.0.ff.net.2.weight" if published else "double_blocks.0.img_mlp.2.weight"
    write.biases = [name for name in tensors if name.endswith(".bias")]
    return write


def test_undamaged_weights_load_and_run(layout):
    rung = Rung("batched", Checkpoint(layout(lambda state: None)))
    case = Case(1, 3, 2, 2)
    assert np.isfinite(rung.velocity(inputs(rung.config, case), case, scheduled(rung.config, case))).all()


def test_a_missing_tensor_is_named(layout):
    message = _complaint(layout(lambda state: state.pop(layout.name)))
    _says(message, f"tensor {layout.name!r} is missing", "expected the weights of a custom model", "1 + 1 blocks")
    _says(message, "Check that config.json and weights belong together")
    assert "more" not in message


def test_all_missing_tensors_are_counted(layout):
    message = _complaint(layout(lambda state: [state.pop(name) for name in layout.biases]))
    assert message.count("is missing") == 4
    _says(message, f"and {len(layout.biases) - 4} more")


def test_a_wrong_shape_is_named_with_both_shapes(layout):
    def cut(state):
        state[layout.name] = state[layout.name][:, :-1]

    _says(_complaint(layout(cut)), repr(layout.name), "has shape [32, 127]", "expected [32, 128]")


def test_too_many_rows_are_named(layout):
    def grow(state):
        state[layout.name] = np.concatenate([state[layout.name]] * 2)

    _says(_complaint(layout(grow)), repr(layout.name), "has shape [64, 128]", "expected [32, 128]")


def test_rows_of_pieces_are_summed(tmp_path):
    name = "transformer_blocks.0.attn.to_k.weight"
    message = _complaint(write_folder(tmp_path, {**DIFFUSERS, name: DIFFUSERS[name][:-2]}))
    _says(message, name, "have 94 rows in all, expected 96")


def test_a_tensor_that_belongs_to_nothing_is_named(layout):
    """With a config of fewer blocks, the file would otherwise run as another model without a warning."""
    other = layout.name.replace("blocks.0", "blocks.7").replace("double_blocks.7", "double_blocks.0.more")

    def add(state):
        state[other] = state[layout.name]

    _says(
        _complaint(layout(add)),
        f"tensor {other!r} does not belong to this model",
        "Check that config.json and weights belong",
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(layout, bad):
    def spoil(state):
        state[layout.name] = state[layout.name].copy()
        state[layout.name][3, 5] = bad

    message = _complaint(layout(spoil))
    _says(message, repr(layout.name), "NaN or infinity", "expected finite values", "download it again")


@pytest.mark.parametrize(("dtype", "large"), [(np.float64, 1e300), (np.float32, 3.4e38)])
def test_numbers_beyond_the_range_of_activations_are_refused(tmp_path, dtype, large):
    """3.4e38 is finite in float32, but infinite in bfloat16."""
    state = {name: x.astype(dtype) for name, x in ORIGINAL.items()}
    state["img_in.weight"][0, 0] = large
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    _says(_complaint(path), "'img_in.weight'", "beyond the range of bfloat16", "expected finite values")


@pytest.mark.parametrize(("dtype", "name"), [(np.int16, "I16"), (np.int8, "I8"), (np.bool_, "BOOL")])
def test_an_unknown_dtype_is_named(layout, dtype, name):
    def quantize(state):
        state[layout.name] = state[layout.name].astype(dtype)

    message = _complaint(layout(quantize))
    told = ("Expected weights in bfloat16",) if name != "BOOL" else ("expected one of F64, F32, F16, BF16", "original")
    _says(message, repr(layout.name), f"has dtype {name}", *told)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_known_dtypes_give_the_same_weights(tmp_path, dtype):
    path = write_tensors(tmp_path / "model.safetensors", ORIGINAL, dtype)
    rung = Rung("tensorcore", Checkpoint(path))
    expected = np.concatenate([ORIGINAL["img_in.weight"], ORIGINAL["txt_in.weight"]], axis=1)
    got = [rung.download(linear.weight) for linear in (rung.model.weights.img_in, rung.model.weights.txt_in)]
    tolerance = 2**-11 if dtype is np.float16 else 0
    np.testing.assert_allclose(np.concatenate(got, axis=1), expected, rtol=2**-8 if tolerance else 0, atol=tolerance)


@pytest.mark.parametrize("share", [0, 3, 8, 9, 200, 0.03, 0.5, 0.99, -1])
def test_a_truncated_file_is_refused(layout, share):
    path = layout(lambda state: None)
    file = path / STEM if path.is_dir() else path
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data)) if isinstance(share, float) else share])
    _says(
        _complaint(path),
        file.name,
        "expected a complete safetensors file",
        "download did not finish",
        " again",
    )


@pytest.mark.parametrize("content", [b"\n".join([b"not weights at all"] * 40), b"<!DOCTYPE html>", b"{}", b"\xff" * 64])
def test_another_file_under_the_name_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    _says(_complaint(path), str(path), "expected a complete safetensors file", " again")


def test_a_file_without_tensors_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"{}")
    _says(_complaint(path), "expected the tensors of FLUX.1", "got none")


def test_tensors_of_another_model_are_refused(tmp_path):
    shapes = {"encoder.conv_in.weight": (4, 3, 3, 3), "decoder.conv_in.bias": (4,)}
    vae = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    message = _complaint(write_tensors(tmp_path / "ae.safetensors", vae))
    _says(
        message,
        "expected the tensors of FLUX.1",
        "decoder.conv_in.bias, encoder.conv_in.weight",
        "It is a VAE: give the file of the transformer",
    )


def test_nothing_there_is_said(tmp_path):
    message = _complaint(tmp_path / "nowhere")
    _says(message, "nowhere", "expected a diffusers folder or a safetensors file", "but there is nothing")


@pytest.mark.parametrize("content", [(), ("README.md", "model.bin")])
def test_a_folder_without_weights_lists_what_it_has(tmp_path, content):
    for name in content:
        (tmp_path / name).write_text("x")
    told = "but model.bin, which has another format" if content else "it holds nothing"
    _says(_complaint(tmp_path), f"expected a diffusers model, found no {STEM}", told)


@pytest.mark.parametrize("ending", ["incomplete", "part", "crdownload", "aria2"])
def test_a_download_under_way_is_named(tmp_path, ending):
    (tmp_path / f"{STEM}.{ending}").write_text("x")
    _says(_complaint(tmp_path), f"found no {STEM}, but {STEM}.{ending}, a download that did not finish")


def test_a_shard_is_no_checkpoint(tmp_path):
    """Its config is in the same folder, so more than half of the tensors would be reported as missing."""
    folder = write_shards(tmp_path / "m", DIFFUSERS, 3)
    for shard in sorted(folder.glob("*.safetensors")):
        _says(_complaint(shard), shard.name, "one of 3 shards", f"Give {folder}, the folder with all shards")


def test_the_only_shard_is_a_whole_checkpoint(tmp_path):
    path = write_tensors(tmp_path / "flux1-00001-of-00001.safetensors", DIFFUSERS)
    assert Checkpoint(path).stored_bytes == sum(2 * x.size for x in DIFFUSERS.values())


def test_an_original_file_of_unknown_head_dimension_is_refused(tmp_path):
    state = {**ORIGINAL, "double_blocks.0.img_attn.norm.query_norm.scale": np.ones(12, np.float32)}
    message = _complaint(write_tensors(tmp_path / "model.safetensors", state))
    _says(message, "expected a head dimension of 16 or 128", "got 12", "Convert the file")


@pytest.mark.parametrize("name", ["img_in.weight", "txt_in.weight", "double_blocks.0.img_attn.norm.query_norm.scale"])
@pytest.mark.parametrize("shape", [(), (16,), (16, 1, 1)])
def test_tensors_that_sizes_are_read_from_may_have_any_shape(tmp_path, name, shape):
    path = write_tensors(tmp_path / "model.safetensors", {**ORIGINAL, name: np.ones(shape, np.float32)})
    if ORIGINAL[name].shape == shape:
        _loaded(path)
    else:
        _says(_complaint(path), name, "expected")


def test_missing_shards_are_all_named(tmp_path):
    folder = write_shards(tmp_path, DIFFUSERS, 4)
    gone = sorted(folder.glob("*.safetensors"))[1:3]
    for path in gone:
        path.unlink()
    _says(_complaint(folder), "expected 4 shards", "2 missing", *(path.name for path in gone), "Download them again")


def test_a_truncated_shard_is_named(tmp_path):
    folder = write_shards(tmp_path, DIFFUSERS, 3)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    _says(_complaint(folder), shard.name, "expected a complete safetensors file")


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    folder = write_shards(tmp_path, DIFFUSERS, 3)
    index = folder / f"{STEM}.index.json"
    owners = json.loads(index.read_text())["weight_map"]
    other = next(file for file in owners.values() if file != owners["proj_out.weight"])
    index.write_text(json.dumps({"weight_map": owners | {"proj_out.weight": other}}))
    _says(_complaint(folder), f"expected tensor 'proj_out.weight' in {other}", "does not hold it")
