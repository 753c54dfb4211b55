"""Forwards that take minutes are counted, also by CUPTI, only in the first timed generation."""

from __future__ import annotations

from typing import Any

from fluxperf.recording import _FirstForward, count
from fluxperf.workloads import prepare, workload_named


class Seen:
    """Replaces CUPTI's witness: the door's crossings between entry and exit."""

    def __init__(self, ledger: Any) -> None:
        self._ledger, self.totals, self.ended = ledger, 0, 0

    def __enter__(self) -> Seen:
        self._before = len(self._ledger.crossings)
        return self

    def __exit__(self, *how: object) -> None:
        self.totals, self.ended = len(self._ledger.crossings) - self._before, self.ended + 1


def test_the_witness_sees_the_first_forward_of_the_first_generation_and_no_more() -> None:
    prepared = prepare("baseline", workload_named("tiny"), device="host")
    expected = count(prepared).totals
    seen: Any = Seen(prepared.device.door.ledger)
    tally = _FirstForward(prepared, seen)
    for _ in range(2):
        tally.denoise(lambda step: None)
    counts = tally.counts()
    assert (counts.totals.d2h_copies, counts.totals.h2d_copies) == (expected.d2h_copies, expected.h2d_copies)
    assert counts.witness == counts.totals.d2h_copies + counts.totals.h2d_copies
    assert seen.ended == 1
    prepared.close()
