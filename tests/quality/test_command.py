"""The command in its tiny form: it runs, and writes its results."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from benchmarks.quality import __main__ as command
from benchmarks.quality.asked import PEERS
from benchmarks.quality.figures import Result
from benchmarks.quality.layers import LAYERS
from fluxperf.engine.ops.host import fp8
from fluxperf.engine.ops.table import Quantized
from tests.contracts.tree import ROOT

TINY = ["--workload", "tiny", "--device", "host"]


def run(tmp_path, *words: str) -> Result:
    output = tmp_path / "out" / "quality.json"
    command.main([*TINY, "-o", str(output), *words])
    return msgspec.json.decode(output.read_bytes(), type=Result)


def test_without_a_peer_it_needs_no_pytorch(tmp_path) -> None:
    code = (
        "import sys; from benchmarks.quality.__main__ import main; main(sys.argv[1:]); "
        "assert not {'torch', 'diffusers'} & sys.modules.keys()"
    )
    words = [*TINY, "--rung", "broadcast", "--rung", "fp8", "--layers", "mlp up", "--peer", "none", "--seeds", "2"]
    output = tmp_path / "quality.json"
    done = subprocess.run([sys.executable, "-c", code, *words, "-o", str(output)], cwd=ROOT, capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(output.read_bytes(), type=Result)
    assert [(row.name, row.group, row.precision) for row in result.rows] == [
        ("broadcast", "rung", "float32"), ("fp8", "rung", "e4m3"), ("mlp up", "layers", "e4m3"),
    ]  # fmt: skip
    assert (result.seeds, result.reference, result.device, result.ratios) == ([0, 1], "batched", "host", [])
    assert (result.workload.name, result.workload.weights) == ("tiny", "synthetic (seed 0)")
    for row in result.rows:
        assert row.figures is not None
        assert [len(steps) for steps in (*row.figures.forward, *row.figures.latents)] == [4] * 4
        assert len(row.figures.cosine) == 2
        assert row.time_s > 0
    assert result.rows[0].figures.forward[0][0] < 2e-6 < 5e-3 < result.rows[1].figures.forward[0][0]
    assert "fp8" in done.stdout
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.peer
def test_everything_is_measured_by_default(tmp_path, capsys) -> None:
    pytest.importorskip("diffusers")
    result = run(tmp_path)
    groups = {group: [row.name for row in result.rows if row.group == group] for group in ("rung", "layers", "peer")}
    assert groups == {"rung": ["fused", "captured", "fp8"], "layers": list(LAYERS), "peer": list(PEERS)}
    assert [row.reason for row in result.rows if row.reason] == []
    assert {(ratio.of, ratio.against) for ratio in result.ratios} == {
        (ours, f"diffusers{form}{exact}")
        for ours, form in (("fused", ""), ("captured", ""), ("fp8", "-fp8"), ("products", "-fp8"))
        for exact in ("", "-exact")
    }
    fp8, every = (next(row for row in result.rows if row.name == name) for name in ("fp8", "all"))
    assert fp8.figures == every.figures
    assert {"torch", "diffusers"} <= result.versions.keys()
    assert "fp8 over diffusers-fp8-exact: forward" in capsys.readouterr().out


@pytest.mark.peer
def test_weights_of_a_checkpoint(tmp_path) -> None:
    """The same values as the synthetic weights, so the same figures."""
    pytest.importorskip("diffusers")
    from benchmarks.same_weights import of_source
    from fluxperf.engine.device.host import HostDevice
    from tests.quality.conftest import SOURCE

    of_source(SOURCE, HostDevice()).save_pretrained(tmp_path / "model")
    words = ["--rung", "fused", "--layers", "qkv", "--peer", "diffusers-fp8-exact"]
    drawn, read = run(tmp_path, *words), run(tmp_path, *words, "--weights", str(tmp_path / "model"))
    assert read.workload.weights != drawn.workload.weights
    assert [row.figures for row in read.rows] == [row.figures for row in drawn.rows]


def test_a_peer_whose_libraries_are_missing_is_skipped(tmp_path, monkeypatch, capsys) -> None:
    real = builtins.__import__

    def without_torch(name, *rest, **more):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *rest, **more)

    for module in [name for name in sys.modules if name.startswith(("benchmarks.quality.peer", "benchmarks.same_"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr("benchmarks.quality.peer", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_torch)
    result = run(tmp_path, "--rung", "fused", "--layers", "none", "--peer", "diffusers")
    assert [(row.name, row.figures is None) for row in result.rows] == [("fused", False), ("diffusers", True)]
    assert "No module named 'torch'" in result.rows[1].reason
    assert "diffusers has no figures: its libraries cannot be imported" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rung", "fp9"], "unknown rung 'fp9'. Did you mean 'fp8'?"),
        (["--reference", "bached"], "Did you mean 'batched'?"),
        (["--layers", "qkw"], "Did you mean 'qkv'?"),
        (["--peer", "difusers"], "Did you mean 'diffusers'?"),
        (["--workload", "tinny"], "Did you mean 'tiny'?"),
        (["--device", "cpu"], "Use one of: auto, host, cuda"),
        (["--seeds", "0"], "--seeds 0: expected at least 1"),
        (["--rung", "none", "--layers", "none", "--peer", "none"], "got none"),
        (["--weights", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_said_before_any_work(tmp_path, capsys, words, said) -> None:
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, *words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.json"))


def test_numbers_that_overflow_are_a_failure(tmp_path, monkeypatch, capsys) -> None:
    right = fp8._quantized

    def wrong(wide, axes=-1):
        data, scale, *_ = right(wide, axes)
        return Quantized(data, scale * np.float32("nan"))

    monkeypatch.setattr(fp8, "_quantized", wrong)
    with pytest.raises(SystemExit) as caught:
        run(tmp_path, "--rung", "fp8", "--rung", "fused", "--layers", "attention", "--peer", "none")
    assert caught.value.code == 1
    result = msgspec.json.decode((tmp_path / "out" / "quality.json").read_bytes(), type=Result)
    assert [(row.name, row.figures is None) for row in result.rows] == [
        ("fp8", True), ("fused", False), ("attention", True),
    ]  # fmt: skip
    said = "fp8 has no figures: expected finite values, got NaN or infinity in the velocity of step 1 with seed 0."
    assert said in capsys.readouterr().out


def test_a_run_that_dies_leaves_what_was_measured(tmp_path, monkeypatch) -> None:
    real = command.compared
    seen = []

    def dies(run_, references):
        if len(seen) == 1:
            raise KeyboardInterrupt
        seen.append(run_)
        return real(run_, references)

    monkeypatch.setattr(command, "compared", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "--peer", "none")
    written = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["fused"]
