"""The A/A calibration of a rung on a machine, and the records that belong to one measurement."""

from __future__ import annotations

import msgspec

from fluxperf.harness.calibration import Calibrated, kind_of
from fluxperf.harness.facts.samples import usable
from fluxperf.harness.facts.study import Rung, Study
from fluxperf.harness.records import Record

_DENOISE = "denoise"
_METRIC = f"times.{_DENOISE}"

#: Fields that are equal in records of one measurement of a rung.
_ALIKE = ("commit", "dirty", "machine", "settings", "policy")


def calibrated(study: Study, record: Record) -> Calibrated | None:
    """The A/A calibration of a record's rung on its kind of machine."""
    name = f"{record.workload.name}/{record.rung}/{_METRIC}"
    rows = (one.rows.get(name) for one in study.extras.calibrations if one.machine == kind_of(record))
    return next((row for row in rows if row), None)


def pooled(rung: Rung) -> Rung:
    """A rung with the processes of all records with the commit and versions of its newest record.

    A gate writes a record for each process. A tree with uncommitted changes is not a commit: of such a tree only the
    newest record is used.
    """
    newest = rung.record
    if newest is None or not committed(newest):
        return rung
    # a file that was given twice counts once
    once = {(row.created_utc, repr(row.times_s.get(_DENOISE))): row for row in rung.records}.values()
    same = [row for row in once if all(getattr(row, name) == getattr(newest, name) for name in _ALIKE)]
    times = {_DENOISE: [samples for row in same for samples in usable(row)]}
    merged = msgspec.structs.replace(newest, times_s=times, sampling=[one for row in same for one in row.sampling])
    return rung._replace(record=merged, records=tuple(same))


def committed(record: Record | None) -> bool:
    """Whether a record names a commit, without uncommitted changes."""
    return record is not None and record.commit is not None and record.dirty is False
