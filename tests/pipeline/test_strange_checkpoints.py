"""Checkpoints in unusual forms: `run` and `generate` give the same reason, say what to do, and unpickle nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fluxperf.cli import main

pytestmark = pytest.mark.peer

STEM = "diffusion_pytorch_model"
COMMIT = "741f7c3ce8b383c54771c7003378a50191e9efe9"
HOW = ["--device", "host", "--rung", "batched", "--height", "32", "--width", "32", "--steps", "1"]
RUN = [*HOW, "--text-tokens", "8", "--repeat", "1", "--warmup", "0"]
GENERATE = [*HOW, "--max-sequence-length", "8", "--seed", "1"]


class _Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved["schnell"].folder, tmp_path / "m"))


def _said(capsys, *words):
    """Exit code and message of a command, on one line."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    caught = capsys.readouterr()
    return end.value.code or 0, " ".join(caught.err.split())


def _both(capsys, path, tmp_path, model=None):
    """Exit codes and messages of ``run`` and ``generate`` for a path; for a file as ``--transformer``
    and as ``--model``.
    """
    ways = [("run", "--weights", path, *RUN), ("run", "--end-to-end", "--weights", path, *RUN)]
    if model is not None:
        ways[1:] = [("generate", "x", "--model", model, "--transformer", path, *GENERATE, "-o", tmp_path / "x.png")]
    ways.append(("generate", "x", "--model", path, *GENERATE, "-o", tmp_path / "x.png"))
    return [_said(capsys, *words) for words in ways]


def _alike(capsys, path, tmp_path, says, model=None):
    for code, message in _both(capsys, path, tmp_path, model):
        assert code == 2, message
        assert says in message
        assert not (tmp_path / "x.png").exists()


def _sharded(part, count=3, word=""):
    """Splits a folder's single file into shards; returns them."""
    whole = part / f"{STEM}.safetensors"
    tensors, owners, files = load_file(whole), {}, []
    whole.unlink()
    for number in range(count):
        names = sorted(tensors)[number::count]
        file = part / f"{STEM}{word}-{number + 1:05}-of-{count:05}.safetensors"
        save_file({name: tensors[name] for name in names}, file)
        owners |= dict.fromkeys(names, file.name)
        files.append(file)
    index = {"metadata": {"total_size": 1, "dtype": "float64"}, "weight_map": owners}
    (part / f"{STEM}.safetensors.index{word}.json").write_text(json.dumps(index))
    return files


def _written(path, content):
    """A file of bytes, or of tensors."""
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        save_file({name: x.astype(np.float32) for name, x in content.items()}, path)
    return path


FILES = {
    "a LoRA": ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": np.ones((4, 4))}, "got a LoRA"),
    "a ControlNet": ({"controlnet_blocks.0.weight": np.ones((4, 4))}, "got a ControlNet"),
    "SDXL with its encoders": (
        {
            "model.diffusion_model.input_blocks.0.0.weight": np.ones((4, 4)),
            "conditioner.embedders.1.model.ln_final.weight": np.ones(4),
        },
        "got a U-Net",
    ),
    "a VAE": ({"decoder.conv_in.weight": np.ones((4, 4))}, "It is a VAE: give the file of the transformer"),
    "a part of a file": ({"double_blocks.0.img_attn.qkv.weight": np.ones((4, 4))}, "a complete FLUX.1 transformer"),
    "GGUF": (b"GGUF\3\0\0\0" + bytes(100), "got a GGUF file"),
    "a page": (b"<!DOCTYPE html>", "got a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\n", "got a git-lfs pointer"),
    "nothing": (b"", "got an empty file"),
    "a download": (b"\x90\x10\0\0\0\0\0\0{" + b" " * 40, "ends within its header"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_named_wherever_it_is_given(saved, tmp_path, capsys, kind):
    content, says = FILES[kind]
    path = _written(tmp_path / "model.safetensors", content)
    _alike(capsys, path, tmp_path, says, model=saved["schnell"].folder)


@pytest.mark.parametrize("ending", [".ckpt", ".bin", ".pt", ".safetensors"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_a_pickle_is_never_read(saved, tmp_path, capsys, ending, protocol):
    path = tmp_path / f"model{ending}"
    path.write_bytes(pickle.dumps(_Harmful(tmp_path / "harm"), protocol=protocol))
    _alike(capsys, path, tmp_path, "got a PyTorch pickle", model=saved["schnell"].folder)
    assert not (tmp_path / "harm").exists()


def test_a_pickle_in_a_folder_is_never_read(folder, tmp_path, capsys):
    (folder / f"transformer/{STEM}.safetensors").unlink()
    (folder / f"transformer/{STEM}.bin").write_bytes(pickle.dumps(_Harmful(tmp_path / "harm")))
    _alike(capsys, folder, tmp_path, f"but {STEM}.bin, which has another format: download the safetensors files")
    assert not (tmp_path / "harm").exists()


def _pointed(file):
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n")


DAMAGES = {
    "empty": (lambda shards: shards[1].write_bytes(b""), "empty file: its download did not finish"),
    "cut": (lambda shards: shards[1].write_bytes(shards[1].read_bytes()[:-9]), "bytes: its download did not finish"),
    "long": (lambda shards: shards[1].write_bytes(shards[1].read_bytes() + b"123"), "3 bytes after its last tensor"),
    "pointer": (lambda shards: _pointed(shards[1]), "a git-lfs pointer, not the file itself: run git lfs pull"),
    "gone": (lambda shards: shards[1].unlink(), f"{STEM}-00002-of-00003.safetensors"),
    "no index": (
        lambda shards: (shards[0].parent / f"{STEM}.safetensors.index.json").unlink(),
        f"but shards without their index {STEM}.safetensors.index.json: download the index too",
    ),
    "a folder": (
        lambda shards: ([one.unlink() for one in (*shards, *shards[0].parent.glob("*index*"))],
                        (shards[0].parent / f"{STEM}.safetensors").mkdir()),
        f"no {STEM}.safetensors, which is not a file",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_an_incomplete_shard_gives_the_same_message(folder, tmp_path, capsys, kind):
    damage, says = DAMAGES[kind]
    damage(_sharded(folder / "transformer"))
    _alike(capsys, folder, tmp_path, says)


def test_shards_of_a_variant_are_named_and_read(folder, tmp_path, capsys):
    _sharded(folder / "transformer", word=".fp16")
    _alike(
        capsys, folder, tmp_path, f"but the variant {STEM}.fp16-00001-of-00003.safetensors: select it (variant 'fp16')"
    )
    assert _said(capsys, "run", "--weights", folder, *RUN, "--variant", "fp16")[0] == 0
    made = ["generate", "x", "--model", folder, *GENERATE, "-o", tmp_path / "x.png"]
    assert _said(capsys, *made, "--variant", "fp16")[0] == 0


@pytest.mark.parametrize("names", [("flux1-dev.safetensors",), ("ae.safetensors", "flux1-dev.sft")])
def test_a_folder_of_single_files_says_to_give_one(tmp_path, capsys, names):
    place = tmp_path / "unet"
    place.mkdir()
    for name in names:
        save_file({"x": np.ones(3, np.float32)}, place / name)
    which = "that file itself" if len(names) == 1 else "one of these files itself"
    _alike(capsys, place, tmp_path, f"but {', '.join(names)}: give {which} (run --weights, generate --transformer)")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("FluxKontextPipeline", "FLUX.1 Kontext, which edits a given image"),
        ("FluxFillPipeline", "FLUX.1 Fill"),
        ("FluxControlPipeline", "FLUX.1 with a control image (Depth or Canny)"),
        ("FluxControlNetPipeline", "FLUX.1 with a ControlNet"),
        ("FluxPriorReduxPipeline", "FLUX.1 Redux"),
        ("Flux2Pipeline", "FLUX.2"),
        ("ChromaPipeline", "Chroma"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("StableDiffusionXLPipeline", "Stable Diffusion"),
        ("HunyuanVideoPipeline", "HunyuanVideo"),
    ],
)
def test_a_folder_of_another_pipeline_is_named_alike(folder, tmp_path, capsys, kind, says):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    _alike(capsys, folder, tmp_path, f"got {kind}: {says}")


@pytest.mark.parametrize("kind", ["FluxImg2ImgPipeline", "FluxInpaintPipeline"])
def test_other_pipelines_of_the_same_parts_are_read(folder, tmp_path, capsys, kind):
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    assert _said(capsys, "run", "--weights", folder, *RUN)[0] == 0
    assert _said(capsys, "generate", "x", "--model", folder, *GENERATE, "-o", tmp_path / "x.png")[0] == 0


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "vae"])
def test_a_part_given_as_a_model_is_named(folder, tmp_path, capsys, part):
    words = {"text_encoder": "CLIPTextModel", "text_encoder_2": "T5EncoderModel", "vae": "VAE"}
    code, message = _said(capsys, "run", "--weights", folder / part, *RUN)
    assert (code, words[part] in message) == (2, True), message
    code, message = _said(capsys, "generate", "x", "--model", folder / part, *GENERATE, "-o", tmp_path / "x.png")
    assert (code, f"; give {folder}" in message) == (2, True), message


def test_a_download_is_advised_only_where_it_helps(folder, tmp_path, capsys):
    config = folder / "transformer/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "ChromaTransformer2DModel"}))
    _, message = _said(capsys, "generate", "x", "--model", folder, *GENERATE, "-o", tmp_path / "x.png")
    assert "Chroma" in message
    assert "Download" not in message
    (folder / f"vae/{STEM}.safetensors").unlink()
    _, message = _said(capsys, "generate", "x", "--model", folder, *GENERATE, "-o", tmp_path / "x.png")
    assert "Download the whole folder again" in message


def test_a_vae_by_the_originals_names_is_read_and_another_part_is_named(saved, folder):
    from benchmarks.flux_file import Weights, vae
    from fluxperf import Pipeline
    from fluxperf.errors import CheckpointError

    weights = folder / f"vae/{STEM}.safetensors"
    entries = vae(Weights(folder / "vae"))
    original = {one.name.removeprefix("vae."): one.numbers().reshape(one.shape).numpy() for one in entries}
    assert "decoder.mid.attn_1.norm.weight" in original
    save_file(original, weights)
    how = {"rung": "batched", "device": "host", "text_encoders": False}
    theirs, ours = (Pipeline.from_pretrained(one, **how) for one in (saved["schnell"].folder, folder))
    state = theirs.parts.vae().vae.state_dict()
    assert all((x == state[name]).all() for name, x in ours.parts.vae().vae.state_dict().items())
    theirs.close()
    ours.close()
    shutil.copy(folder / "text_encoder_2/model.safetensors", weights)
    with pytest.raises(CheckpointError, match="These seem to be T5's text encoder"):
        Pipeline.from_pretrained(folder, **how)


@pytest.fixture
def cached(folder, tmp_path):
    """A snapshot in the hub's cache, all of whose files are links to blobs."""
    root = tmp_path / "hub/models--black-forest-labs--FLUX.1-schnell"
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs/main").write_text(COMMIT)
    for number, file in enumerate(sorted(one for one in folder.rglob("*") if one.is_file())):
        blob, link = root / f"blobs/{number:064}", root / "snapshots" / COMMIT / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(file, blob)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return root / "snapshots" / COMMIT


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (f"transformer/{STEM}.safetensors", "a link to a file that does not exist: its download did not finish"),
        ("transformer/config.json", "is missing"),
    ],
)
def test_a_link_of_the_cache_to_nothing_is_reported(cached, tmp_path, capsys, file, says):
    blob = (cached / file).resolve()
    blob.rename(f"{blob}.incomplete")
    _alike(capsys, cached, tmp_path, says)


@pytest.mark.parametrize("place", [".", "..", "../../blobs", "../../refs"])
def test_places_of_the_cache_beside_a_snapshot_name_it(cached, tmp_path, capsys, place):
    given = Path(os.path.normpath(cached / place / ".." if place == "." else cached / place))
    _alike(capsys, given, tmp_path, f"the hub's cache folder of one model: give {cached}.")


def test_the_cache_itself_names_its_models(cached, tmp_path, capsys):
    _alike(
        capsys,
        cached.parents[2],
        tmp_path,
        "the hub's cache with black-forest-labs/FLUX.1-schnell. Give one of these models by",
    )


@pytest.mark.parametrize("option", ["--decode", "--embeddings"])
@pytest.mark.parametrize("kind", ["a LoRA", "a VAE", "GGUF", "a page", "a pointer", "nothing", "a download"])
def test_files_that_commands_write_are_distinguished_from_others(saved, tmp_path, capsys, option, kind):
    path = _written(tmp_path / "given.safetensors", FILES[kind][0])
    words = {"a LoRA": "a LoRA", "a VAE": "a VAE", "GGUF": "a GGUF file", "a page": "a web page"}
    words |= {"a pointer": "a git-lfs pointer", "nothing": "an empty file", "a download": "ends within its header"}
    place = ["--model", saved["schnell"].folder, *GENERATE, "-o", tmp_path / "x.png"]
    code, message = _said(capsys, "generate", option, path, *place)
    assert (code, words[kind] in message) == (2, True), message
    wrote = "--latents-out" if option == "--decode" else "--embeddings-out"
    assert f"fluxperf generate {wrote}" in message


@pytest.mark.parametrize("option", ["--decode", "--embeddings"])
def test_a_whole_checkpoint_is_not_read_as_latents_or_embeddings(saved, tmp_path, capsys, option, monkeypatch):
    """It may be larger than the memory, but its header suffices."""
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    weights = saved["schnell"].folder / f"transformer/{STEM}.safetensors"
    code, message = _said(capsys, "generate", option, weights, "--model", saved["schnell"].folder, *GENERATE)
    assert (code, "context_embedder.bias" in message) == (2, True), message


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("https://hub.example/black-forest-labs/FLUX.1-dev", "give the model's name on the hub (black-forest-labs/"),
        ("hf://black-forest-labs/FLUX.1-dev", "give the model's name on the hub (black-forest-labs/FLUX.1-dev)"),
        ("https://hub.example", "It looks like an address: give the model's name on the hub."),
        ("org/model/flux1.safetensors", "hf download org/model flux1.safetensors, then give it as --transformer"),
    ],
)  # fmt: skip
def test_an_address_says_what_to_give(tmp_path, capsys, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    code, message = _said(capsys, "generate", "x", "--model", given, *GENERATE)
    assert (code, says in message) == (2, True), message


def test_a_folder_as_a_file_says_where_it_belongs(saved, tmp_path, capsys):
    place = ["--model", saved["schnell"].folder, *GENERATE, "-o", tmp_path / "x.png"]
    code, message = _said(capsys, "generate", "x", "--transformer", saved["schnell"].folder, *place)
    assert (code, "found a folder. Give the folder of a whole model as --model" in message) == (2, True), message
    code, message = _said(capsys, "generate", "--decode", tmp_path, *place)
    assert (code, "got a folder. Give a file inside it" in message) == (2, True), message


def test_a_vocabulary_that_must_be_converted_first_says_so(folder, tmp_path, capsys):
    tokenizer = folder / "tokenizer_2"
    (tokenizer / "tokenizer.json").unlink()
    (tokenizer / "spiece.model").write_bytes(b"\x0a\x10none")
    code, message = _said(capsys, "generate", "x", "--model", folder, *GENERATE, "-o", tmp_path / "x.png")
    assert (code, "expected tokenizer.json, found only spiece.model" in message) == (2, True), message
    assert "download them again" not in message
