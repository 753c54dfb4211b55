"""The end-to-end benchmark in its tiny form: it runs, and writes its results."""

from __future__ import annotations

import json
import warnings

import pytest

from fluxperf.harness.records import IN_TURNS_WITH, read_records
from fluxperf.pipeline.folder import open_folder

pytestmark = pytest.mark.peer


def test_it_measures_rungs_beside_diffusers_in_one_run(saved, tmp_path, monkeypatch):
    from benchmarks import end_to_end

    folder, output = tmp_path / "model", tmp_path / "out" / "end-to-end.json"
    options = "--model tiny-dev --workload tiny --device host --rung batched --rung fused --peer diffusers --repeat 2"
    places = ["--folder", str(folder), "-o", str(output)]
    monkeypatch.setattr("sys.argv", ["end_to_end", *options.split(), *places])
    with warnings.catch_warnings():
        end_to_end.main()
    open_folder(folder)
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["workload"]["model"] == "tiny-dev"
    assert result["folder_bytes"] == sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    first, last = result["rungs"]
    assert (first["rung"], first["peers"], last["rung"]) == ("batched", [], "fused")
    for row in (first, last):
        assert row["loads"].keys() == {"transformer", "text_encoders", "vae", "ready"}
        assert list(row["pictures_s"]) == [
            "first", "again", "another prompt", "96 x 160, first", "96 x 160, again"
        ]  # fmt: skip
    (peer,) = last["peers"]
    assert (peer["name"], peer["form"]) == ("diffusers", "eager")
    assert len(peer["picture_s"]) == len(peer["fluxperf_picture_s"]) == 2
    assert peer["stages_s"].keys() == {"text_encode", "denoise", "vae_decode", "png"}
    assert peer["psnr_db"] > 25, "the same noise and prompt; both in bfloat16"
    records = read_records(output.with_suffix(".jsonl")).records
    assert [record.rung for record in records] == ["batched", "fused", "fused"]
    assert [record.settings.get(IN_TURNS_WITH) for record in records] == [None, None, "diffusers"]
    assert all(record.workload.weights == "model (tiny-dev)" for record in records)


def test_shards_of_the_folder_are_those_of_its_index(tmp_path):
    pytest.importorskip("diffusers")
    import dataclasses

    import torch
    from diffusers import FluxTransformer2DModel
    from transformers import T5EncoderModel

    from benchmarks.flux_folder import TINY, write
    from fluxperf.engine.config import config_named

    folder = write(tmp_path / "m", config_named("tiny"), dataclasses.replace(TINY, shards=3), torch.float32, seed=5)
    assert len(list((folder / "transformer").glob("*-of-00003.safetensors"))) == 3
    assert len(list((folder / "text_encoder_2").glob("*-of-00002.safetensors"))) == 2
    open_folder(folder)
    whole = write(tmp_path / "whole", config_named("tiny"), TINY, torch.float32, seed=5)
    for kind, part in ((FluxTransformer2DModel, "transformer"), (T5EncoderModel, "text_encoder_2")):
        options = {"low_cpu_mem_usage": False} if part == "transformer" else {}
        first, second = (kind.from_pretrained(one / part, **options).state_dict() for one in (folder, whole))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_picture_from_one_file_that_was_written_from_drawn_numbers(tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    from benchmarks import from_file

    output = tmp_path / "out" / "file.json"
    options = "--model tiny --workload tiny --device host --rung fp8 --rung fused --repeat 1"
    monkeypatch.setattr("sys.argv", ["from_file", *options.split(), "--folder", str(tmp_path), "-o", str(output)])
    with warnings.catch_warnings():
        from_file.main()
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["file_bytes"] == (tmp_path / "tiny-e4m3.safetensors").stat().st_size
    assert not list((tmp_path / "tiny").glob("*/*.safetensors")), "all numbers are those of the file"
    assert [row["rung"] for row in result["rungs"]] == ["fp8", "fused"]
    for row in result["rungs"]:
        assert [load["cache"] for load in row["loads"]] == ["cold", "warm"]
        assert all(load["ready"]["gb_s"] > 0 for load in row["loads"])
        assert max(row["weights_apart"].values()) <= (0 if row["rung"] == "fp8" else 2**-8)
        assert row["same_picture_twice"]
    assert result["psnr_db"][0] > 15
    records = read_records(output.with_suffix(".jsonl")).records
    assert [record.workload.weights for record in records] == ["tiny-e4m3.safetensors (tiny)"] * 2
