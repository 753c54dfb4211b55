"""Calibration: the spread of a machine compared with itself (A/A), and the smallest change that shows on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxperf.errors import PolicyError, RecordError
from fluxperf.harness.compare import compare, driver_class, place_of, samples_of
from fluxperf.harness.files import write_whole
from fluxperf.harness.gate import Runner, Side, made
from fluxperf.harness.noisy import Task, logarithms
from fluxperf.harness.policy import Policy
from fluxperf.harness.records import Record
from fluxperf.harness.significance import detectable, spread
from fluxperf.harness.verdict import finite

SCHEMA = 1


class Calibrated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric of one rung, A/A. ``spread`` is the standard deviation of the logarithms of pairs' ratios.

    ``detectable`` is the smallest relative change that as many pairs show with the policy's power; ``None`` if none is.
    """

    spread: float
    detectable: float | None
    pairs: int
    alpha: float
    power: float
    ran_as: str
    created_utc: str


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was found on one kind of machine: a row by ``workload/rung/metric``."""

    schema: int
    machine: str
    rows: dict[str, Calibrated] = {}

    @property
    def spreads(self) -> dict[str, float]:
        """A/A spread by metric."""
        return {name: row.spread for name, row in self.rows.items()}


class AA(NamedTuple):
    """Records of two sides of one and the same program."""

    base: list[Record]
    head: list[Record]


def kind_of(record: Record) -> str:
    """The kind of machine that a calibration belongs to: GPU and driver class, or the CPU of host twins."""
    machine = record.machine
    name = f"{machine.gpu} driver {driver_class(machine)}" if machine.gpu else f"{machine.cpu} {machine.cores} cores"
    # It names a file: no file system takes much longer names.
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:120] or "unknown"


def file_of(folder: Path, record: Record) -> Path:
    """Where the calibration of a record's kind of machine lies."""
    return folder / f"calibration-{kind_of(record)}.json"


def take(runner: Runner, pairs: int, on_pair: Callable[[int], None] = lambda number: None) -> AA:
    """Measures both sides of pairs in fresh processes, in the order that the gate uses.

    Raises:
        FluxperfError: a process failed.
    """
    found = AA([], [])
    order: tuple[Side, Side] = ("base", "head")
    for number in range(pairs):
        for side in order if number % 2 == 0 else order[::-1]:
            getattr(found, side).extend(runner.measure(side))
        on_pair(number + 1)
    return found


def calibrate(measured: AA, policy: Policy) -> dict[str, Calibrated]:
    """Spread and minimum detectable effect of each noisy metric of the policy, of each rung.

    Raises:
        RecordError: the two sides cannot be compared, or a metric has no usable samples.
    """
    refused = [row for row in compare(measured.base, measured.head, policy).rows if row.outcome == "error"]
    if refused:
        raise RecordError(f"gate calibrate: {refused[0].message} ({len(refused)} such rows; {refused[0].id})")
    rows = {}
    for place in dict.fromkeys(place_of(record) for record in measured.base):
        sides = [[record for record in side if place_of(record) == place] for side in measured]
        for name, rule in policy.noisy_of(place.workload).items():
            base, head = (samples_of(records, name.removeprefix("times.")) for records in sides)
            logs = logarithms(Task(place, name, base, head, rule))
            width, test = spread(logs), policy.pairs
            margin = max(width, rule.margin)
            rows[f"{place.workload}/{place.rung}/{name}"] = Calibrated(
                spread=width,
                detectable=finite(detectable(width, len(logs), test.alpha, test.power, margin)),
                pairs=len(logs),
                alpha=test.alpha,
                power=test.power,
                ran_as=sides[0][0].ran_as,
                created_utc=made()[0],
            )
    return rows


def read_calibration(path: Path) -> Calibration | None:
    """The calibration in a file, or ``None`` where there is no such file.

    Raises:
        PolicyError: the file is there, but cannot be used.
    """
    if not path.exists():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PolicyError(
            f"calibration {path}: expected what `fluxperf gate calibrate` writes, got something else ({error}). "
            "Remove the file and calibrate again."
        ) from error
    if found.schema != SCHEMA:
        raise PolicyError(
            f"calibration {path}: expected schema {SCHEMA}, got {found.schema}. Calibrate again with this fluxperf."
        )
    return found


def store(path: Path, machine: str, rows: dict[str, Calibrated]) -> Calibration:
    """Adds rows to a calibration file, which is replaced whole; rows of the same name are replaced.

    Raises:
        PolicyError: what is there cannot be used.
        RecordError: the file cannot be written.
    """
    before = read_calibration(path)
    merged = Calibration(schema=SCHEMA, machine=machine, rows={**(before.rows if before else {}), **rows})
    write_whole(path, msgspec.json.format(msgspec.json.encode(merged)).decode() + "\n")
    return merged
