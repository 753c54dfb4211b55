"""The gate on other targets than revisions of models: two folders as they are, and single kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluxperf.cli import gate as command
from fluxperf.cli.gate_options import command_of
from fluxperf.errors import BuildError
from fluxperf.harness.checkouts import as_it_is
from fluxperf.harness.compare import compare
from tests.gate.sides import ROOT, drawn, kernel, policy

NAME = "norm_modulate (fused) bfloat16"


def test_kernels_have_a_metric_of_their_own_and_models_do_not_have_it() -> None:
    assert set(policy().noisy_of("kernels")) == {"times.call", "times.call.mean", "times.call.p90"}
    assert set(policy().noisy_of("schnell-1024")) == {
        f"times.{name}{form}" for name in ("denoise", "step") for form in ("", ".mean", ".p90")
    } | {f"{name}.{part}" for name in ("cycles", "energy") for part in ("denoise", "step")}


@pytest.mark.parametrize(("change", "verdict"), [(0.03, "SLOWER"), (0.0, "SAME"), (-0.03, "FASTER")])
def test_a_kernel_slowed_by_three_percent_is_named_at_eight_pairs(change: float, verdict: str) -> None:
    base, head = drawn(np.random.default_rng(3), 8, change=change, level_s=21e-6)
    rules = policy()
    found = compare([kernel(NAME, base)], [kernel(NAME, head)], rules, looks=rules.pairs.looks(8))
    row = next(row for row in found.rows if row.metric == "times.call")
    assert (row.workload, row.rung, row.metric, row.verdict) == ("kernels", NAME, "times.call", verdict)
    assert not [row for row in found.rows if row.outcome == "error"]


def test_kernels_are_another_command() -> None:
    assert command_of(["kernels"], 5, ["silu"]) == ["kernels", "--repeat", "5", "--rung=silu"]
    assert command_of(["tiny"], 5, None) == ["run", "--workload", "tiny", "--repeat", "5"]


def test_a_folder_that_is_no_checkout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"gate --head .*expected a checkout of fluxperf, found no"):
        as_it_is("head", tmp_path)


def test_two_checkouts_are_measured_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is the base with another version number, which shows that each process imported its own folder."""
    other = tmp_path / "other"
    (other / "fluxperf").mkdir(parents=True)
    for path in [*(ROOT / "fluxperf").iterdir(), ROOT / "kernels"]:
        if path.name not in ("__init__.py", "__pycache__"):
            (other / path.relative_to(ROOT)).symlink_to(path)
    text = (ROOT / "fluxperf" / "__init__.py").read_text(encoding="utf-8")
    (other / "fluxperf" / "__init__.py").write_text(text.replace('__version__ = "', '__version__ = "9.'))
    monkeypatch.chdir(tmp_path)
    arguments = command_of(["tiny"], 1, ["fused"])
    with command._sides((str(ROOT), str(other)), "") as (sides, folder):
        runner = command.Processes(sides, arguments, folder)
        (base,), (head,) = runner.measure("base"), runner.measure("head")
    assert head.fluxperf == f"9.{base.fluxperf}"
    assert base.totals == head.totals


def test_a_folder_beside_a_revision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="two revisions or two folders"), command._sides(("HEAD", str(tmp_path)), ""):
        pass
