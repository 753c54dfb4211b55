"""Peers beside our quickest rung: who was measured in the same way, and how much longer he takes."""

from __future__ import annotations

from fluxperf.harness.facts.samples import Speedup, speedup, summary_of
from fluxperf.harness.facts.study import Ladder, Rung, Study, median_of, newest
from fluxperf.harness.records import Record


def matched(rung: Rung, other: Record) -> Record | None:
    """The newest record of a rung that was measured with the settings of another record, if there is one."""
    return newest([record for record in rung.records if record.settings == other.settings and summary_of(record)])


def beside_peers(study: Study, ladder: Ladder) -> list[tuple[Rung, Record, Speedup]]:
    """Each peer on the same machine with our record of the quickest rung measured in the same way, and the ratio.

    A peer whose settings no record of ours shares is left out: such times are not compared.
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
