"""Records of two sides with times drawn from a seed, and a policy for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fluxperf.harness.exact import Place
from fluxperf.harness.gate import Side
from fluxperf.harness.noisy import Task
from fluxperf.harness.policy import Policy, read_policy
from fluxperf.harness.records import Record
from tests.report.pages import make, on_gpu

ROOT = Path(__file__).resolve().parents[2]
POLICY_FILE = ROOT / "reports" / "policy.toml"


def policy() -> Policy:
    return read_policy(POLICY_FILE)


def drawn(
    rng: np.random.Generator,
    pairs: int,
    *,
    change: float = 0.0,
    spread: float = 0.005,
    drift: float = 0.02,
    disturbed: float = 0.0,
    level_s: float = 0.5,
) -> tuple[list[list[float]], list[list[float]]]:
    """Samples of both sides: processes in turns (A B B A), with a spread, on a machine with drift and oscillation.

    ``disturbed`` is the probability that a sample is up to several times slower, and half of it that a whole process
    is.
    """
    base: list[list[float]] = []
    head: list[list[float]] = []
    phase = rng.uniform(0, 2 * np.pi)
    for turn in range(pairs):
        for place, side in enumerate((base, head) if turn % 2 == 0 else (head, base)):
            moment = (2 * turn + place) / (2 * pairs)
            machine = level_s * (1 + drift * moment + drift / 2 * np.sin(2 * np.pi * moment + phase))
            process = machine * np.exp(rng.normal(0, spread)) * (1 + change * (side is head))
            process *= 1 + rng.exponential(0.1) * (rng.random() < disturbed / 2)
            samples = process * np.exp(rng.normal(0, 0.003, 5))
            samples *= np.where(rng.random(5) < disturbed, 1 + rng.exponential(0.5, 5), 1)
            side.append(samples.tolist())
    return base, head


def task(base: list[list[float]], head: list[list[float]], *, calibrated: float = 0.0, rung: str = "fused") -> Task:
    rule = policy().noisy["times.denoise"]
    return Task(Place("schnell-1024", rung), "times.denoise", base, head, rule, calibrated)


def both(rung: str = "fused", pairs: int = 8, *, change: float = 0.0, seed: int = 1) -> tuple[Record, Record]:
    """Records of two sides on a GPU."""
    base, head = drawn(np.random.default_rng(seed), pairs, change=change)
    return timed(on_gpu(rung, 0.5), base), timed(on_gpu(rung, 0.5), head)


def timed(record: Record, processes: list[list[float]]) -> Record:
    times = {"denoise": processes, "step": [[value / 4 for value in samples] for samples in processes]}
    return msgspec.structs.replace(record, times_s=times)


def twin(**changes: Any) -> Record:
    return make("baseline", **changes)


def replaced(record: Record, **changes: Any) -> Record:
    return msgspec.structs.replace(record, **changes)


def with_totals(record: Record, **changes: Any) -> Record:
    return replaced(record, totals=replaced(record.totals, **changes))


def kernel(name: str, processes: list[list[float]]) -> Record:
    """Record of a kernel by itself."""
    made = on_gpu("fused", 0.5)
    row = replaced(made.workload, name="kernels")
    return replaced(made, workload=row, rung=name, times_s={"call": processes}, blocks=[], ledger=[], ops=[])


class Fake:
    """A machine with a spread between processes, on which the head is slower by a share."""

    def __init__(self, change: float = 0.0, spread: float = 0.005, rungs: Sequence[str] = ("fused",)) -> None:
        self.sides: list[Side] = []
        self._rng, self._change, self._spread, self._rungs = np.random.default_rng(5), change, spread, rungs

    def measure(self, side: Side) -> list[Record]:
        self.sides.append(side)
        level = 0.5 * (1 + self._change * (side == "head"))
        return [
            timed(on_gpu(rung, 0.5), [(level * np.exp(self._rng.normal(0, self._spread)) * np.ones(3)).tolist()])
            for rung in self._rungs
        ]
