"""Calibration: the spread of a machine compared with itself (A/A), and the smallest detectable change."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fluxperf.documents import formatted
from fluxperf.errors import PolicyError
from fluxperf.files import locked, write_whole
from fluxperf.harness.compare import driver_class
from fluxperf.harness.gate import made
from fluxperf.harness.policy import Noisy
from fluxperf.harness.records import Record
from fluxperf.harness.significance import detectable, median_bound, robust_spread
from fluxperf.harness.verdict import finite

SCHEMA = 1

#: A larger spread is not a valid measurement: pairs of one program would differ by more than a factor of two.
MOST_SPREAD = 1.0


class Calibrated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One metric of one rung, A/A. ``spread`` is the robust scale of the log ratios of pairs (`robust_spread`).

    ``detectable`` is the smallest relative change that this number of ``pairs`` detects with the policy's power;
    ``None`` if there is none. ``measured`` is the number of pairs from which the spread was computed; 0 means that it
    equals ``pairs``. ``forked`` is whether the processes were forked, so that their libraries had the same addresses.
    """

    spread: Annotated[float, Meta(ge=0, le=MOST_SPREAD)]
    detectable: float | None
    pairs: int
    measured: int = 0
    alpha: float
    power: float
    ran_as: str
    forked: bool = False
    created_utc: str


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A calibration of one kind of machine: a row by ``workload/rung/metric``."""

    schema: int
    machine: str
    rows: dict[str, Calibrated] = {}

    @property
    def spreads(self) -> dict[str, float]:
        """A/A spread by metric."""
        return {name: row.spread for name, row in self.rows.items()}


def kind_of(record: Record) -> str:
    """The kind of machine of a calibration: GPU and driver class, or the CPU of host twins."""
    machine = record.machine
    name = f"{machine.gpu} driver {driver_class(machine)}" if machine.gpu else f"{machine.cpu} {machine.cores} cores"
    # it is used as a file name, and few file systems allow longer ones
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:120] or "unknown"


def file_of(folder: Path, record: Record) -> Path:
    """The calibration file for the kind of machine of a record."""
    return folder / f"calibration-{kind_of(record)}.json"


def calibrated(
    logs: Sequence[float], pairs: int, rule: Noisy, *, alpha: float, power: float, ran_as: str, forked: bool
) -> Calibrated:
    """The spread of a metric's A/A pairs, and the smallest change that ``pairs`` of them detect.

    Args:
        logs: logarithm of worse over better of each measured pair.
        pairs: of a comparison.
        rule: of the metric: its margin and floor.
        alpha: level of the test.
        power: probability with which the change is to be detected.
        ran_as: as kernels or twins.
        forked: whether the processes were forked.
    """
    width = min(robust_spread(logs), MOST_SPREAD)
    least = detectable(width, pairs, alpha, power, math.log1p(rule.margin))
    return Calibrated(
        spread=width,
        detectable=finite(max(least, rule.floor_relative, math.expm1(median_bound(width, pairs, alpha)))),
        pairs=pairs,
        measured=len(logs),
        alpha=alpha,
        power=power,
        ran_as=ran_as,
        forked=forked,
        created_utc=made()[0],
    )


def read_calibration(path: Path) -> Calibration | None:
    """The calibration in a file, or ``None`` if there is no such file.

    Raises:
        PolicyError: the file exists, but cannot be used.
    """
    if not path.exists():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PolicyError(
            f"calibration {path}: cannot be read ({error.strerror}). Make it readable, or calibrate again."
        ) from error
    return parse_calibration(content, str(path))


def parse_calibration(content: bytes, name: str) -> Calibration:
    """The calibration in the content of a file.

    Raises:
        PolicyError: it cannot be used.
    """
    try:
        found = msgspec.json.decode(content, type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(
            f"calibration {name}: expected a file of `fluxperf gate calibrate`, got something else ({error}). "
            "Remove the file and calibrate again."
        ) from error
    if found.schema != SCHEMA:
        raise PolicyError(
            f"calibration {name}: expected schema {SCHEMA}, got {found.schema}. Calibrate again with this version "
            "of fluxperf."
        )
    return found


def store(path: Path, machine: str, rows: dict[str, Calibrated]) -> Calibration:
    """Adds rows to a calibration file, which is replaced as a whole. Rows with the same name are replaced.

    Raises:
        PolicyError: the existing file cannot be used.
        RecordError: the file cannot be written.
    """
    with locked(path):
        before = read_calibration(path)
        merged = Calibration(schema=SCHEMA, machine=machine, rows={**(before.rows if before else {}), **rows})
        write_whole(path, formatted(merged) + "\n")
    return merged
