"""Files that several processes read, change and write at once: no change of any process is lost."""

from __future__ import annotations

import datetime
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fluxperf.cli import main
from fluxperf.engine.cache import recall
from fluxperf.engine.device.choices import Choice, Choices
from fluxperf.files import locked
from fluxperf.harness.calibration import Calibrated, read_calibration, store
from fluxperf.harness.points import SUFFIX, merge_points, read_points
from fluxperf.harness.policy import Accepted, accept, read_policy
from tests.contracts.tree import ROOT
from tests.history.making import point

#: Writers, and the number of entries that each adds.
WRITERS, TIMES = 3, 3


class Points:
    name = f"points{SUFFIX}"

    def add(self, path: Path, number: int) -> None:
        merge_points(path, [point(number, 1.0, metric=f"metric {number}")])

    def count(self, path: Path) -> int:
        return len(read_points(path).points)


class Acceptances:
    name = "policy.toml"

    def add(self, path: Path, number: int) -> None:
        today = datetime.date(2026, 1, 1)
        row = Accepted(metric=f"tiny/r{number}/times.denoise", reason="r", author="a", date=today, base=1.0, up_to=1.1)
        accept(path, row)

    def count(self, path: Path) -> int:
        return len(read_policy(path).accepted)


class Calibrations:
    name = "calibration.json"

    def add(self, path: Path, number: int) -> None:
        row = Calibrated(spread=0.01, detectable=None, pairs=8, alpha=0.02, power=0.9, ran_as="twin", created_utc="")
        store(path, "a machine", {f"row {number}": row})

    def count(self, path: Path) -> int:
        found = read_calibration(path)
        return len(found.rows) if found else 0


class ChosenAlgorithms:
    name = "gpu.json"

    def add(self, path: Path, number: int) -> None:
        Choices("gpu", path.parent).keep(f"product {number}", ["a"], Choice(0, (1.0,)))

    def count(self, path: Path) -> int:
        return len(json.loads(recall(path) or b"{}"))


@pytest.mark.parametrize(
    "kind", [Points(), Acceptances(), Calibrations(), ChosenAlgorithms()], ids=lambda kind: kind.name
)
def test_writers_at_once_keep_each_others_work(tmp_path: Path, kind: Points) -> None:
    path = tmp_path / kind.name
    before = 0
    if isinstance(kind, Acceptances):
        path.write_bytes((ROOT / "reports" / "policy.toml").read_bytes())
        before = kind.count(path)
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda number: kind.add(path, number), range(WRITERS * TIMES)))
    assert kind.count(path) - before == WRITERS * TIMES
    assert [found.name for found in tmp_path.iterdir()] == [kind.name]


def test_two_calibrations_into_one_file_are_refused_before_they_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "aa.json"
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("fluxperf.cli.alive.has_times", lambda: True)
    with locked(path), pytest.raises(SystemExit) as end:
        main(["gate", "calibrate", "-o", str(path), "--baselines", str(tmp_path)])
    assert end.value.code == 2
    assert "no other process to change it" in capsys.readouterr().err
