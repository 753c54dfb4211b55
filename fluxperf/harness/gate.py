"""The gate: takes process pairs until the verdict is sure or the policy's bound is reached, or compares files.

It fails closed: whatever keeps it from judging becomes a row that is an error, never a pass.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import fluxperf
from fluxperf.errors import ArgumentError, FluxperfError, RecordError
from fluxperf.harness.compare import Compared, compare
from fluxperf.harness.policy import Policy
from fluxperf.harness.records import Record, RecordsFile, read_many
from fluxperf.harness.significance import pairs_needed
from fluxperf.harness.verdict import Row, Verdict, conclude, problem

Side = Literal["base", "head"]


class Runner(Protocol):
    """Measures one side in a fresh process."""

    def measure(self, side: Side) -> Sequence[Record]:
        """Records of one process, one for each rung.

        Raises:
            FluxperfError: the process failed, or wrote no whole record.
        """


def gate_files(base: Path, head: Path, policy: Policy, spreads: Mapping[str, float] | None = None) -> Verdict:
    """The verdict on two records files. A file that cannot be read, or not as a whole, is an error."""
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
    found = compare(sides[0], sides[1], policy, spreads) if len(sides) == 2 else Compared([], [])
    return conclude([*rows, *found.rows], base=str(base), head=str(head), made=made(), notes=found.notes)


def gate_pairs(
    runner: Runner,
    policy: Policy,
    spreads: Callable[[Record], Mapping[str, float]] = lambda record: {},
    *,
    names: tuple[str, str],
    first: int | None = None,
    on_pair: Callable[[int], None] = lambda number: None,
) -> Verdict:
    """The verdict on two revisions: base head, head base, and so on, each a fresh process.

    While the verdict is unsure, ``step`` more pairs are taken, up to the policy's ``most``. Where no time is gated
    (host twins), one pair is enough: counts are exact.

    Args:
        runner: measures a side.
        policy: what is gated, and how many pairs.
        spreads: calibrated A/A spread by metric, for the kind of machine that a record is of.
        names: what base and head are, in words.
        first: pairs to begin with, instead of the policy's.
        on_pair: told how many pairs there are, after each.
    """
    start = max(first or policy.pairs.first, policy.pairs.fewest)
    looks = policy.pairs.looks(start)
    records: dict[Side, list[Record]] = {"base": [], "head": []}
    order: tuple[Side, Side] = ("base", "head")
    taken, target = 0, 1
    while True:
        while taken < target:
            for side in order if taken % 2 == 0 else order[::-1]:
                try:
                    records[side] += runner.measure(side)
                except FluxperfError as error:
                    return _failed(side, error, taken, names)
            taken += 1
            on_pair(taken)
        known = spreads(records["base"][0]) if records["base"] else {}
        found = compare(records["base"], records["head"], policy, known, looks=looks)
        verdict = conclude(found.rows, base=names[0], head=names[1], made=made(), notes=found.notes)
        tests = sum(row.kind == "noisy" and row.outcome != "ungated" for row in found.rows)
        if taken == 1 and tests and verdict.outcome != "error":
            target = max(start, _needed(tests, policy, looks))
        elif verdict.outcome != "unsure" or taken >= policy.pairs.most:
            return verdict
        else:
            target = min(policy.pairs.most, taken + policy.pairs.step)


def made() -> tuple[str, str]:
    """When a verdict is made, and by which version."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), fluxperf.__version__


def _needed(tests: int, policy: Policy, looks: int) -> int:
    """Pairs with which any of so many times can be shown to be worse; no more than the policy allows."""
    try:
        return min(policy.pairs.most, pairs_needed(tests, policy.pairs.alpha / looks))
    except ArgumentError:
        return policy.pairs.fewest


def _failed(side: Side, error: FluxperfError, pairs: int, names: tuple[str, str]) -> Verdict:
    text = f"{side}, after {pairs} whole pairs: {error}"
    return conclude([problem("failed", text)], base=names[0], head=names[1], made=made())


def _damage(files: Sequence[RecordsFile]) -> list[Row]:
    return [problem("damaged_file", text) for file in files for text in file.problems]
