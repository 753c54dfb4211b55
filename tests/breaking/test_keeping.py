"""A measured record is kept even if a signal arrives while it is written."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from fluxperf import lifeline
from fluxperf.cli import keeping
from fluxperf.harness.records import Record, append_record, read_records
from tests.history.making import record


def test_a_record_that_is_being_appended_is_kept_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(path: Path, row: Record) -> None:
        signal.raise_signal(signal.SIGTERM)
        append_record(path, row)

    monkeypatch.setattr(keeping, "append_record", told)
    output = tmp_path / "records.jsonl"
    keep = keeping.Keeping(output)
    with lifeline.stoppable(), pytest.raises(lifeline.Stopped) as stopped, keep.until_done():
        keep.add([record(1), record(2)])
    assert len(read_records(output).records) == 1
    assert stopped.value.__notes__ == [f"Already finished and saved: 1 record appended to {output}."]
