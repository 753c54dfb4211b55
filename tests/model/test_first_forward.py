"""Forwards that take minutes are counted, also by CUPTI, only in the first timed generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    @contextmanager
    def paused(self, wait: Callable[[], None]) -> Iterator[None]:
        wait()
        before = len(self._ledger.crossings)
        yield
        self._before += len(self._ledger.crossings) - before

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


def test_work_before_the_first_forward_is_not_witnessed() -> None:
    """A GPU may still compute the request when the count begins: it is waited for first."""
    prepared = prepare("baseline", workload_named("tiny"), device="host")
    ledger, waits = prepared.device.door.ledger, []

    class Waiting(Seen):
        def __enter__(self) -> Seen:
            waits.append(ledger.syncs)
            return super().__enter__()

    waits.append(ledger.syncs)
    seen: Any = Waiting(ledger)
    _FirstForward(prepared, seen).denoise(lambda step: None)
    assert waits[1] == waits[0] + 1
    prepared.close()


def test_trials_within_the_first_forward_are_not_witnessed() -> None:
    """How many candidates stay in a trial depends on their times, so its copies and kernels are no exact count."""
    prepared = prepare("baseline", workload_named("tiny"), device="host")
    device, seen, calm = prepared.device, Seen(prepared.device.door.ledger), count(prepared).totals
    outside, trials = device.aside, 0
    launch = device.launch

    def launched(*args: Any, **options: Any) -> Any:
        nonlocal trials
        if trials < 3 and device.aside is not outside:
            trials += 1
            with device.aside():
                device.door.to_host(device.empty((4,), "float32"), "trial")
        return launch(*args, **options)

    device.launch = launched
    tally = _FirstForward(prepared, seen)
    tally.denoise(lambda step: None)
    counts = tally.counts()
    assert trials == 3
    assert counts.witness == counts.totals.d2h_copies + counts.totals.h2d_copies - trials
    assert counts.totals.syncs == calm.syncs + trials, "a wait for the copy of each trial, none at its ends"
    assert device.aside is outside
    prepared.close()
