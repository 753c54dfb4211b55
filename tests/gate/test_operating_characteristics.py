"""The simulated gate: its false alarms are as rare as stated, it finds regressions, and it looks as
often as the gate.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import operating_characteristics as table
from fluxperf.cli import main
from fluxperf.harness.gate import gate_pairs, looks_at
from fluxperf.harness.simulation import Gated, shares, trial
from tests.gate.sides import ROOT, Fake, policy

AA = ROOT / "reports/records/h100-aa.json"
POLICY = policy()
GATED = Gated({name: POLICY.noisy[name] for name in table.METRICS}, POLICY.pairs)


@pytest.mark.parametrize("name", ["normal 0.5 %", "period 4, 1 %"])
def test_no_alarm_without_a_change_and_a_large_one_is_found(name: str) -> None:
    still, worse = shares(GATED, table.drawn(table.MODELS[name].noise), name, 10, changes=(0.0, 0.05))
    assert (still.regression, worse.regression) == (0.0, 1.0)
    assert still.regression + still.unsure + still.passed + still.error == pytest.approx(1)
    again = list(shares(GATED, table.drawn(table.MODELS[name].noise), name, 10, changes=(0.0, 0.05)))
    assert again == [still, worse], "a seed decides"


def test_a_trial_looks_where_the_gate_looks() -> None:
    unsure = np.random.default_rng(3).normal(0, 0.5, (2, POLICY.pairs.most, 2))
    assert trial(GATED, unsure)[:2] == ("unsure", POLICY.pairs.most)
    taken: list[int] = []
    gate_pairs(Fake(spread=0.5), POLICY, names=("base", "head"), on_pair=taken.append, seed=1)
    assert taken[-1] == looks_at(POLICY.pairs)[-1] == POLICY.pairs.most
    assert looks_at(POLICY.pairs) == [8, 16, 24]
    assert looks_at(POLICY.pairs, 20) == [20, 24]


def test_every_model_draws_pairs_of_its_own_noise() -> None:
    for name, model in table.MODELS.items():
        logs = table.drawn(model.noise)(np.random.default_rng(1), 6)
        assert logs.shape == (2, 6, 2), name
        assert np.isfinite(logs).all(), name
        assert np.ptp(logs[0]) > 0, name
        assert model.words


def test_power_of_measured_comparisons_is_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "power.json"
    words = ["gate", "power", str(AA), "--trials", "4", "--change", "0", "--change", "10", "-o", str(output)]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--policy", str(ROOT / "reports/policy.toml")])
    assert not ended.value.code
    rows = json.loads(output.read_text())
    assert [(row["change"], row["regression"]) for row in rows] == [(0.0, 0.0), (0.1, 1.0)]
    assert "h100-aa, calibrated" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["gate", "power", str(AA), "--metric", "joules", "--policy", str(ROOT / "reports/policy.toml")])
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "expected metrics that all comparisons of the file have, of times; got joules." in said
    with pytest.raises(SystemExit):
        main(["gate", "power", str(tmp_path / "none.json"), "--policy", str(ROOT / "reports/policy.toml")])
    assert "none.json: cannot be read (No such file or directory)" in " ".join(capsys.readouterr().err.split())
