"""Records of whole pictures, from a prompt to a file: which of them stands for a rung."""

from __future__ import annotations

from fluxperf.harness.facts.provenance import where
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.facts.study import Study, shown_of
from fluxperf.harness.records import Record, variant


def pictures_shown(study: Study) -> list[Record]:
    """The record of whole pictures of each rung on each machine: that of pictures made alone, not in turns with a peer.

    Records of before 2026-11-30 do not say that they are of turns, but have no joules and no counts of the witness.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in study.pictures:
        if summary_of(record, "picture"):
            groups.setdefault((where(record), variant(record)), []).append(record)
    alone = ([one for one in group if one.energy_j or one.picture_witness] or group for group in groups.values())
    found = map(shown_of, alone)
    return [record for record in found if record is not None]
