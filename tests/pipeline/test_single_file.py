"""One file with transformer, text encoders and VAE: the values equal those that diffusers reads from it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from fluxperf.errors import CheckpointError

pytestmark = pytest.mark.peer

SHORT = {"height": 32, "width": 48, "num_inference_steps": 1, "max_sequence_length": 24, "seed": 3}


@pytest.fixture(scope="module")
def files(saved, tmp_path_factory):
    """Files with the folder's values and with e4m3 values, and a folder without weights."""
    from benchmarks.flux_file import write

    place = tmp_path_factory.mktemp("single")
    folder = shutil.copytree(saved["schnell"].folder, place / "FLUX.1-schnell")
    write(place / "plain.safetensors", folder, plain=True)
    write(place / "e4m3.safetensors", folder)
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()
    return place


def _made(folder, rung="batched", **options):
    from fluxperf import Pipeline

    return Pipeline.from_pretrained(folder, rung=rung, device="host", **options)


def test_pictures_are_those_of_the_folder(saved, files, pipeline_of):
    ours = _made(files / "FLUX.1-schnell", transformer=files / "plain.safetensors")
    theirs = pipeline_of("schnell", "batched")
    for prompt in ("a red fox", "two cats"):
        first, second = (one(prompt, output_type="np", **SHORT).images for one in (ours, theirs))
        assert np.array_equal(first, second)
    ours.close()


def test_the_vae_is_as_diffusers_converts_it(files):
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
    from safetensors.torch import load_file

    pipeline = _made(files / "FLUX.1-schnell", transformer=files / "plain.safetensors", text_encoders=False)
    mine = pipeline.parts.vae().vae
    stored = load_file(files / "plain.safetensors")
    original = {name.removeprefix("vae."): x for name, x in stored.items() if name.startswith("vae.")}
    config = dict(mine.config) | {"down_block_types": mine.config.down_block_types}
    converted = convert_ldm_vae_checkpoint(dict(original), config)
    state = mine.state_dict()
    assert state.keys() == converted.keys()
    assert all((state[name] == converted[name].reshape(state[name].shape)).all() for name in state)
    pipeline.close()


def test_scaled_numbers_are_those_that_pytorch_multiplies(files):
    from safetensors.torch import load_file

    pipeline = _made(files / "FLUX.1-schnell", transformer=files / "e4m3.safetensors", vae=False)
    stored, seen = load_file(files / "e4m3.safetensors"), 0
    prefix = "text_encoders.t5xxl.transformer."
    for name, numbers in pipeline.parts.encoders().t5.state_dict().items():
        kept = stored.get(prefix + name, stored[f"{prefix}shared.weight"])
        scale = stored.get(f"{prefix}{name.removesuffix('weight')}scale_weight")
        seen += scale is not None
        assert (numbers == (kept.float() if scale is None else kept.float() * scale)).all(), name
    assert seen > 10
    pipeline.close()


def test_one_command_makes_a_picture_and_its_metadata_name_what_is_from_the_file(files, tmp_path, capsys):
    from fluxperf.cli import main
    from tests.pipeline.conftest import opened

    how = [
        "--model",
        str(files / "FLUX.1-schnell"),
        "--transformer",
        str(files / "e4m3.safetensors"),
        "--device",
        "host",
    ]
    sizes = ["--height", "32", "--width", "32", "--steps", "1", "--max-sequence-length", "8", "--seed", "1"]
    for words in (
        ["a fox", "--embeddings-out", str(tmp_path / "fox.safetensors"), "--rung", "fp8"],
        [
            "a fox",
            "--rung",
            "fp8",
            "--latents-out",
            str(tmp_path / "l.safetensors"),
            "-o",
            str(tmp_path / "a.png"),
            *sizes,
        ],
        ["--decode", str(tmp_path / "l.safetensors"), "-o", str(tmp_path / "b.png")],
    ):
        with pytest.raises(SystemExit) as end:
            main(["generate", *words, *how])
        assert not end.value.code, capsys.readouterr().err
    first, second = (opened((tmp_path / name).read_bytes()) for name in ("a.png", "b.png"))
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert first.text["transformer"] == "e4m3.safetensors (with text_encoder, text_encoder_2, vae)"


def _changed(files, tmp_path, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(files / "plain.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "changed.safetensors")
    return tmp_path / "changed.safetensors"


def _first(tensors, start):
    return next(name for name in sorted(tensors) if name.startswith(start))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("vae.decoder.conv_in.weight"), "the VAE as config.json describes it, but 1 tensor is"),
        (lambda t: t.pop(_first(t, "text_encoders.t5xxl.")), "T5's encoder as config.json describes it, but"),
        (lambda t: t.update({"vae.strange": t["vae.decoder.conv_in.bias"].clone()}), "not belong to it: strange"),
        (lambda t: t.update({"text_encoders.clip_g.x": t["vae.decoder.conv_in.bias"].clone()}), "got '.*clip_g.x'"),
        (lambda t: t["vae.decoder.conv_in.bias"].fill_(float("nan")), "holds NaN"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_named_before_the_transformer_is_read(files, tmp_path, change, says):
    read = []
    with pytest.raises(CheckpointError, match=says):
        _made(files / "FLUX.1-schnell", transformer=_changed(files, tmp_path, change), on_bytes=read.append)
    assert sum(read) < 100_000


def test_a_folder_that_lacks_what_the_file_lacks_is_named(files, tmp_path):
    path = _changed(files, tmp_path, lambda t: [t.pop(name) for name in list(t) if name.startswith("vae.")])
    with pytest.raises(CheckpointError, match=r"vae/ has no diffusion_pytorch_model\.safetensors"):
        _made(files / "FLUX.1-schnell", transformer=path)
