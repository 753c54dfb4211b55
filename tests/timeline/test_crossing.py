"""Work that is attributed to a range although its position suggests otherwise: overlapping ranges, unrecorded calls."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fluxperf.harness.timeline.filtering import Filter, filtered
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.places import Places
from fluxperf.harness.timeline.tree import Branch, tree
from tests.timeline.judging import verdicts
from tests.timeline.making import US, Capture

THREADS = (1, 2)


def branches(capture: Capture, folder: Path) -> dict[str, Branch]:
    timeline = capture.read(folder)
    return {row.name: row for branch in tree(timeline, Places(timeline)) for _, row in branch.rows()}


def test_interleaved_domains_each_hold_what_was_launched_in_them(tmp_path: Path):
    capture = Capture()
    capture.domain(1, "one")
    capture.domain(2, "two")
    capture.range("around", 0, 100 * US)
    capture.range("first", 10 * US, 50 * US, domain=1)
    capture.range("second", 30 * US, 80 * US, domain=2)
    for at in (20, 40, 60, 90):
        capture.launch("kernel", at * US, (at + 4) * US, 3 * US)
    call = capture.call("cudaStreamSynchronize", 43 * US, 49 * US)
    capture.sync(3, 43 * US, 49 * US, call)
    found = branches(capture, tmp_path)
    assert {name: (row.kernels, row.waits) for name, row in found.items()} == {
        "around": (4, 1), "first": (2, 1), "second": (2, 1),
    }  # fmt: skip
    assert (found["first"].gpu_ms, found["second"].gpu_ms) == (pytest.approx(0.006), pytest.approx(0.006))
    assert found["first"].projected is not None
    assert found["first"].projected.total_ms == pytest.approx(0.023)
    assert {row.name for row in found["around"].children} == {"first", "second"}


@pytest.mark.parametrize("seed", range(12))
def test_each_range_holds_what_was_launched_while_it_was_open(seed, tmp_path: Path):
    chance, capture, ranges = random.Random(seed), Capture(), []
    for number in range(30):
        start, tid = chance.randrange(400), chance.choice(THREADS)
        end = start + chance.choice((0, 3, 20, 90, 300))
        name = f"r{number}"
        if chance.random() < 0.3:
            capture.started(name, start * US, end * US, tid=tid)
            ranges.append((name, start, end, {tid}))
        else:
            capture.range(name, start * US, end * US, tid=tid, domain=chance.randrange(3))
            ranges.append((name, start, end, {tid}))
    launches = [(at, chance.choice(THREADS)) for at in range(1, 700, 4)]
    for at, tid in launches:
        capture.launch("kernel", at * US, (at + 3) * US, US, tid=tid)
    found = branches(capture, tmp_path)
    for name, start, end, threads in ranges:
        expected = sum(start <= at < end and tid in threads for at, tid in launches)
        assert found[name].kernels == expected, name
        assert found[name].gpu_ms == pytest.approx(expected / 1e3)


def interleaved(folder: Path) -> Timeline:
    """`first` contains a launch, a read and a wait that belong to `second`, which began later."""
    capture = Capture()
    capture.domain(1, "one")
    capture.domain(2, "two")
    capture.range("around", 0, 200 * US)
    capture.range("first", 10 * US, 50 * US, domain=1)
    capture.range("second", 30 * US, 80 * US, domain=2)
    for at in (20, 40, 60):
        capture.launch("kernel", at * US, (at + 4) * US, 3 * US)
    call = capture.call("cudaMemcpyAsync", 42 * US, 43 * US)
    capture.copy(2, 48 * US, 49 * US, call, 4, source=2, target=1)
    call = capture.call("cudaStreamSynchronize", 44 * US, 49 * US)
    capture.sync(3, 44 * US, 49 * US, call)
    return capture.read(folder)


def state(timeline: Timeline, limit: str) -> tuple[str, str]:
    told = verdicts(timeline, limit)[limit]
    return told.state, told.reason


@pytest.mark.parametrize("place", ["first", "second"])
@pytest.mark.parametrize("limit", ["copies in {} > 0", "waits in {} > 0", "kernels in {} > 1"])
def test_a_limit_of_a_range_counts_what_another_range_has_as_its_own(limit, place, tmp_path: Path):
    assert state(interleaved(tmp_path), limit.format(place)) == ("broken", "")


def test_a_finding_that_another_range_has_is_not_decided(tmp_path: Path):
    timeline = interleaved(tmp_path)
    assert state(timeline, "item-sync in second")[0] == "broken"
    told, reason = state(timeline, "item-sync in first")
    assert told == "undecided"
    assert "'first' overlaps ranges that it does not contain" in reason
    assert state(timeline, "repeated-kernel in around") == ("kept", "")


def test_a_part_has_what_was_launched_while_its_range_was_open(tmp_path: Path):
    timeline = filtered(interleaved(tmp_path), Filter(range="first"))
    assert ([row.kind for row in timeline.work], len(timeline.syncs.blocking)) == (["kernel", "kernel", "copy"], 1)


def lone(folder: Path, at: int, kind: int = 2, size: int = 4096) -> Timeline:
    """A copy without a recorded launch call, and a range from 100 us on."""
    capture = Capture()
    capture.range("forward", 100 * US, 300 * US)
    capture.launch("kernel", 110 * US, 120 * US, 50 * US)
    capture.copy(kind, at * US, (at + 5) * US, 0, size)
    return capture.read(folder)


LIMITS = ("copies in forward > 0", "host-copy in forward", "pageable-copy in forward", "item-sync in forward")


@pytest.mark.parametrize("limit", LIMITS)
def test_a_copy_of_no_call_may_be_in_a_range_that_began_before_it_ended(limit, tmp_path: Path):
    (tmp_path / "late").mkdir()
    told, reason = state(lone(tmp_path / "late", 130), limit)
    assert (told, "without a recorded launch call" in reason) == ("undecided", True)
    assert state(lone(tmp_path, 50), limit) == ("kept", "")


def test_a_part_keeps_a_copy_that_may_be_in_it(tmp_path: Path):
    (tmp_path / "late").mkdir()
    late = filtered(lone(tmp_path / "late", 130), Filter(range="forward"))
    assert state(late, "copies > 0")[0] == "broken"
    assert state(filtered(lone(tmp_path, 50), Filter(range="forward")), "copies > 0") == ("kept", "")


def test_a_tiny_read_of_no_call_may_have_been_waited_for(tmp_path: Path):
    for folder, kind, size, expected in (("tiny", 2, 4, "undecided"), ("large", 2, 65, "kept"), ("up", 1, 4, "kept")):
        (tmp_path / folder).mkdir()
        assert state(lone(tmp_path / folder, 130, kind, size), "item-sync")[0] == expected
