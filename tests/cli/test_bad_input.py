"""Bad input: one message says what was expected, what was found and what to do; the exit code is 2, and no partial file
remains.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from fluxperf.engine.phases import PHASES
from fluxperf.workloads import WORKLOADS

GPU = "expected an NVIDIA GPU with a working driver"

QUICK = ("--rung", "captured", "--repeat", "1", "--steps", "1")


def complains(result, *phrases):
    assert result.code == 2
    assert "Traceback" not in result.out + result.err
    text = " ".join(result.err.split())
    for phrase in phrases:
        assert phrase in text, text


@pytest.mark.parametrize(
    ("arguments", "phrases"),
    [
        (("--workload", "shnell-1024"), ("unknown workload 'shnell-1024'", "Did you mean 'schnell-1024'?", *WORKLOADS)),
        (("--rung", "fussed"), ("unknown rung 'fussed'", "Did you mean 'fused'?", *(phase.name for phase in PHASES))),
        (("--device", "gpu"), ("unknown device 'gpu'", "auto, host, cuda")),
        (("--device", "cuda"), ("device 'cuda'", "expected", "--device host")),
        (("--height", "100"), ("--height 100", "multiple of 16", "use 96")),
        (("--width", "-32"), ("--width -32", "positive multiple of 16", "use 16")),
        (("--height", "0"), ("--height 0", "use 16")),
        (("--text-tokens", "0"), ("--text-tokens 0", "at least 1")),
        (("--steps", "0"), ("--steps 0", "at least 1")),
        (("--batch", "0"), ("--batch 0", "at least 1")),
        (("--all", "--rung", "fused"), ("either --all or --rung", "Leave one out")),
        (("--peer", "nope"), ("unknown peer 'nope'", "diffusers, diffusers-compiled, diffusers-fp8")),
        (("--peer", "diffusers-fp9"), ("unknown peer 'diffusers-fp9'", "Did you mean 'diffusers-fp8'?")),
        (
            ("--peer", "diffusers", "--device", "host"),
            (f"run --peer diffusers: {GPU}, found device 'host'", "Leave out --peer"),
        ),
        (
            ("--witness", "--device", "host"),
            (f"run --witness: {GPU}, found device 'host'", "the ledger has the counts"),
        ),
        (("--workload", "schnell-1024"), ("schnell", "47.6 GB", "Use a smaller workload")),
    ],
)
def test_run_refuses(fluxperf, tmp_path, arguments, phrases):
    records = tmp_path / "records.jsonl"
    complains(fluxperf("run", *arguments, "-o", records), *phrases)
    assert not records.exists()


@pytest.mark.parametrize("arguments", [("--repeat", "0"), ("--repeat", "many"), ("--nonsense",)])
def test_usage_errors_exit_with_2(fluxperf, arguments):
    result = fluxperf("run", *arguments)
    assert result.code == 2
    assert "Traceback" not in result.err


def test_weights_that_are_not_there(fluxperf, tmp_path):
    complains(fluxperf("run", "--weights", tmp_path / "none"), "expected a diffusers folder or a safetensors file")


def test_weights_of_another_model(fluxperf, tmp_path):
    path = tmp_path / "vae.safetensors"
    save_file({"decoder.conv_in.weight": np.ones((4, 4), np.float32)}, path)
    complains(fluxperf("run", "--weights", path), "expected the tensors of FLUX.1", "decoder.conv_in.weight", "VAE")


def test_records_folder_that_cannot_be_written(fluxperf, tmp_path):
    (tmp_path / "file").write_text("")
    complains(fluxperf("run", *QUICK, "-o", tmp_path / "file" / "records.jsonl"), "cannot write", "Choose another")


@pytest.fixture
def records(fluxperf, tmp_path):
    path = tmp_path / "records.jsonl"
    assert fluxperf("run", *QUICK, "-o", path).code == 0
    return path


def test_report_skips_and_names_a_torn_last_line(fluxperf, records, tmp_path):
    whole = records.read_bytes()
    records.write_bytes(whole + whole[: len(whole) // 2])
    page = tmp_path / "page.html"
    complains(fluxperf("report", records, "-o", page), "line 2", "incomplete", "measure that rung again")
    assert "captured" in page.read_text(encoding="utf-8")


def test_a_run_takes_the_place_of_a_torn_line(fluxperf, records):
    whole = records.read_bytes()
    records.write_bytes(whole + whole[:-200])
    assert fluxperf("run", *QUICK, "-o", records).code == 0
    first, second = records.read_bytes().splitlines(keepends=True)
    assert first == whole
    assert json.loads(second)["rung"] == "captured"


def test_report_refuses_another_schema(fluxperf, records, tmp_path):
    other = {**json.loads(records.read_text()), "schema": 7}
    records.write_text(json.dumps(other) + "\n")
    page = tmp_path / "page.html"
    complains(
        fluxperf("report", records, "-o", page),
        "expected schema 1, got schema 7",
        "read it with the version of fluxperf",
    )
    assert not page.exists()


@pytest.mark.parametrize(
    ("content", "phrase"), [("", "is empty"), ("hello\n", "not JSON"), ("{}\n", "integer 'schema'")]
)
def test_report_refuses_files_without_records(fluxperf, tmp_path, content, phrase):
    path = tmp_path / "records.jsonl"
    path.write_text(content)
    complains(fluxperf("report", path), phrase, "fluxperf run")


def test_report_refuses_a_missing_file_and_an_empty_folder(fluxperf, tmp_path, monkeypatch):
    complains(fluxperf("report", tmp_path / "none.jsonl"), "cannot read records", "fluxperf run")
    complains(fluxperf("report", tmp_path), "no .jsonl file", "fluxperf run")
    monkeypatch.chdir(tmp_path)
    complains(fluxperf("report"), "expected records files, got none")


def test_unknown_names_in_the_other_commands(fluxperf):
    complains(fluxperf("phases", "--rung", "fast"), "unknown rung 'fast'", "baseline")
    complains(fluxperf("ops", "layernorm"), "unknown op 'layernorm'", "Did you mean 'layer_norm'?")


def test_a_gpu_that_is_not_there_is_one_message_and_exit_code_2(fluxperf, monkeypatch):
    from fluxperf.engine.device import gpu
    from fluxperf.errors import DeviceError

    def missing():
        raise DeviceError("device 'cuda': expected CuPy, but it does not import. Use --device host.")

    monkeypatch.setattr(gpu, "cupy", missing)
    result = fluxperf("run", "--workload", "tiny", "--device", "cuda")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("fluxperf: device 'cuda': expected CuPy")
    assert "Traceback" not in result.err


@pytest.fixture
def without_gpu(monkeypatch):
    """A machine with CuPy but without a driver, whatever the test machine has."""
    from fluxperf.engine.device import gpu
    from fluxperf.harness.timeline import driver

    class CudaRuntimeError(RuntimeError):
        pass

    def refused(*_):
        raise CudaRuntimeError("cudaErrorInsufficientDriver")

    runtime = SimpleNamespace(CUDARuntimeError=CudaRuntimeError, getDeviceCount=refused, getDeviceProperties=refused)
    cupy = SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, Device=refused))
    monkeypatch.setattr(gpu, "cupy", lambda: cupy)
    monkeypatch.setattr(driver, "device_count", lambda: 0)
    monkeypatch.setitem(sys.modules, "cupti", None)
    monkeypatch.setattr("fluxperf.cli.doctor.driver", lambda: None)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        (("run", "--device", "cuda"), "device 'cuda'"),
        (("run", "--peer", "diffusers"), "run --peer diffusers"),
        (("run", "--witness"), "run --witness"),
        (("kernels",), "kernels"),
        (("profile", "--tool", "cupti"), "profile"),
        (("witness", "--", "python", "-c", "pass"), "witness"),
    ],
)
def test_every_command_says_in_the_same_words_that_there_is_no_gpu(fluxperf, without_gpu, command, asked):
    complains(fluxperf(*command), f"fluxperf: {asked}: {GPU}, found none", "Check `nvidia-smi`", "`fluxperf doctor`")


def test_kernels_names_the_gpu_first_where_cupy_is_missing_too(fluxperf, without_gpu, monkeypatch):
    from fluxperf.engine.device import gpu
    from fluxperf.errors import DeviceError

    def missing() -> None:
        raise DeviceError("expected CuPy, or use --device host.")

    monkeypatch.setattr(gpu, "cupy", missing)
    result = fluxperf("kernels")
    complains(result, f"fluxperf: kernels: {GPU}, found none")
    assert "--device" not in result.err


def test_doctor_says_it_in_those_words_too(fluxperf, without_gpu):
    assert "No NVIDIA GPU with a working driver: rungs run as host twins." in fluxperf("doctor").out


def test_a_file_of_something_else_is_recognized_by_its_first_lines(fluxperf, tmp_path):
    path = tmp_path / "notes.md"
    path.write_text("a line\n" * 20)
    result = fluxperf("report", path)
    complains(result, "line 1:", "line 3:", "And 17 more lines without a record.", "fluxperf run -o FILE")
    assert "line 4:" not in result.err


def test_damaged_lines_of_a_records_file_are_reported_by_the_first(fluxperf, records, tmp_path):
    records.write_bytes(records.read_bytes() + b"a line\n" * 4)
    result = fluxperf("report", records, "-o", tmp_path / "page.html")
    complains(result, "line 2:", "line 4:", f"And 1 more line of {records}.")
    assert "line 5:" not in result.err


def test_messages_say_one_record(fluxperf, records, tmp_path):
    ran = fluxperf("run", *QUICK, "-o", tmp_path / "one.jsonl")
    assert "1 record appended" in " ".join(ran.out.split())
    made = fluxperf("report", records, "-o", tmp_path / "page.html")
    assert "1 record -> " in made.out
