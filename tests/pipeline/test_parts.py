"""Parts of a model folder: every tensor is checked, and all parts are checked before any is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fluxperf.errors import CheckpointError, ConfigError
from fluxperf.pipeline import modules

pytestmark = pytest.mark.peer

FILES = {
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}
KINDS = {"text_encoder": modules.CLIP, "text_encoder_2": modules.T5, "vae": modules.VAE}
PARTS = tuple(FILES)


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved["schnell"].folder, tmp_path / "model"))


def _weights(folder: Path, part: str, change) -> None:
    """Rewrites the tensors of a part, as ``change`` returns them."""
    path = folder / part / FILES[part]
    save_file({name: np.ascontiguousarray(x) for name, x in change(load_file(path)).items()}, path)


def _config(folder: Path, part: str, **changes) -> None:
    path = folder / part / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _complaint(folder: Path) -> tuple[str, int]:
    """The error message about a folder, and the number of bytes that were read before it."""
    from fluxperf import Pipeline

    read = []
    with pytest.raises(CheckpointError) as error:
        Pipeline.from_pretrained(folder, rung="batched", device="host", on_bytes=read.append)
    return str(error.value), sum(read)


@pytest.mark.parametrize("part", PARTS)
def test_numbers_are_those_of_the_file(folder, part):
    from fluxperf.engine.device.host import HostDevice
    from fluxperf.pipeline.bridge import Bridge

    state = modules.plan(folder / part, KINDS[part]).load(Bridge(HostDevice()), "float32", "weights").state_dict()
    plan = modules.plan(folder / part, KINDS[part])
    stored = load_file(folder / part / FILES[part])
    assert set(plan.sources) == set(state)
    for name, tensor in state.items():
        assert np.array_equal(tensor.numpy(), stored[plan.sources[name]]), name


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("which", [0, -1])
def test_a_tensor_that_is_missing_is_named(folder, part, which):
    path = folder / part / FILES[part]
    gone = sorted(load_file(path))[which]
    _weights(folder, part, lambda given: {name: x for name, x in given.items() if name != gone})
    text, read = _complaint(folder)
    assert f"{folder / part}: expected the weights of" in text
    assert gone.removeprefix("text_model.") in text
    assert read == 0


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_of_none_is_named(folder, part):
    _weights(folder, part, lambda given: {**given, "another.weight": np.ones(3, np.float32)})
    text, read = _complaint(folder)
    assert "1 tensor does not belong to it: another.weight" in text
    assert read == 0


@pytest.mark.parametrize("part", PARTS)
def test_a_tensor_of_another_shape_is_named(folder, part):
    path = folder / part / FILES[part]
    name = next(name for name, x in sorted(load_file(path).items()) if x.ndim > 1 and len(set(x.shape[:2])) == 2)
    _weights(folder, part, lambda given: {**given, name: given[name].swapaxes(0, 1)})
    text, read = _complaint(folder)
    assert name.removeprefix("text_model.") in text
    assert read == 0


@pytest.mark.parametrize("part", PARTS)
def test_a_number_that_is_not_finite_is_reported_before_the_transformer_is_read(folder, part):
    path = folder / part / FILES[part]
    name = sorted(load_file(path))[0]

    def spoil(given):
        given[name] = given[name].copy()
        given[name].flat[0] = np.nan
        return given

    _weights(folder, part, spoil)
    text, read = _complaint(folder)
    assert f"tensor {name!r} holds NaN or infinity" in text
    assert read < (folder / "transformer" / FILES["vae"]).stat().st_size / 2


@pytest.mark.parametrize(
    ("part", "extra"),
    [
        ("text_encoder", "vision_model.embeddings.class_embedding"),
        ("text_encoder", "text_model.embeddings.position_ids"),
        ("text_encoder_2", "decoder.final_layer_norm.weight"),
        ("text_encoder_2", "lm_head.weight"),
    ],
)
def test_what_larger_models_hold_besides_is_left_out(folder, part, extra):
    _weights(folder, part, lambda given: {**given, extra: np.ones(3, np.float32)})
    modules.plan(folder / part, KINDS[part])


def test_names_of_early_releases(folder):
    early = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def rename(given):
        for new, old in early.items():
            given = {name.replace(new, old): x for name, x in given.items()}
        return given

    before = len(modules.plan(folder / "vae", modules.VAE).sources)
    _weights(folder, "vae", rename)
    assert len(modules.plan(folder / "vae", modules.VAE).sources) == before


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        ("vae", {"scaling_factor": "0.36"}, "scaling_factor is '0.36', expected a finite number"),
        ("vae", {"scaling_factor": 0}, "scaling_factor is 0, expected a finite number"),
        (
            "vae",
            {"block_out_channels": [8, 8, 16, 2**64 - 1]},
            "block_out_channels is 18446744073709551615, expected",
        ),
        ("vae", {"scaling_factor": 10**400}, "scaling_factor is 1000000000000000000000000000000000000000.., expected"),
        ("vae", {"block_out_channels": [8] * 20000}, "block_out_channels has 20000 entries, expected 4"),
        ("vae", {"down_block_types": [16, "DownEncoderBlock2D"]}, "expected the VAE, but its library fails with"),
        ("text_encoder", {"num_attention_heads": 5}, "expected CLIP's text encoder, but its library fails with"),
        ("text_encoder", {"num_hidden_layers": 10**8}, "num_hidden_layers is 100000000, expected at most 1024"),
        ("text_encoder", {"num_hidden_layers": 10**400}, "num_hidden_layers is 10000000000000000000000000000000"),
        ("text_encoder_2", {"d_kv": -8}, "expected T5's encoder, but its library fails with"),
        ("text_encoder_2", {"architectures": 2**31}, "text_encoder_2/"),
        ("text_encoder_2", {"architectures": ["T5Something"]}, "has T5Something; expected T5EncoderModel"),
        ("transformer", {"patch_size": 2}, "patch_size: expected 1"),
        ("transformer", {"in_channels": [384]}, "in_channels: expected a whole number"),
        ("transformer", {"out_channels": 16}, "out_channels: expected 64"),
    ],
)
def test_a_config_of_another_model_or_a_damaged_one(folder, part, changes, says):
    _config(folder, part, **changes)
    text, read = _complaint(folder)
    assert says in text
    assert read == 0


def _truncated(folder):
    (folder / "tokenizer" / "tokenizer.json").write_text("{")


def _without_settings(folder):
    (folder / "tokenizer" / "tokenizer_config.json").unlink()


def _alike(folder):
    shutil.rmtree(folder / "tokenizer_2")
    shutil.copytree(folder / "tokenizer", folder / "tokenizer_2")


def _endless(folder):
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 10**6}))


def _larger(folder):
    path = folder / "tokenizer_2" / "tokenizer.json"
    given = json.loads(path.read_text())
    given["model"]["vocab"] += [[f"▁tok{number}", 0.0] for number in range(3000)]
    path.write_text(json.dumps(given))


def _broken_link(folder):
    path = folder / "vae" / FILES["vae"]
    path.unlink()
    path.symlink_to("../gone")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_truncated, "tokenizer: expected a tokenizer, but its library fails with"),
        (_without_settings, "tokenizer/ has no tokenizer_config.json"),
        (_alike, "tokenizer_2: expected"),
        (_endless, "expected model_max_length of at most 77, CLIP's number of positions, got 1e+06"),
        (_larger, "tokenizer_2: expected ids below"),
        (_broken_link, "is a link to a file that does not exist"),
    ],
)
def test_a_damaged_file_beside_the_weights(folder, damage, says):
    damage(folder)
    text, read = _complaint(folder)
    assert says in text
    assert read == 0


def test_an_index_does_not_leave_its_folder(folder):
    path = folder / "transformer" / FILES["vae"]
    names = load_file(path)
    path.rename(folder / "elsewhere.safetensors")
    index = path.with_name(f"{path.name}.index.json")
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}))
    text, read = _complaint(folder)
    assert "names '../elsewhere.safetensors', expected names of files in the same folder" in text
    assert read == 0


def test_what_a_rung_cannot_do_is_reported_before_anything_is_read(folder):
    from fluxperf import Pipeline

    read = []
    with pytest.raises(ConfigError, match="unknown rung"):
        Pipeline.from_pretrained(folder, rung="fussed", device="host", on_bytes=read.append)
    assert not read


def test_a_folder_of_the_hub_is_named_by_model_and_revision(folder, tmp_path):
    from fluxperf.pipeline.folder import open_folder

    place = (
        tmp_path
        / "models--black-forest-labs--FLUX.1-schnell"
        / "snapshots"
        / "741f7c3ce8b383c54771c7003378a50191e9efe9"
    )
    place.parent.mkdir(parents=True)
    shutil.copytree(folder, place)
    assert open_folder(place).name == "black-forest-labs/FLUX.1-schnell@741f7c3ce8b3"
