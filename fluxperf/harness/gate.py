"""The gate: takes process pairs until the verdict is certain or the policy's limit is reached, or compares files.

It fails closed: anything that prevents a judgement becomes an error row, never a pass.
"""

from __future__ import annotations

import datetime
import random
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

import fluxperf
from fluxperf.errors import FluxperfError, RecordError
from fluxperf.harness.compare import Compared, compare
from fluxperf.harness.metrics import SAMPLES
from fluxperf.harness.policy import Pairs, Policy
from fluxperf.harness.provenance import Provenance, compared
from fluxperf.harness.records import Record, RecordsFile, read_many
from fluxperf.harness.significance import pairs_needed
from fluxperf.harness.verdict import Row, Verdict, conclude, problem
from fluxperf.words import plural

Side = Literal["base", "head"]


class Runner(Protocol):
    """Measures one side in a new process."""

    def measure(self, side: Side) -> Sequence[Record]:
        """Records of one process, one for each rung.

        Raises:
            FluxperfError: the process failed, or wrote no complete record.
        """


def gate_files(
    base: Path,
    head: Path,
    policy: Policy,
    spreads: Mapping[str, float] | None = None,
    known: Provenance | None = None,
    **options: Any,
) -> Verdict:
    """The verdict on two records files. A file that cannot be read completely is an error.

    Args:
        base: records before.
        head: records after.
        policy: what is gated, and how.
        spreads: calibrated A/A scale by metric.
        known: known fields of the verdict's provenance.
        options: of `compare`.
    """
    rows: list[Row] = []
    sides: list[list[Record]] = []
    for path in (base, head):
        try:
            files = list(read_many([path]))
        except RecordError as error:
            rows.append(problem("unreadable", str(error)))
            continue
        rows += _damage(files)
        sides.append([record for file in files for record in file.records])
    found = compare(sides[0], sides[1], policy, spreads, **options) if len(sides) == 2 else Compared([], [])
    known = known or Provenance()
    if len(sides) == 2:
        known = _known(known, sides[0], sides[1], found, None)
    return conclude(
        [*rows, *found.rows], base=str(base), head=str(head), made=made(), notes=found.notes, provenance=known
    )


def gate_pairs(
    runner: Runner,
    policy: Policy,
    spreads: Callable[[Record], tuple[Mapping[str, float], str]] = lambda record: ({}, ""),
    *,
    names: tuple[str, str],
    first: int | None = None,
    on_pair: Callable[[int], None] = lambda number: None,
    seed: int | None = None,
    known: Provenance | None = None,
    now: Callable[[], float] = time.monotonic,
    **options: Any,
) -> Verdict:
    """The verdict on two revisions, from pairs of new processes in random order.

    The times of the first pair are not counted: it starts with a cool machine and empty caches. Its counts and results
    are. While the verdict is unsure, ``step`` more pairs are taken, up to the policy's ``most``. If no time is gated
    (host twins), that first pair is enough, as counts are exact.

    The side that runs first is random in each pair: with a fixed order, a disturbance of the same rhythm looks like a
    change.

    Args:
        runner: measures a side.
        policy: what is gated, and how many pairs.
        spreads: calibrated A/A scale by metric, for the kind of machine of a record, and its file's digest.
        names: names of base and head, as text.
        first: initial number of pairs, instead of the policy's.
        on_pair: called with the number of pairs, after each.
        seed: of the order; random if not given.
        known: known fields of the verdict's provenance.
        now: seconds of a clock.
        options: of `compare`.
    """
    start_s = now()
    targets = looks_at(policy.pairs, first)
    seed = secrets.randbits(32) if seed is None else seed
    turns = _Turns(runner, random.Random(seed))
    known = known or Provenance()
    taken = 0
    try:
        turns.take()
        cold = {side: [_without_times(record) for record in records] for side, records in turns.records.items()}
        turns.records = cold
        found = compare(cold["base"], cold["head"], policy.only_exact(), **options)
        times = any(record.ran_as != "twin" for record in cold["base"])
        calibrated, told = spreads(cold["base"][0])
        known = msgspec.structs.replace(known, calibration=told)
        wrong = any(row.outcome == "error" for row in found.rows)
        for target in targets if times and not wrong else ():
            while taken < target:
                turns.take()
                taken += 1
                on_pair(taken)
            both = turns.records
            found = compare(both["base"], both["head"], policy, calibrated, looks=len(targets), **options)
            if conclude(found.rows, base="", head="", made=made()).outcome != "unsure":
                break
        if not times:
            found = compare(cold["base"], cold["head"], policy, **options)
    except FluxperfError as error:
        where = "" if str(error).startswith("measuring ") else f"{turns.side}, "
        text = f"{where}after {plural(taken, 'whole pair')}: {error}"
        known = _known(known, turns.records["base"], turns.records["head"], Compared([], []), seed)
        row = problem("failed", text)
        return conclude([row], base=names[0], head=names[1], made=made(), provenance=known)
    known = _known(known, turns.records["base"], turns.records["head"], found, seed)
    excluded = ["times of the first pair: cold", *known.excluded]
    known = msgspec.structs.replace(known, seconds=round(now() - start_s, 3), pairs=taken, excluded=excluded)
    return conclude(found.rows, base=names[0], head=names[1], made=made(), notes=found.notes, provenance=known)


def looks_at(pairs: Pairs, first: int | None = None) -> list[int]:
    """Numbers of pairs at which the gate tests the data, until the verdict is certain.

    Args:
        pairs: of the policy.
        first: initial number of pairs, instead of the policy's; at least the number that can detect a change at the
            level of a look.
    """
    start = max(first or pairs.first, pairs.fewest)
    targets = [min(pairs.most, max(start, pairs_needed(1, pairs.alpha / pairs.looks(start))))]
    while targets[-1] < pairs.most:
        targets.append(min(pairs.most, targets[-1] + pairs.step))
    return targets


class _Turns:
    """Measures pairs, each in random order, and keeps all records."""

    def __init__(self, runner: Runner, order: random.Random) -> None:
        self._runner, self._order = runner, order
        self.records: dict[Side, list[Record]] = {"base": [], "head": []}
        self.side: Side = "base"

    def take(self) -> None:
        """Measures one pair."""
        sides: tuple[Side, Side] = ("base", "head")
        for side in sides if self._order.random() < 0.5 else sides[::-1]:
            self.side = side
            self.records[side] += self._runner.measure(side)


def _without_times(record: Record) -> Record:
    """A record of which only the exact metrics count."""
    empty: dict[str, dict[str, list[list[float]]]] = {one.field: {} for one in SAMPLES}
    return msgspec.structs.replace(record, **empty, sampling=[], conditions=None)


def _known(
    known: Provenance, base: Sequence[Record], head: Sequence[Record], found: Compared, seed: int | None
) -> Provenance:
    pairs = max((row.pairs or 0 for row in found.rows), default=0)
    excluded = [note for note in found.notes if "is left out" in note]
    own = compared(base, head, pairs=pairs, seed=seed, excluded=[*known.excluded, *excluded])
    kept = ["judge", "policy", "baseline", "calibration", "alive"]
    kept += [side for side, records in (("base", base), ("head", head)) if not records]  # as it was resolved
    return msgspec.structs.replace(own, **{name: getattr(known, name) for name in kept})


def made() -> tuple[str, str]:
    """Time of a verdict, and version of fluxperf."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), fluxperf.__version__


def _damage(files: Sequence[RecordsFile]) -> list[Row]:
    return [problem("damaged_file", text) for file in files for text in file.problems]
