"""``fluxperf gate power``: how often the gate would be wrong here, and how often it would find a change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.terminal import say
from fluxperf.documents import formatted
from fluxperf.errors import ConfigError
from fluxperf.files import check_writable, write_whole
from fluxperf.harness.comparisons import read_comparisons
from fluxperf.harness.policy import read_policy
from fluxperf.harness.simulation import CHANGES, Gated, measured, shares
from fluxperf.shipped import POLICY, present
from fluxperf.words import plural


def power(
    comparisons: Annotated[Path, typer.Argument(metavar="FILE", help="What `gate calibrate -o FILE` wrote.")],
    trials: Annotated[int, typer.Option(min=1, help="Simulated comparisons of each change.")] = 2000,
    change: Annotated[
        list[float] | None,
        typer.Option(min=0, max=100, help="Simulated change of the head in percent; repeat for several."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="Kind of metric: times, cycles or energy; repeat for several. All in the file if not given.",
        ),
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated/--uncalibrated", help="Judge with the calibration that the file gives, or without one."
        ),
    ] = True,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the rows to this JSON file.")] = None,
    policy: Annotated[Path, typer.Option(help="Policy with thresholds.")] = POLICY,
) -> None:
    """Simulate the gate on A/A comparisons: how often it gives a false alarm, and how often it finds a change.

    Pairs are drawn from those that were measured, the head is made worse, and the gate's own judge judges.
    """
    if output is not None:
        check_writable(output)
    found = read_comparisons(comparisons)
    names, draw = measured(found, metric or ())
    scales = {name.rpartition("/")[2]: row.calibrated.spread for name, row in found.metrics.items()}
    policy = present(policy)
    thresholds = read_policy(policy)
    rules = thresholds.noisy_of(_workload(found.metrics))
    if unknown := [name for name in names if name not in rules]:
        raise ConfigError(
            f"gate power: expected only metrics of {policy}, but {comparisons} also has {', '.join(unknown)}."
        )
    gated = Gated({name: rules[name] for name in names}, thresholds.pairs, scales if calibrated else {})
    rows = []
    model = f"{comparisons.stem}, {'' if calibrated else 'un'}calibrated"
    for row in shares(gated, draw, model, trials, [value / 100 for value in change] if change else CHANGES):
        rows.append(row)
        say(row.in_words)
    if output is not None:
        write_whole(output, formatted(rows) + "\n")
        say(f"{plural(len(rows), 'row')} -> {output}")


def _workload(metrics: Mapping[str, object]) -> str:
    return next(iter(metrics), "").split("/")[0]
