"""Verdicts on limits, as ``fluxperf timeline --fail-on`` computes them."""

from __future__ import annotations

from fluxperf.harness.timeline.blind import blind_spots
from fluxperf.harness.timeline.findings import KINDS, findings
from fluxperf.harness.timeline.limits import Verdict, default_limits, judge, read_limits
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places


def verdicts(timeline: Timeline, *limits: str) -> dict[str, Verdict]:
    """The verdict on each limit; findings without a threshold have the default one."""
    places = Places(timeline)
    wanted = read_limits(limits, default_limits())
    told = judge(wanted, timeline, places, findings(timeline, places), blind_spots(timeline, places))
    return {row.limit: row for row in told}


def codes(timeline: Timeline, *limits: str) -> dict[str, int]:
    """The exit code for each limit alone; for all findings if none is named."""
    told = verdicts(timeline, *(limits or KINDS))
    return {limit: {"kept": 0, "broken": 1, "undecided": 2}[row.state] for limit, row in told.items()}
