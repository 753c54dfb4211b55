"""Parts of the commands that show histories: the checkout that orders commits, and a policy's parts about them."""

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

Checkout = Annotated[Path, typer.Option("--repo", help="Git checkout with the commits, for their order.")]


def check_checkout(path: Path) -> None:
    """Refuses what is no folder: commits would be in order of time, as if that had been asked for.

    Raises:
        ConfigError: there is no such folder.
    """
    if not path.is_dir():
        raise ConfigError(f"--repo: expected the folder of a git checkout, got {path}, which is no folder.")


def rules_of(path: Path) -> Rules:
    """Slacks and references of a policy: of the shipped one where the usual file is missing, as for the gate.

    Raises:
        PolicyError: the file cannot be read or is no policy.
        BuildError: a reference is not there.
        RecordError: a reference cannot be read.
    """
    policy = read_policy(present(path))
    slack: dict[str, float] = {}
    for metric in METRICS:
        rule = policy.exact.get(metric.name)
        if rule and rule.slack and metric.series:
            slack[metric.series] = rule.slack
            # Another tool's metric in a unit that only one of ours has means the same.
            if sum(other.unit == metric.unit for other in METRICS) == 1:
                slack[metric.unit] = rule.slack
    fixed = [
        Fixed(one.name, one.budget, [point for record in one.records for point in points_of(record)])
        for one in references(policy)
    ]
    return Rules(slack, fixed)
