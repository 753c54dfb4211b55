"""False alarms and power of the gate's judge, for models of noise and for measured A/A comparisons.

    python -m benchmarks.operating_characteristics -o reports/records/operating-characteristics.json

One row for each model and true change, as `fluxperf gate power` prints them. Seconds of a generation and of a step are
judged, with one value per process. Two thousand trials of everything take about four minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

import fluxperf
from fluxperf.files import write_whole
from fluxperf.harness.comparisons import read_comparisons
from fluxperf.harness.measure.environment import commit
from fluxperf.harness.policy import read_policy
from fluxperf.harness.simulation import CHANGES, Draw, Gated, Shares, Values, measured, shares

METRICS = ("times.denoise", "times.step")

#: Measured A/A comparisons, by their name in the rows.
MEASURED = {"A/A of an H100, fused": Path("reports/records/h100-aa.json")}

Noise = Callable[[np.random.Generator, int], Values]


class Model(NamedTuple):
    """A model of noise (logarithms of processes that run one after another), and its description."""

    noise: Noise
    words: str


def _normal(spread: float) -> Noise:
    return lambda rng, number: rng.normal(0, spread, number)


def _heavy(rng: np.random.Generator, number: int) -> Values:
    return 0.006 * rng.standard_t(2, number)


def _bimodal(rng: np.random.Generator, number: int) -> Values:
    return rng.normal(0, 0.01 / 3, number) + 0.02 * (rng.random(number) < 0.3)


def _slow(rng: np.random.Generator, number: int) -> Values:
    return rng.normal(0, 0.01, number) + rng.uniform(0.05, 0.27, number) * (rng.random(number) < 0.05)


def _drift(rng: np.random.Generator, number: int) -> Values:
    return rng.normal(0, 0.01, number) + np.linspace(0, 0.10, number, endpoint=False)


def _alike(rng: np.random.Generator, number: int) -> Values:
    found, last = np.empty(number), rng.normal(0, 0.01)
    for index, step in enumerate(rng.normal(0, 0.006, number)):
        found[index] = last = 0.8 * last + step
    return found


def _regime(rng: np.random.Generator, number: int) -> Values:
    changed = np.cumsum(rng.random(number) < 0.15) % 2
    return rng.normal(0, 0.01, number) + 0.04 * changed


def _rhythm(depth: float) -> Noise:
    def noise(rng: np.random.Generator, number: int) -> Values:
        phase = rng.uniform(0, 2 * np.pi)
        return rng.normal(0, 0.005, number) + depth * np.cos(np.arange(number) * np.pi / 2 + phase)

    return noise


MODELS = {
    "normal 0.5 %": Model(_normal(0.005), "independent processes"),
    "normal 1 %": Model(_normal(0.01), "independent processes"),
    "normal 2 %": Model(_normal(0.02), "independent processes"),
    "heavy": Model(_heavy, "Student's t of two degrees, which has no variance, times 0.6 %"),
    "bimodal": Model(_bimodal, "30 % of processes are 2 % slower; spread 0.33 %"),
    "slow": Model(_slow, "5 % of processes are 5 to 27 % slower; spread 1 %"),
    "drift": Model(_drift, "10 % slower from the first process to the last; spread 1 %"),
    "alike": Model(_alike, "each process resembles the one before (0.8); spread 1 %"),
    "regime": Model(_regime, "the machine changes between two states 4 % apart; spread 1 %"),
    "period 4, 1 %": Model(_rhythm(0.01), "a rhythm of four processes of 1 %; spread 0.5 %"),
    "period 4, 3 %": Model(_rhythm(0.03), "a rhythm of four processes of 3 %; spread 0.5 %"),
}


def drawn(noise: Noise) -> Draw:
    """Draws pairs [2 metrics, pairs, 2] of processes that run in turns; a step takes a quarter of a generation."""

    def draw(rng: np.random.Generator, pairs: int) -> Values:
        whole = np.log(0.5) + noise(rng, 2 * pairs).reshape(pairs, 2)
        step = whole - np.log(4) + rng.normal(0, 0.25 * 0.01, (pairs, 2))
        return np.stack([whole, step])

    return draw


def rows(policy: Path, trials: int, wanted: list[str], tell: Callable[[Shares], None]) -> list[Shares]:
    """All rows of the table."""
    judged = read_policy(policy)
    rules = {name: judged.noisy[name] for name in METRICS}
    found: list[Shares] = []

    def add(gated: Gated, draw: Draw, model: str) -> None:
        for row in shares(gated, draw, model, trials, CHANGES):
            found.append(row)
            tell(row)

    for name in wanted or MODELS:
        if name in MODELS:
            add(Gated(rules, judged.pairs), drawn(MODELS[name].noise), name)
    for name, path in MEASURED.items():
        if wanted and name not in wanted:
            continue
        comparisons = read_comparisons(path)
        _, draw = measured(comparisons, ["times"])
        scales = {metric.rpartition("/")[2]: row.calibrated.spread for metric, row in comparisons.metrics.items()}
        add(Gated(rules, judged.pairs), draw, name)
        add(Gated(rules, judged.pairs, scales), draw, f"{name}, calibrated")
    return found


def main(words: list[str] | None = None) -> None:
    """Simulates, prints and writes."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("-o", "--output", type=Path)
    given.add_argument("--policy", type=Path, default=Path("reports/policy.toml"))
    given.add_argument("--trials", type=int, default=2000)
    given.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join([*MODELS, *MEASURED])}; all if none")
    asked = given.parse_args(words)
    if unknown := [name for name in asked.models if name not in MODELS and name not in MEASURED]:
        given.error(f"no model {unknown[0]!r}; known: {', '.join([*MODELS, *MEASURED])}")
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    found = rows(asked.policy, asked.trials, asked.models, lambda row: print(row.in_words, flush=True))
    if asked.output is not None:
        told: dict[str, Any] = {
            "what": "shares of simulated comparisons by outcome, by the gate's own judge and policy; 'change' is true",
            "commit": revision,
            "dirty": dirty,
            "policy": msgspec.to_builtins(read_policy(asked.policy).pairs),
            "models": {name: model.words for name, model in MODELS.items()},
            "rows": msgspec.to_builtins(found),
        }
        write_whole(asked.output, msgspec.json.format(msgspec.json.encode(told)).decode() + "\n")


if __name__ == "__main__":
    main()
