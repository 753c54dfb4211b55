"""Counts of a profiled run, written beside its timeline, and their comparison with the timeline.

Copies are compared by block, op, label and direction, number and bytes. A copy that did not go through the door, or
that the timeline lacks, is a difference. There must be at least as many kernels as counted launches, since one library
call may launch several. If steps were launches of a graph, the launches counted during capture count again in every
step.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from fluxperf.documents import formatted
from fluxperf.errors import TimelineError
from fluxperf.files import write_whole
from fluxperf.harness.records import Machine, OpRow, TriedRow, WorkloadRow
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.model import Timeline, Work
from fluxperf.harness.timeline.replayed import check_replays
from fluxperf.harness.timeline.summary import summarize
from fluxperf.words import plural

SCHEMA = 1

#: Minimum share of the steps' GPU time that must lie in ops.
LEAST_IN_OPS = 0.98

#: Maximum number of differences that are listed one by one.
_MOST = 12

_SECTION = re.compile(r"[a-z]+ \d+")
_STEP = re.compile(r"step \d+")


class CopyCount(msgspec.Struct, frozen=True, kw_only=True):
    """Copies in the profiled steps with the same block, op, label and direction. ``block`` is like ``double 7``."""

    block: str
    op: str
    label: str
    direction: Literal["d2h", "h2d"]
    count: int
    bytes: int


class LaunchCount(msgspec.Struct, frozen=True, kw_only=True):
    """Launch calls of one op in one block."""

    block: str
    op: str
    launches: int


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a run in its profiled steps. Seconds are host seconds while the profiler was active.

    ``form`` is ``graph`` if each step was one launch of a CUDA graph; ``launches`` are then those inside the graph.
    ``ops`` are the calls, bytes and operations of one step, and the seconds of each op, observed in separate steps
    without the profiler. ``products`` names the ops whose work is matrix products. ``policy``, ``choices``,
    ``trials_s`` and ``tried`` are as in a record. ``untraced_steps_s`` are times of steps of the same process while the
    profiler did not trace, on the device's clock; empty if ops were launched one by one. Ledgers of earlier versions
    have none of these.
    """

    schema: int = SCHEMA
    fluxperf: str
    workload: str
    rung: str
    steps: int
    warmup: int
    seconds: float
    copies: list[CopyCount]
    launches: list[LaunchCount]
    form: Literal["ops", "graph"] = "ops"
    created_utc: str = ""
    commit: str | None = None
    dirty: bool | None = None
    machine: Machine | None = None
    sizes: WorkloadRow | None = None
    policy: dict[str, str] = {}
    ops: list[OpRow] = []
    products: list[str] = []
    choices: dict[str, str] = {}
    trials_s: dict[str, list[float | None]] = {}
    tried: list[TriedRow] = []
    untraced_steps_s: list[float] = []


class Comparison(NamedTuple):
    """Sentences about agreement and disagreement."""

    agreed: list[str]
    problems: list[str]


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Writes a ledger.

    Raises:
        RecordError: the file cannot be written.
    """
    write_whole(path, formatted(ledger, indent=1) + "\n")


def read_ledger(path: Path) -> Ledger:
    """Reads a ledger.

    Raises:
        TimelineError: it cannot be read, or is not a ledger.
    """
    try:
        ledger = msgspec.json.decode(path.read_bytes(), type=Ledger)
    except OSError as error:
        raise TimelineError(
            f"cannot read {path}: {error.strerror}. Expected the ledger that `fluxperf profile` writes beside a "
            "capture. Correct the path."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TimelineError(
            f"cannot read {path}: expected a ledger written by `fluxperf profile`, got: {shown(str(error), 200)}. "
            "Profile again."
        ) from error
    if ledger.schema != SCHEMA:
        raise TimelineError(
            f"cannot read {path}: expected a ledger of schema {SCHEMA}, got {ledger.schema}. Read it with the "
            "version of fluxperf that wrote it."
        )
    return ledger


def compare(timeline: Timeline, ledger: Ledger) -> Comparison:
    """Compares an attributed timeline of profiled steps with their ledger."""
    labels = {row.label for row in ledger.copies}
    places = [_place(timeline, index, labels) for index in range(len(timeline.ranges))]
    agreed, problems = _copies(timeline, ledger, places)
    launched = _launches(timeline, ledger, places)
    agreed += launched.agreed
    problems += launched.problems
    if ledger.form == "graph":
        replays = check_replays(timeline, ledger.steps)
        agreed += replays[0]
        problems += replays[1]
    share = summarize(timeline).in_ops
    if share is None or share < LEAST_IN_OPS:
        held = "no GPU time" if share is None else f"{100 * share:.1f} % of the GPU time"
        problems.append(f"Ops account for {held} of the steps, expected at least {100 * LEAST_IN_OPS:.0f} %.")
    if timeline.lost:
        problems.append("The profiler lost events: capture fewer steps.")
    problems += [f"The data are damaged: {row.text}. Capture again." for row in timeline.damage if row.of]
    return Comparison(agreed, problems)


class _Place(NamedTuple):
    block: str
    op: str
    label: str


_NOWHERE = _Place("", "", "")


def _place(timeline: Timeline, index: int, labels: set[str]) -> _Place:
    """Block, innermost op and label of a range, as in the ledger."""
    names = [timeline.ranges[i].name for i in timeline.chain(index)]
    label = names.pop() if names and names[-1] in labels else ""
    op = names.pop() if names and not _SECTION.fullmatch(names[-1]) else ""
    block = next((name for name in reversed(names) if _SECTION.fullmatch(name)), "")
    return _Place(block, op, label)


def _counted(timeline: Timeline, ledger: Ledger) -> Iterable[Work]:
    """Work that the ledger also counts: for a graph the work of its launches, not of its capture."""
    if ledger.form != "graph":
        return timeline.work
    known: dict[int, bool] = {}
    for row in timeline.work:
        if row.range not in known:
            known[row.range] = any(_STEP.fullmatch(timeline.ranges[i].name) for i in timeline.chain(row.range))
    return [row for row in timeline.work if known[row.range]]


def _copies(timeline: Timeline, ledger: Ledger, places: list[_Place]) -> Comparison:
    expected: dict[tuple[str, ...], tuple[int, int]] = {
        (row.block, row.op, row.label, row.direction): (row.count, row.bytes) for row in ledger.copies
    }
    counts: Counter[tuple[str, ...]] = Counter()
    sizes: Counter[tuple[str, ...]] = Counter()
    for row in _counted(timeline, ledger):
        if row.copy is not None and row.copy.crossing:
            place = places[row.captured] if row.captured >= 0 else places[row.range] if row.range >= 0 else _NOWHERE
            key: tuple[str, ...] = (*place, row.copy.crossing)
            counts[key] += row.copy.count
            sizes[key] += row.bytes
    problems = []
    for key in [*expected, *(key for key in counts if key not in expected)]:
        wanted, came = expected.get(key, (0, 0)), (counts[key], sizes[key])
        if wanted != came:
            problems.append(
                f"{_named(key)}: the ledger has {_amount(*wanted)}, the timeline {_amount(*came)}."
                + ("" if key[2] else " The copy did not go through the door.")
            )
    if problems:
        more = len(problems) - _MOST
        return Comparison([], problems[:_MOST] + ([f"{more} more differences in copies."] if more > 0 else []))
    total = _amount(sum(counts.values()), sum(sizes.values()))
    return Comparison([f"copies and bytes: equal to the ledger, {total} in {plural(len(expected), 'place')}"], [])


def _launches(timeline: Timeline, ledger: Ledger, places: list[_Place]) -> Comparison:
    times = ledger.steps if ledger.form == "graph" else 1
    expected = {(row.block, row.op): times * row.launches for row in ledger.launches}
    kernels: Counter[tuple[str, str]] = Counter()
    for row in _counted(timeline, ledger):
        if row.kind == "kernel":
            place = places[row.captured] if row.captured >= 0 else places[row.range] if row.range >= 0 else _NOWHERE
            kernels[place.block, place.op] += 1
    missing = [key for key, number in expected.items() if kernels[key] < number]
    if missing:
        named = [
            f"{_named(key)}: {plural(expected[key], 'launch', 'launches')}, {plural(kernels[key], 'kernel')}"
            for key in missing[:_MOST]
        ]
        return Comparison([], [f"The timeline has fewer kernels than launches: {'; '.join(named)}."])
    more: Counter[str] = Counter()
    for key, number in kernels.items():
        more[key[1] or key[0] or "outside of any range"] += number - expected.get(key, 0)
    extra = ", ".join(f"{op} {number}" for op, number in more.most_common() if number)
    text = f"launches: {sum(expected.values())} counted, {plural(sum(kernels.values()), 'kernel')}"
    return Comparison(
        [f"{text}; ops with more kernels than calls: {extra}" if extra else f"{text}, equal in every op"], []
    )


def _named(key: Iterable[str]) -> str:
    return " / ".join(part for part in key if part) or "outside of any range"


def _amount(count: int, nbytes: int) -> str:
    return f"{count} {'copy' if count == 1 else 'copies'} of {nbytes:,} B"
