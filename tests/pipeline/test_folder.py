"""The check of a model folder: it reports all problems before anything is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.errors import CheckpointError
from fluxperf.pipeline.folder import TRANSFORMER, open_folder
from tests.model.weight_files import SMALL, diffusers_shapes, original_layout, random_state, write_tensors

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 9949025728\n"
)
CLASSES = {
    "transformer": {"_class_name": "FluxTransformer2DModel", "in_channels": 64},
    "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "latent_channels": 16},
    "text_encoder": {"architectures": ["CLIPTextModel"], "hidden_size": 768},
    "text_encoder_2": {"architectures": ["T5EncoderModel"], "d_model": 4096},
}
STEMS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A complete folder with minimal files."""
    path = tmp_path / "FLUX.1-schnell"
    for part, settings in CLASSES.items():
        (path / part).mkdir(parents=True)
        (path / part / "config.json").write_text(json.dumps(settings))
        save_file({"x": np.ones(4, np.float32)}, path / part / f"{STEMS.get(part, 'model')}.safetensors")
    for part, names in (("tokenizer", ("vocab.json", "merges.txt")), ("tokenizer_2", ("tokenizer.json",))):
        names = (*names, "tokenizer_config.json")
        (path / part).mkdir()
        for name in names:
            (path / part / name).write_text("{}")
    (path / "scheduler").mkdir()
    _schedule(path, use_dynamic_shifting=False, shift=1.0)
    (path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    return path


def _schedule(path: Path, **settings):
    everything = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, **settings}
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(everything))


def _config(path: Path, part: str, **changes):
    (path / part / "config.json").write_text(json.dumps({**CLASSES[part], **changes}))


def _weights(path: Path, part: str) -> Path:
    return path / part / f"{STEMS.get(part, 'model')}.safetensors"


def _complaint(path: Path, **options) -> str:
    with pytest.raises(CheckpointError) as error:
        open_folder(path, **options)
    return str(error.value)


def test_a_complete_folder_passes(folder):
    found = open_folder(folder)
    assert (found.path, found.name, found.shifted) == (folder, "FLUX.1-schnell", False)
    _schedule(folder, use_dynamic_shifting=True, shift=3.0, base_shift=0.5, max_shift=1.15)
    assert open_folder(folder).shifted


def test_shards_pass_with_their_index(folder):
    part = folder / "text_encoder_2"
    _weights(folder, "text_encoder_2").rename(part / "model-00001-of-00001.safetensors")
    (part / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "model-00001-of-00001.safetensors"}})
    )
    open_folder(folder)


@pytest.mark.parametrize("part", [*CLASSES, "scheduler", "tokenizer", "tokenizer_2"])
def test_a_missing_subfolder(folder, part):
    shutil.rmtree(folder / part)
    text = _complaint(folder)
    assert f"- {part}/ is missing" in text
    assert "hf download" in text


def test_embeddings_need_the_transformer_alone(folder):
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"):
        shutil.rmtree(folder / part)
    open_folder(folder, TRANSFORMER)
    assert _complaint(folder).count("is missing") == 5, "all complaints together"


@pytest.mark.parametrize("part", CLASSES)
def test_a_pointer_of_git_lfs(folder, part):
    _weights(folder, part).write_text(POINTER)
    assert f"{_weights(folder, part).name} is a git-lfs pointer, not the file itself: run git lfs pull" in _complaint(
        folder
    )


def test_a_tokenizer_that_is_a_pointer(folder):
    (folder / "tokenizer_2" / "spiece.model").write_text(POINTER)
    assert "tokenizer_2/spiece.model is a git-lfs pointer" in _complaint(folder)


def test_a_refused_download(folder):
    _weights(folder, "transformer").write_text("Access to model black-forest-labs/FLUX.1-dev is restricted.\n")
    text = _complaint(folder)
    assert "is text instead of weights, probably a refused download: 'Access to model" in text
    assert "For a gated model accept its license" in text


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"{}" * 3000, b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!"]
)
def test_a_file_that_is_none(folder, content):
    _weights(folder, "vae").write_bytes(content)
    assert "vae/diffusion_pytorch_model.safetensors is" in _complaint(folder)


def test_a_download_that_did_not_finish(folder):
    save_file({"x": np.ones(4000, np.float32)}, _weights(folder, "vae"))
    size = _weights(folder, "vae").stat().st_size
    with _weights(folder, "vae").open("rb+") as file:
        file.truncate(size - 1000)
    assert f"has {size - 1000} of {size} bytes: its download did not finish" in _complaint(folder)


def test_missing_shards(folder):
    part = folder / "transformer"
    _weights(folder, "transformer").unlink()
    names = {f"t{index}": f"diffusion_pytorch_model-0000{index}-of-00003.safetensors" for index in (1, 2, 3)}
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    save_file({"t1": np.ones(4, np.float32)}, part / names["t1"])
    assert f"transformer/ lacks 2 of 3 shards: {names['t2']}, {names['t3']}" in _complaint(folder)
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": "x" * 5000}}))
    assert "transformer/ lacks 1 of 1 shards: xxx" in _complaint(folder), "a name that no file can have"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("model.fp16.safetensors", "but the variant model.fp16.safetensors"),
        ("pytorch_model.bin", "but pytorch_model.bin, which has another format"),
        ("model-Q4_K_S.gguf", "but model-Q4_K_S.gguf, which has another format"),
    ],
)
def test_another_variant_or_format(folder, name, says):
    _weights(folder, "text_encoder").rename(folder / "text_encoder" / name)
    assert f"text_encoder/ has no model.safetensors, {says}" in _complaint(folder)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("Flux2Pipeline", "got Flux2Pipeline: FLUX.2, which is another architecture"),
        ("Flux2KleinPipeline", "FLUX.2"),
        ("FluxKontextPipeline", "FLUX.1 Kontext"),
        ("FluxFillPipeline", "FLUX.1 Fill"),
        ("FluxControlPipeline", "Depth or Canny"),
        ("StableDiffusion3Pipeline", "Stable Diffusion"),
        ("SomethingPipeline", "another model"),
    ],
)
def test_another_pipeline(folder, kind, says):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert says in _complaint(folder)


@pytest.mark.parametrize(
    ("part", "changes", "says"),
    [
        (
            "transformer",
            {"_class_name": "Flux2Transformer2DModel"},
            "has Flux2Transformer2DModel: FLUX.2, which is",
        ),
        ("transformer", {"in_channels": 384}, "takes 384 channels, expected 64: FLUX.1 Fill, which takes an image"),
        (
            "transformer",
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            "expected unquantized weights, got weights quantized by bitsandbytes: give them in bfloat16",
        ),
        (
            "text_encoder_2",
            {"quantization_config": {"quant_method": "torchao"}},
            "text_encoder_2/: expected unquantized weights",
        ),
        (
            "text_encoder",
            {"architectures": ["CLIPTextModelWithProjection"]},
            "has CLIPTextModelWithProjection; exp",
        ),
        ("vae", {"_class_name": "AutoencoderKLFlux2"}, "has AutoencoderKLFlux2: FLUX.2, which is another architecture"),
        ("vae", {"block_out_channels": [128, 256]}, "block_out_channels has 2 entries, expected 4"),
    ],
)
def test_a_part_of_another_model(folder, part, changes, says):
    _config(folder, part, **changes)
    assert says in _complaint(folder)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"_class_name": "EulerDiscreteScheduler"}, "scheduler is a EulerDiscreteScheduler"),
        ({"use_dynamic_shifting": False, "shift": 0}, "shift is 0, expected a number above 0"),
        ({"use_dynamic_shifting": True, "max_shift": 1.35}, "max_shift is 1.35, expected 1.15"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is True, expected False"),
    ],
)
def test_noise_levels_that_the_sampler_has_not(folder, settings, says):
    _schedule(folder, **settings)
    assert says in _complaint(folder)


def test_paths_that_are_no_model_folder(folder, tmp_path):
    assert "hf download black-forest-labs/FLUX.1-schnell --local-dir FLUX.1-schnell" in _complaint(
        Path("black-forest-labs/FLUX.1-schnell")
    )
    for misspelt, kind in (("FLUX.1-schnell", "schnell"), ("flux1-dev", "dev"), ("models/FLUX.1-schnel", "schnell")):
        said = _complaint(Path(misspelt))
        assert f"Did you mean black-forest-labs/FLUX.1-{kind}, the model's name on the hub?" in said
        assert "the folder that contains model_index.json" in said
    assert "such as black-forest-labs/FLUX.1-schnell, or the path of a folder" in _complaint(Path("nowhere"))
    single = _weights(folder, "transformer")
    assert "Is it the transformer of FLUX.1" in _complaint(single)
    state = original_layout(random_state(diffusers_shapes(SMALL), seed=1), SMALL)
    assert "got a file. Measure the file with" in _complaint(write_tensors(tmp_path / "flux1.safetensors", state))
    assert f"got only the folder of FluxTransformer2DModel; give {folder}" in _complaint(folder / "transformer")
    (tmp_path / "empty").mkdir()
    assert "found no model_index.json (it holds nothing)" in _complaint(tmp_path / "empty")
    cache = tmp_path / "models--black-forest-labs--FLUX.1-schnell"
    (cache / "snapshots" / "741f7c3c").mkdir(parents=True)
    assert f"the hub's cache folder of one model: give {cache / 'snapshots' / '741f7c3c'}" in _complaint(cache)
    (cache / "snapshots" / "99999999").mkdir()
    assert "give the folder of one of its commits: " in _complaint(cache)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("741f7c3c\n")
    assert f"the hub's cache folder of one model: give {cache / 'snapshots' / '741f7c3c'}" in _complaint(cache)
    with pytest.raises(CheckpointError, match=r"the hub's cache folder of one model: give .*741f7c3c"):
        Checkpoint(cache)


@pytest.mark.peer
@pytest.mark.parametrize(
    ("part", "key", "value", "says"),
    [
        ("text_encoder_2", "d_model", 48, "d_model 48 and the transformer joint_attention_dim 32"),
        ("text_encoder", "hidden_size", 48, "hidden_size 48 and the transformer pooled_projection_dim 24"),
        (
            "vae",
            "latent_channels",
            4,
            "latent_channels 4 (times 4, a patch) and the transformer in_channels 64",
        ),
    ],
)
def test_parts_of_different_models(saved, tmp_path, part, key, value, says):
    from fluxperf import Pipeline

    copy = tmp_path / "copy"
    shutil.copytree(saved["schnell"].folder, copy)
    config = copy / part / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), key: value}))
    with pytest.raises(CheckpointError) as error:
        Pipeline.from_pretrained(copy, device="host")
    assert says in str(error.value)
