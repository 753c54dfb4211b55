"""Compares peers with our quickest rung, if both were measured under the same conditions."""

from __future__ import annotations

from fluxperf.harness.facts.samples import Speedup, speedup, summary_of
from fluxperf.harness.facts.study import Ladder, Rung, Study, median_of, newest
from fluxperf.harness.records import Record


def matched(rung: Rung, other: Record) -> Record | None:
    """The newest record of a rung that was measured with the settings of another record, if there is one."""
    return newest([record for record in rung.records if record.settings == other.settings and summary_of(record)])


def beside_peers(study: Study, ladder: Ladder) -> list[tuple[Rung, Record, Speedup]]:
    """Each peer on the same machine, our record of the quickest rung under the same conditions, and their ratio.

    A peer is left out if no record of ours has its settings, as such times are not comparable.
    """
    rows = []
    rungs = sorted(ladder.timed, key=lambda rung: median_of(rung.record))
    for peer in study.peers_of(ladder):
        alike = (one for rung in rungs if peer.record and (one := matched(rung, peer.record)))
        ours = next(alike, None)
        found = speedup(peer.record, ours)
        if ours and found:
            rows.append((peer, ours, found))
    return rows
