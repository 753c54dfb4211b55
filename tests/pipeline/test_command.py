"""``fluxperf generate`` and ``fluxperf run --end-to-end`` as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fluxperf.harness.records import read_records
from fluxperf.pipeline.latents import load_latents
from tests.cli.conftest import fluxperf  # noqa: F401 (a fixture)
from tests.pipeline.conftest import opened

pytestmark = pytest.mark.peer

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--height", "64", "--width", "96", "--device", "host", "--rung", "batched", "--max-sequence-length", "48")


@pytest.fixture
def generate(fluxperf, saved, tmp_path, monkeypatch):  # noqa: F811
    """Runs the command on a model in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(*arguments, model="schnell", sizes=SMALL):
        return fluxperf("generate", *arguments, "--model", saved[model].folder, *sizes)

    return call


def _pixels(path):
    return np.asarray(opened(Path(path).read_bytes())).astype(int)


def test_a_prompt_becomes_a_file_with_what_made_it(generate, pipeline_of):
    result = generate("a red fox", "--seed", "7", "--steps", "2")
    assert result.code == 0, result.err
    assert result.out.startswith("out.png: 96 x 64, seed 7, 2 steps of ")
    for stage in ("text_encode", "noise", "denoise", "vae_decode", "png"):
        assert f"{stage} " in result.out
    assert "ready in" in result.err
    assert "transformer 1.9 MB in" in result.err
    image = opened(Path("out.png").read_bytes())
    assert image.size == (96, 64)
    assert image.text == {
        "Software": "fluxperf 0.1.0",
        "model": "FLUX.1-schnell (tiny)",
        "rung": "batched",
        "device": "host",
        "size": "96 x 64",
        "steps": "2",
        "text_tokens": "48",
        "noise": "torch.Generator('cpu'), drawn in float32",
        "text_encoders": "float32",
        "vae": "float32",
        "prompt": "a red fox",
        "seed": "7",
    }
    ours = pipeline_of("schnell", "batched")(
        "a red fox", seed=7, num_inference_steps=2, height=64, width=96, max_sequence_length=48
    )
    assert np.array_equal(_pixels("out.png"), np.asarray(ours.images[0]).astype(int))


def test_a_rerun_with_what_the_file_says_gives_the_same_picture(generate):
    assert generate("a red fox", "--steps", "1", "-o", "first.png", model="dev").code == 0
    texts = opened(Path("first.png").read_bytes()).text
    assert texts["guidance"] == "3.5"
    assert generate(texts["prompt"], "--steps", "1", "--seed", texts["seed"], "-o", "again.png", model="dev").code == 0
    assert np.array_equal(_pixels("first.png"), _pixels("again.png"))


def test_several_pictures_have_files_and_seeds_of_their_own(generate):
    result = generate("a red fox", "--seed", "7", "--steps", "1", "--num-images", "2", "-o", "fox.png")
    assert result.code == 0, result.err
    assert sorted(os.listdir()) == ["fox-0001.png", "fox-0002.png"]
    assert generate("a red fox", "--seed", "8", "--steps", "1", "-o", "alone.png").code == 0
    assert np.array_equal(_pixels("fox-0002.png"), _pixels("alone.png"))
    assert opened(Path("fox-0002.png").read_bytes()).text["seed"] == "8"


def test_a_file_of_prompts(generate):
    Path("prompts.txt").write_text("# animals\na red fox\n\n  two cats  \n", encoding="utf-8")
    result = generate("--prompts", "prompts.txt", "--seed", "7", "--steps", "1", "-o", "pictures/")
    assert result.code == 0, result.err
    assert sorted(os.listdir("pictures")) == ["0001.png", "0002.png"]
    assert opened(Path("pictures/0002.png").read_bytes()).text["prompt"] == "two cats"
    assert generate("two cats", "--seed", "7", "--steps", "1", "-o", "alone.png").code == 0
    assert np.array_equal(_pixels("pictures/0002.png"), _pixels("alone.png")), "no line depends on another"


@pytest.mark.parametrize("keeping", ["offload", "free"])
def test_t5_is_read_once_for_a_file_of_prompts(generate, monkeypatch, keeping):
    from fluxperf.pipeline.modules import T5, Plan

    loads = []
    real = Plan.load
    monkeypatch.setattr(
        Plan, "load", lambda plan, *rest: (loads.append(1) if plan.kind is T5 else None) or real(plan, *rest)
    )
    Path("prompts.txt").write_text("a red fox\ntwo cats\na lighthouse\n", encoding="utf-8")
    result = generate("--prompts", "prompts.txt", "--steps", "1", "--t5", keeping, "-o", "pictures/")
    assert result.code == 0, result.err
    assert len(loads) == 1


def test_lines_of_json_say_what_differs(generate):
    lines = [{"prompt": "a red fox", "seed": 3, "steps": 2}, {"prompt": "two cats", "height": 32, "output": "cats.png"}]
    Path("prompts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = generate("--prompts", "prompts.jsonl", "--seed", "7", "--steps", "1", "-o", "pictures/")
    assert result.code == 0, result.err
    first, second = (opened(Path("pictures", name).read_bytes()) for name in ("0001.png", "cats.png"))
    assert (first.text["seed"], first.text["steps"], first.size) == ("3", "2", (96, 64))
    assert (second.text["seed"], second.text["steps"], second.size) == ("7", "1", (96, 32))


def test_text_transformer_and_picture_on_three_machines(generate):
    assert generate("a red fox", "--embeddings-out", "fox.safetensors", sizes=("--device", "host")).code == 0
    assert os.listdir() == ["fox.safetensors"]
    made = generate("--embeddings", "fox.safetensors", "--latents-out", "latents.safetensors", "--seed", "7")
    assert made.code == 0, made.err
    assert sorted(os.listdir()) == ["fox.safetensors", "latents.safetensors"]
    decoded = generate("--decode", "latents.safetensors", "-o", "fox.png", sizes=("--device", "host"))
    assert decoded.code == 0, decoded.err
    texts = opened(Path("fox.png").read_bytes()).text
    assert (texts["prompt"], texts["noise"], texts["size"]) == ("a red fox", "NumPy PCG64", "96 x 64")
    assert _pixels("fox.png").std() > 20


def test_a_long_prompt_is_cut_and_that_is_said(generate):
    result = generate(" ".join(["word"] * 2000), "--steps", "1")
    assert result.code == 0, result.err
    assert "note: T5 takes 48 tokens, the prompt 'word word" in result.err
    assert "note: CLIP takes 77 tokens" in result.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "expected exactly one of PROMPT, --prompts, --embeddings, --decode, got none"),
        (("a fox", "--decode", "x"), "got PROMPT and --decode"),
        (("",), "prompt: expected words that describe a picture, got an empty text"),
        (("a fox", "--height", "1000"), "--height 1000: expected a positive multiple of 16"),
        (("a fox", "-o", "fox.jpg"), "-o fox.jpg: expected a name that ends in .png"),
        (("a fox", "-o", "blocked/fox.png"), "cannot write blocked/fox.png"),
        (("a fox", "--rung", "fastest"), "unknown rung 'fastest'"),
        (("a fox", "--t5", "drop"), "unknown t5 'drop'"),
        (("a fox", "--noise-from", "gpu"), "unknown noise_from 'gpu'"),
        (("--prompts", "none.txt"), "none.txt: expected a text file of prompts"),
        (("--prompts", "empty.txt"), "empty.txt: expected prompts, one per line, found none"),
        (("--prompts", "bad.jsonl"), "bad.jsonl, line 2: expected an object with prompt"),
        (("--prompts", "flat.jsonl"), "--height 0: expected a positive multiple of 16"),
        (("--prompts", "twice.jsonl", "-o", "d/"), "expected a different file for each picture, got this one for two"),
        (("--embeddings", "empty.txt"), "expected prompt_embeds and pooled_prompt_embeds, as"),
        (("--decode", "empty.txt"), "expected latents written by fluxperf generate --latents-out"),
        (
            ("a fox", "--model", "nowhere"),
            "nowhere: expected a diffusers model folder, but there is nothing at this path",
        ),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(fluxperf, saved, tmp_path, monkeypatch, arguments, says):  # noqa: F811
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("blocked").write_text("a file where a folder should be")
    Path("empty.txt").write_text("\n")
    Path("bad.jsonl").write_text('{"prompt": "a fox"}\n{"promt": "a fox"}\n')
    Path("flat.jsonl").write_text('{"prompt": "a fox", "height": 0}')
    Path("twice.jsonl").write_text('{"prompt": "a", "output": "x.png"}\n{"prompt": "b", "output": "x.png"}\n')
    before = sorted(os.listdir())
    model = () if "--model" in arguments else ("--model", saved["schnell"].folder)
    result = fluxperf("generate", *arguments, *model, "--device", "host")
    assert result.code == 2
    assert says in result.err
    assert "Traceback" not in result.err
    assert [name for name in sorted(os.listdir()) if name != "d"] == before


@pytest.mark.parametrize("command", ["generate", "run"])
def test_help_names_the_extra(fluxperf, command, monkeypatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "200")
    result = fluxperf(command, "--help")
    assert result.code == 0
    assert 'extra "pipeline"' in " ".join(result.out.split())


def test_without_a_model_it_says_so(fluxperf):  # noqa: F811
    result = fluxperf("generate", "a fox")
    assert (result.code, "expected --model" in result.err) == (2, True)


def test_a_full_disk_is_one_message(generate, monkeypatch):
    import errno

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fluxperf.files.os.replace", full)
    result = generate("a fox", "--steps", "1")
    assert result.code == 2
    assert "cannot write out.png: No space left on device" in result.err
    assert os.listdir() == []


def test_an_interrupt_leaves_whole_files_only(saved, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red fox\n" * 3, encoding="utf-8")
    out = tmp_path / "pictures"
    command = [
        sys.executable, "-m", "fluxperf", "generate", "--prompts", str(tmp_path / "prompts.txt"), "-o", f"{out}/",
        "--model", str(saved["dev"].folder), *SMALL, "--steps", "60",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while not (out / "0001.png").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130, told
    found = sorted(item.name for item in out.iterdir())
    assert f"stopped by SIGINT. {len(found)} of 3 pictures are finished. No partial file is left." in told
    assert found in (["0001.png"], ["0001.png", "0002.png"])
    for name in found:
        opened((out / name).read_bytes())


def test_an_interrupt_behind_a_file_counts_it(generate, monkeypatch):
    from fluxperf.cli import pictures

    Path("prompts.txt").write_text("a red fox\n" * 3, encoding="utf-8")
    Path("d").mkdir()
    Path("d/0003.png").write_bytes(b"an older one")
    told = []

    def interrupted(made):
        told.append(made)
        if len(told) == 2:
            raise KeyboardInterrupt
        return "told"

    monkeypatch.setattr(pictures, "_told", interrupted)
    result = generate("--prompts", "prompts.txt", "-o", "d/", "--steps", "1")
    assert result.code == 130
    assert "stopped by SIGINT. 2 of 3 pictures are finished. No partial file is left." in result.err
    assert Path("d/0003.png").read_bytes() == b"an older one"


BLOCKED = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "diffusers", "PIL", "tokenizers"}:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Blocker())
sys.argv = ["fluxperf", *sys.argv[1:]]
from fluxperf.cli import main
main()
"""


def _without_pytorch(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *map(str, arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def test_without_pytorch_latents_are_made_and_pictures_refused_with_the_extra_named(generate, saved, tmp_path):
    embeddings = tmp_path / "fox.safetensors"
    assert generate("a red fox", "--embeddings-out", embeddings, sizes=("--device", "host")).code == 0
    model = ("--model", saved["schnell"].folder)
    made = _without_pytorch(
        tmp_path, "generate", "--embeddings", embeddings, *model, *SMALL, "--seed", 7, "--latents-out", "l.safetensors"
    )
    assert made.returncode == 0, made.stderr
    assert generate("--embeddings", embeddings, "--seed", "7", "--latents-out", "with.safetensors").code == 0
    ours, theirs = (load_latents(path) for path in (tmp_path / "l.safetensors", Path("with.safetensors")))
    assert np.array_equal(ours[0], theirs[0]), "PyTorch adds nothing"
    assert ours[1:] == theirs[1:]
    for arguments in (("a red fox",), ("--embeddings", embeddings), ("--decode", "l.safetensors", "-o", "out.png")):
        refused = _without_pytorch(tmp_path, "generate", *arguments, *model, *SMALL)
        assert refused.returncode == 2, refused.stdout
        assert "expected torch, but it cannot be imported (torch is not installed)" in refused.stderr
        assert "[pipeline]" in refused.stderr
        assert "--embeddings FILE --latents-out FILE" in refused.stderr
        assert not (tmp_path / "out.png").exists()


def test_end_to_end_is_recorded_with_its_stages(fluxperf, saved, tmp_path):  # noqa: F811
    path = tmp_path / "records.jsonl"
    sizes = ("--height", "64", "--width", "96", "--text-tokens", "48", "--steps", "3")
    result = fluxperf(
        "run", "--end-to-end", "--weights", saved["dev"].folder, "--rung", "batched", "--rung", "fp8", *sizes,
        "--repeat", "2", "--warmup", "1", "--device", "host", "-o", path,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "prompt to PNG: 64 x 96 pixels" in result.out
    records = read_records(path).records
    assert [record.rung for record in records] == ["batched", "fp8"]
    for record in records:
        stages = {row.stage: row for row in record.stages}
        assert list(stages) == ["text_encode", "noise", "denoise", "vae_decode", "png"]
        assert [len(record.times_s[name][0]) for name in ("picture", *stages, "step")] == [2, 2, 2, 2, 2, 2, 6]
        for index in range(2):
            whole = record.times_s["picture"][0][index]
            assert 0 < sum(record.times_s[name][0][index] for name in stages) <= whole
        crossed = {name: (row.h2d_copies, row.d2h_copies) for name, row in stages.items()}
        assert crossed == {
            "text_encode": (2, 0), "noise": (0, 0), "denoise": (0, 0), "vae_decode": (0, 1), "png": (0, 0)
        }  # fmt: skip
        assert stages["vae_decode"].d2h_bytes == 64 * 96 * 3 + 1
        assert record.settings["end_to_end"] == "prompt to PNG"
        assert (record.totals.d2h_copies, record.totals.h2d_copies) == (0, 0)
        assert record.loads.keys() == {"transformer", "text_encoders", "vae", "ready"}
        assert record.loads["ready"].time_s >= record.loads["transformer"].time_s > 0
        assert record.workload.weights == "FLUX.1-dev (tiny-dev)"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "expected --weights DIR, the folder of a whole pipeline, got none"),
        (("--weights", "nowhere"), "nowhere: expected a diffusers model folder"),
    ],
)
def test_end_to_end_needs_a_whole_pipeline(fluxperf, options, says):  # noqa: F811
    result = fluxperf("run", "--end-to-end", "--device", "host", "--rung", "fused", *options)
    assert result.code == 2
    assert says in result.err


def test_a_memory_budget_is_reported_and_gives_the_same_picture(generate):
    sizes = (*SMALL[:6], "--rung", "captured", *SMALL[8:])
    options = ("a red fox", "--seed", "7", "--steps", "2")
    assert generate(*options, "-o", "whole.png", sizes=sizes).code == 0
    refused = generate(*options, "--memory-gb", "0.001", "-o", "none.png", sizes=sizes)
    assert refused.code == 2
    assert not Path("none.png").exists()
    least = " ".join(refused.err.split()).partition("expected at least ")[2].split()[0]
    result = generate(*options, "--memory-gb", least, "-o", "streamed.png", sizes=sizes)
    assert result.code == 0, result.err
    assert f"memory budget of {float(least):g} GB: " in result.err
    assert "are streamed in each step" in result.err
    assert (_pixels("streamed.png") == _pixels("whole.png")).all()
