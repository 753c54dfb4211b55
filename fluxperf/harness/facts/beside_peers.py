"""Peers beside our quickest rung: who was measured in the same way, and how much longer he takes."""

from __future__ import annotations

from fluxperf.harness.facts.samples import Speedup, speedup, summary_of
from fluxperf.harness.facts.study import Ladder, Rung, Study, newest
from fluxperf.harness.records import Record


def matched(rung: Rung, other: Record) -> Record | None:
    """The newest record of a rung that was measured with the settings of another record, if there is one."""
    return newest([record for record in rung.records if record.settings == other.settings and summary_of(record)])


def beside_peers(study: Study, ladder: Ladder) -> list[tuple[Rung, Record, Speedup]]:
    """Each peer on the same machine with our record of the best rung, measured in the same way, and the ratio.

    A peer whose settings no record of ours shares is left out: such times are not compared.
    """
    best = ladder.best
    rows = []
    for peer in study.peers_of(ladder) if best else []:
        ours = matched(best, peer.record) if best and peer.record else None
        found = speedup(peer.record, ours)
        if ours and found:
            rows.append((peer, ours, found))
    return rows
