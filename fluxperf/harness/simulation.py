"""Operating characteristics, by simulation: how often the gate is wrong, and how often it finds a change.

Medians of processes are drawn, from a model of noise or from A/A comparisons of a machine, and judged by the gate's own
judge, with the same looks and numbers of pairs as in the gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from fluxperf.errors import RecordError
from fluxperf.harness.comparisons import Comparisons
from fluxperf.harness.exact import Place
from fluxperf.harness.gate import looks_at
from fluxperf.harness.meaning import explained
from fluxperf.harness.metrics import metric_of
from fluxperf.harness.noisy import Task, judge
from fluxperf.harness.policy import Noisy, Pairs
from fluxperf.harness.verdict import conclude

#: Simulated true changes for the worse.
CHANGES = (0.0, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)

#: Number of neighbouring pairs that stay together when A/A comparisons are resampled.
_TOGETHER = 4

Values = npt.NDArray[np.float64]
#: Draws the logarithms of pairs [metrics, pairs, 2] of one program on both sides.
Draw = Callable[[np.random.Generator, int], Values]


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the gate's verdicts on a true change, over a number of trials.

    ``regression``, ``unsure``, ``passed`` and ``error`` are shares of outcomes, ``quicker`` the share of trials with a
    metric that is reported as better, ``pairs`` the mean number of pairs taken.
    """

    model: str
    change: float
    trials: int
    regression: float
    unsure: float
    passed: float
    error: float
    quicker: float
    pairs: float

    @property
    def in_words(self) -> str:
        """A line of a table."""
        return (
            f"{self.model:28} {self.change:+6.1%}  regression {self.regression:6.2%}  unsure {self.unsure:6.2%}  "
            f"pass {self.passed:6.2%}  FASTER {self.quicker:6.2%}  {self.pairs:4.1f} pairs"
        )


class Gated(NamedTuple):
    """Input of a trial: metrics with their rules and calibrated scales, and how pairs are taken."""

    rules: Mapping[str, Noisy]
    pairs: Pairs
    spreads: Mapping[str, float] = {}


def trial(gated: Gated, logs: Values) -> tuple[str, int, bool]:
    """Outcome of one simulated comparison, pairs taken, and whether any metric got better.

    Args:
        gated: metrics and rules.
        logs: logarithms of medians of both sides, [metrics, pairs, 2]; at least as many pairs as the policy's most.
    """
    targets = looks_at(gated.pairs)
    values = np.exp(logs)[..., None].tolist()
    place = Place("simulated", "simulated")
    for taken in targets:
        tasks = [
            Task(
                place, name, [pair[0] for pair in metric[:taken]], [pair[1] for pair in metric[:taken]], rule,
                gated.spreads.get(name, 0.0),
            )
            for (name, rule), metric in zip(gated.rules.items(), values, strict=True)
        ]  # fmt: skip
        rows = explained(judge(tasks, gated.pairs, len(targets)))
        outcome = conclude(rows, base="", head="", made=("", "")).outcome
        if outcome != "unsure":
            break
    return outcome, taken, any(row.verdict == "FASTER" for row in rows)


def shares(
    gated: Gated, draw: Draw, model: str, trials: int, changes: Sequence[float] = CHANGES, seed: int = 7
) -> Iterator[Shares]:
    """A row for each true change. Every change sees the same noise. The side of each process in a pair is random.

    Args:
        gated: metrics and rules.
        draw: draws pairs of one program.
        model: name of the noise model.
        trials: comparisons of each change.
        changes: shares by which the head is worse in every metric.
        seed: of the noise.
    """
    signs = np.array([1.0 if metric_of(name).worse == "higher" else -1.0 for name in gated.rules])
    for change in changes:
        rng = np.random.default_rng(seed)
        found = dict.fromkeys(("regression", "unsure", "pass", "error"), 0)
        taken = better = 0
        for _ in range(trials):
            logs = draw(rng, gated.pairs.most)
            swapped = rng.random(gated.pairs.most) < 0.5
            logs = np.where(swapped[None, :, None], logs[..., ::-1], logs)
            logs[..., 1] += (signs * math.log1p(change))[:, None]
            outcome, pairs, quicker = trial(gated, logs)
            found[outcome] += 1
            taken += pairs
            better += quicker
        yield Shares(
            model=model, change=change, trials=trials, regression=found["regression"] / trials,
            unsure=found["unsure"] / trials, passed=found["pass"] / trials, error=found["error"] / trials,
            quicker=better / trials, pairs=taken / trials,
        )  # fmt: skip


def measured(found: Comparisons, families: Sequence[str] = ()) -> tuple[list[str], Draw]:
    """Metrics of A/A comparisons of one rung, and a function that resamples their pairs in runs of neighbouring ones.

    Args:
        found: comparisons of `fluxperf gate calibrate -o`.
        families: kinds of metrics to use, such as ``times``; all that every comparison has if none.

    Raises:
        RecordError: no comparison, several rungs, or no such metric.
    """
    names = [
        name
        for name in (found.comparisons[0].medians if found.comparisons else {})
        if all(name in one.medians for one in found.comparisons)
        and (not families or name.rpartition("/")[2].partition(".")[0] in families)
    ]
    known = {name.rpartition("/")[2].partition(".")[0] for one in found.comparisons[:1] for name in one.medians}
    if not names and known:
        raise RecordError(
            f"gate power: expected metrics that all comparisons of the file have, of {', '.join(sorted(known))}; got "
            f"{', '.join(families) or 'none that is in every one of them'}."
        )
    places = {name.rpartition("/")[0] for name in names}
    if len(places) != 1:
        rungs = ", ".join(sorted(places)) or "none"
        raise RecordError(
            f"gate power: expected A/A comparisons of one rung with samples of {', '.join(families) or 'a metric'}, "
            f"got {rungs}. Write some with `fluxperf gate calibrate -r RUNG -o FILE`."
        )
    rows = [[pair for one in found.comparisons for pair in _pairs(one.medians[name])] for name in names]
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise RecordError(
            "gate power: expected as many pairs of each metric, at least one, got "
            + ", ".join(f"{len(row)} of {name}" for name, row in zip(names, rows, strict=True))
            + "."
        )
    logs = np.log(np.array(rows))

    def draw(rng: np.random.Generator, pairs: int) -> Values:
        run = min(_TOGETHER, logs.shape[1])
        starts = rng.integers(0, logs.shape[1] - run + 1, math.ceil(pairs / run))
        return np.asarray(logs[:, (starts[:, None] + np.arange(run)).ravel()[:pairs]])

    return [name.rpartition("/")[2] for name in names], draw


def _pairs(medians: object) -> list[tuple[float, float]]:
    base, head = (getattr(medians, side) for side in ("base", "head"))
    return list(zip(base, head, strict=True))
