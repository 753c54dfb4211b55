"""The parts of a policy about histories, for the commands that show them."""

from __future__ import annotations

from pathlib import Path

from fluxperf.cli.judging import references
from fluxperf.harness.columns import points_of
from fluxperf.harness.history import Fixed, Rules
from fluxperf.harness.metrics import METRICS
from fluxperf.harness.policy import read_policy
from fluxperf.shipped import present


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
