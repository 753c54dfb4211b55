"""Models by name: a planted cache, simulated downloads, and messages if neither helps. No network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fluxperf.errors import CheckpointError, ConfigError, UnknownNameError
from fluxperf.pipeline import hub
from fluxperf.pipeline.folder import open_folder
from fluxperf.pipeline.parts import needed

NAME, COMMIT, OLDER = "black-forest-labs/FLUX.1-schnell", "741f7c3ce8b383c54771c7003378a50191e9efe9", "0" * 40
PARTS = needed(text=True, vae=True)


def _snapshot(cache: Path, folder: Path, commit: str) -> Path:
    place = cache / f"models--{NAME.replace('/', '--')}" / "snapshots" / commit
    shutil.copytree(folder, place)
    return place


@pytest.fixture
def cache(saved, tmp_path, monkeypatch):
    """The hub's cache with two commits of a model, in a folder of the test; every download raises an error."""
    import huggingface_hub
    from huggingface_hub import constants

    where = tmp_path / "hub"
    refs = where / f"models--{NAME.replace('/', '--')}" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    (refs / "older").write_text(OLDER)
    for commit in (COMMIT, OLDER):
        _snapshot(where, saved["schnell"].folder, commit)
    real = huggingface_hub.snapshot_download

    def local(name, *, local_files_only=False, **options):
        if not local_files_only:
            raise AssertionError("expected no download")
        return real(name, local_files_only=True, cache_dir=where, **options)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", local)
    return where


def _downloading(monkeypatch, download):
    """Files that are not in the cache come from a stand-in, which records the requests."""
    import huggingface_hub

    local = huggingface_hub.snapshot_download

    def either(name, **options):
        return local(name, **options) if options.get("local_files_only") else download(name, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", either)


def test_a_name_is_found_in_the_cache_with_its_commit(cache):
    folder = open_folder(hub.found(NAME, PARTS))
    assert folder.name == f"{NAME}@{COMMIT[:12]}"


@pytest.mark.parametrize("revision", ["older", OLDER])
def test_a_revision_is_a_name_or_a_commit(cache, revision):
    assert hub.found(NAME, PARTS, revision).name == OLDER


def test_a_picture_of_a_name_tells_the_commit(cache):
    import fluxperf

    pipeline = fluxperf.Pipeline.from_pretrained(NAME, revision="older", rung="batched", device="host")
    seen, inner = [], pipeline.generation.batch
    pipeline.generation.batch = lambda *a, **k: seen.append(inner(*a, **k)) or seen[-1]
    pipeline("a fox", seed=1, height=16, width=16, num_inference_steps=1, max_sequence_length=8)
    assert seen[0].metadata[0]["model"].startswith(f"{NAME}@{OLDER[:12]}")
    pipeline.close()
    pipeline.close()


def test_a_path_is_a_path(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org/model").mkdir(parents=True)
    assert hub.found("org/model", PARTS) == Path("org/model")
    assert hub.found("FLUX.1-schnell", PARTS) == Path("FLUX.1-schnell"), "no name of the hub"
    with pytest.raises(ConfigError, match="name on the hub"):
        hub.found(saved["schnell"].folder, PARTS, "main")


def test_what_is_not_there_is_downloaded_without_the_single_file(cache, monkeypatch, saved):
    from fnmatch import fnmatch

    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(_snapshot(cache.parent / "new", saved["schnell"].folder, COMMIT))

    _downloading(monkeypatch, download)
    place = hub.found("org/other", needed(text=False, vae=True))
    assert place.name == COMMIT
    assert asked["name"] == "org/other"

    def wanted(file):
        return any(fnmatch(file, pattern) for pattern in asked["allow_patterns"])

    assert wanted("model_index.json")
    assert wanted("transformer/diffusion_pytorch_model-00001-of-00003.safetensors")
    assert wanted("vae/config.json")
    assert not wanted("text_encoder_2/model.safetensors")
    assert not wanted("flux1-schnell.safetensors")
    assert not wanted("transformer/model.onnx")


def test_a_snapshot_that_is_not_whole_is_completed(cache, monkeypatch):
    snapshot = cache / f"models--{NAME.replace('/', '--')}" / "snapshots" / COMMIT
    weights = snapshot / "vae/diffusion_pytorch_model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()

    def download(name, **options):
        weights.write_bytes(kept)
        return str(snapshot)

    _downloading(monkeypatch, download)
    assert hub.found(NAME, PARTS) == snapshot
    assert weights.is_file()


def _failure(kind):
    import httpx2 as httpx
    from huggingface_hub import errors

    request = httpx.Request("GET", "https://hub.example/model")
    if kind in ("GatedRepoError", "RepositoryNotFoundError", "RevisionNotFoundError"):
        return getattr(errors, kind)("no", response=httpx.Response(403, request=request))
    return {"network": httpx.ConnectError("no route to host"), "disk": OSError(28, "No space left on device")}[kind]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("GatedRepoError", "it is gated: accept its license"),
        ("RepositoryNotFoundError", "no such model, or it is private"),
        ("RevisionNotFoundError", "no such revision"),
        ("network", "it cannot be downloaded (no route to host)"),
        ("disk", "No space left on device"),
    ],
)
def test_a_download_that_fails_says_why_and_what_to_do(cache, monkeypatch, kind, says):
    pytest.importorskip("httpx2", reason="the hub's library has another client")

    def download(name, **options):
        raise _failure(kind)

    _downloading(monkeypatch, download)
    with pytest.raises(CheckpointError) as error:
        hub.found("org/other", PARTS, "v2")
    assert says in str(error.value)
    assert "org/other, revision 'v2': the local cache does not have it" in str(error.value)


def test_offline_nothing_is_downloaded(cache, monkeypatch):
    from huggingface_hub import constants

    with pytest.raises(CheckpointError, match="Downloads are off"):
        hub.found("org/other", PARTS, local_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="Downloads are off"):
        hub.found("org/other", PARTS)
    assert hub.found(NAME, PARTS).name == COMMIT


def test_the_command_takes_a_name(cache, tmp_path, capsys):
    from fluxperf.cli import main
    from tests.pipeline.conftest import opened

    picture = tmp_path / "fox.png"
    arguments = ["--height", "16", "--width", "16", "--steps", "1", "--max-sequence-length", "8", "--rung", "batched"]
    with pytest.raises(SystemExit) as end:
        main(["generate", "a fox", "-m", NAME, "--device", "host", "--seed", "1", "-o", str(picture), *arguments])
    assert not end.value.code, capsys.readouterr().err
    assert opened(picture.read_bytes()).text["model"].startswith(f"{NAME}@{COMMIT[:12]}")


@pytest.mark.parametrize("kind", [[], ["--end-to-end"]])
def test_run_takes_a_name_and_its_record_tells_the_commit(cache, tmp_path, capsys, kind):
    from fluxperf.cli import main
    from fluxperf.harness.records import read_records

    records = tmp_path / "records.jsonl"
    sizes = ["--height", "16", "--width", "16", "--steps", "1", "--text-tokens", "8", "--repeat", "1", "--warmup", "0"]
    how = ["--rung", "batched", "--device", "host", "--revision", "older", *sizes, *kind, "-o", str(records)]
    with pytest.raises(SystemExit) as end:
        main(["run", "--weights", NAME, *how])
    assert not end.value.code, capsys.readouterr().err
    assert read_records(records).records[0].workload.weights.startswith(f"{NAME}@{OLDER[:12]}")


def test_a_misspelt_path_is_no_name(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for path in ("models/FLUX.1-schnel", "weights/flux1.safetensors"):
        assert hub.found(path, PARTS) == Path(path)


def test_a_revision_without_weights_is_refused(capsys):
    from fluxperf.cli import main

    with pytest.raises(SystemExit) as end:
        main(["run", "--revision", "main", "--device", "host"])
    assert end.value.code == 2
    assert "expected --weights as well" in " ".join(capsys.readouterr().err.split())


def test_dtypes_may_be_objects_and_have_two_names(saved):
    import torch

    import fluxperf

    def made(**options):
        pipeline = fluxperf.Pipeline.from_pretrained(saved["schnell"].folder, rung="batched", device="host", **options)
        pipeline.close()
        return pipeline.parts.dtype

    assert made(torch_dtype=torch.bfloat16, use_safetensors=True, low_cpu_mem_usage=False) == "bfloat16"
    assert made(dtype="bfloat16", torch_dtype=torch.bfloat16, text_encoders=False) == "bfloat16"
    with pytest.raises(ConfigError, match="expected one of them, got bfloat16 and float32"):
        made(dtype="float32", torch_dtype=torch.bfloat16)
    with pytest.raises(UnknownNameError, match="float16"):
        made(torch_dtype=torch.float16)
    with pytest.raises(ConfigError, match="device_map"):
        made(device_map="balanced")
    with pytest.raises(UnknownNameError, match="rung"):
        made(rungs="fp8")


def test_a_variant_is_read_where_there_is_one(saved, tmp_path):
    import fluxperf

    shutil.copytree(saved["schnell"].folder, tmp_path / "m")
    for part in ("transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
        (tmp_path / f"m/{part}.safetensors").rename(tmp_path / f"m/{part}.fp16.safetensors")
    how = {"rung": "batched", "device": "host", "text_encoders": False}
    with pytest.raises(CheckpointError, match=r"select it \(variant 'fp16'\)"):
        fluxperf.Pipeline.from_pretrained(tmp_path / "m", **how)
    fluxperf.Pipeline.from_pretrained(tmp_path / "m", variant="fp16", **how).close()


def test_a_single_file_takes_the_place_of_the_folders_transformer(saved, tmp_path):
    """A folder without a transformer of its own; the picture is the same, and its metadata name the file."""
    import fluxperf

    shutil.copytree(saved["schnell"].folder, tmp_path / "m")
    shutil.move(tmp_path / "m/transformer", tmp_path / "transformer")
    file = tmp_path / "transformer/diffusion_pytorch_model.safetensors"
    pictures = []
    for folder, options in ((saved["schnell"].folder, {}), (tmp_path / "m", {"transformer": file})):
        pipeline = fluxperf.Pipeline.from_pretrained(folder, rung="batched", device="host", **options)
        seen, inner = [], pipeline.generation.batch
        pipeline.generation.batch = lambda *a, seen=seen, inner=inner, **k: seen.append(inner(*a, **k)) or seen[-1]
        pipeline("a fox", seed=1, height=16, width=16, num_inference_steps=1, max_sequence_length=8)
        pictures.append(seen[0])
        pipeline.close()
    assert (pictures[0].pixels == pictures[1].pixels).all()
    assert pictures[1].metadata[0]["transformer"] == file.name
    assert "transformer" not in pictures[0].metadata[0]
