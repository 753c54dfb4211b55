"""Checks that the copies in a record are consistent: its totals, its ledger and its witness."""

from __future__ import annotations

from fluxperf.harness.records import Record


def adds_up(record: Record) -> bool:
    """Whether the rows of the ledger add up to the totals, in copies and in bytes."""
    totals = record.totals
    sums = {"d2h": [0, 0], "h2d": [0, 0]}
    for row in record.ledger:
        sums[row.direction][0] += row.count
        sums[row.direction][1] += row.bytes
    return sums == {"d2h": [totals.d2h_copies, totals.d2h_bytes], "h2d": [totals.h2d_copies, totals.h2d_bytes]}


def agrees(record: Record) -> bool:
    """Whether a witness counted the same copies and bytes as the ledger."""
    names = ("d2h_copies", "h2d_copies", "d2h_bytes", "h2d_bytes")
    return all(getattr(record.totals, name) == getattr(record.witness, name) for name in names)
