"""Shared by the commands for histories: the checkout that orders commits, and the policy for histories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.judging import references
from fluxperf.errors import ConfigError
from fluxperf.harness.columns import points_of
from fluxperf.harness.history import Fixed, Rules
from fluxperf.harness.metrics import METRICS
from fluxperf.harness.policy import read_policy
from fluxperf.shipped import present

Checkout = Annotated[Path, typer.Option("--repo", help="Git checkout that contains the commits, to order them.")]


def check_checkout(path: Path) -> None:
    """Refuses a path that is not a folder. Otherwise commits would silently be ordered by time.

    Raises:
        ConfigError: the folder does not exist.
    """
    if not path.is_dir():
        raise ConfigError(
            f"--repo: expected the folder of a git checkout, got {path}, which is not a folder. Name the checkout."
        )


def rules_of(path: Path) -> Rules:
    """Slacks and references of a policy. If the default file is missing, those of the shipped policy, as in the gate.

    Raises:
        PolicyError: the file cannot be read or is not a policy.
        BuildError: a reference does not exist.
        RecordError: a reference cannot be read.
    """
    policy = read_policy(present(path))
    slack: dict[str, float] = {}
    for metric in METRICS:
        rule = policy.exact.get(metric.name)
        if rule and rule.slack and metric.series:
            slack[metric.series] = rule.slack
            # A series of another tool is known by its unit. If only one of our metrics has that unit, its slack
            # applies.
            if sum(other.unit == metric.unit for other in METRICS) == 1:
                slack[metric.unit] = rule.slack
    fixed = [
        Fixed(one.name, one.budget, [point for record in one.records for point in points_of(record)])
        for one in references(policy)
    ]
    return Rules(slack, fixed)
