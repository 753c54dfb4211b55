"""``fluxperf gate power``: simulates how often the gate is wrong on this machine, and how often it finds a change."""

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
    comparisons: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of comparisons, written by `gate calibrate -o FILE`.")
    ],
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
            help="Kind of metric: times, cycles or energy; repeat for several. If not given, all in the file.",
        ),
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated/--uncalibrated", help="Judge with the calibration of the file, or without a calibration."
        ),
    ] = True,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the rows to this JSON file.")] = None,
    policy: Annotated[Path, typer.Option(help="Policy with thresholds.")] = POLICY,
) -> None:
    """Simulate the gate on A/A comparisons: rate of false alarms, and rate at which it finds a change.

    Pairs are drawn from the measured ones, the head is made slower by a known amount, and the judge of the gate
    decides.
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
            f"gate power: expected only metrics in {policy}, but {comparisons} also has {', '.join(unknown)}. Name "
            "the policy of that file with --policy."
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
