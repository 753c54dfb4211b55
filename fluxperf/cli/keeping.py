"""Records of a command: each kept when it is done, whatever happens to the disk or to the command later."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from fluxperf.cli.terminal import harmless_json
from fluxperf.errors import RecordError
from fluxperf.files import check_writable
from fluxperf.harness.records import Record, append_record
from fluxperf.lifeline import undisturbed
from fluxperf.words import plural


class Keeping:
    """Appends records to a file. What it does not take goes to a file elsewhere, or else is printed.

    Args:
        output: records file; ``None`` if nobody wants one.
        show: shows records; called with those that were finished when the command is stopped and no file has them.

    Raises:
        RecordError: the file could not be written: said now, before anything is measured.
    """

    def __init__(self, output: Path | None, show: Callable[[list[Record]], None] = lambda records: None) -> None:
        if output is not None:
            check_writable(output, appended=True)
        self.output, self.records = output, list[Record]()
        self._show, self._elsewhere, self._refused = show, list[str](), ""

    def add(self, records: Iterable[Record]) -> None:
        """Keeps records of a rung; what goes wrong is said in the end, since other rungs can be measured."""
        for record in records:
            with undisturbed():
                self._keep(record)

    def _keep(self, record: Record) -> None:
        self.records.append(record)
        if self.output is None:
            return
        try:
            append_record(self.output, record)
        except RecordError as error:
            self._refused = self._refused or str(error)
            self._elsewhere.append(_rescued(record, self.output))

    @contextmanager
    def until_done(self) -> Iterator[None]:
        """Around what measures.

        Raises:
            RecordError: the file did not take all records; says where they are.
            KeyboardInterrupt: the command was stopped; a note says what was kept.
        """
        try:
            yield
        except KeyboardInterrupt as error:
            if self.records and self.output is None:
                self._show(self.records)
            error.add_note(kept(self.records, self.output))
            if self._refused:
                error.add_note(self._said())
            raise
        self.check()

    def check(self) -> None:
        """For those whom others wait for, after each record.

        Raises:
            RecordError: the file did not take all records; says where they are.
        """
        if self._refused:
            raise RecordError(self._said())

    def _said(self) -> str:
        places = ", ".join(dict.fromkeys(self._elsewhere))
        return f"{self._refused} {plural(len(self._elsewhere), 'record')} that it did not take: {places}."


def kept(records: list[Record], output: Path | None) -> str:
    """A sentence for a command that was stopped: where the finished records are."""
    if not records:
        return "No rung was finished before."
    where = "shown above" if output is None else f"appended to {output}"
    return f"What was finished before is kept: {plural(len(records), 'record')} {where}."


def _rescued(record: Record, output: Path) -> str:
    """Where a record went that its file did not take."""
    elsewhere = Path(tempfile.gettempdir()) / f"fluxperf-rescued-{os.getpid()}-{output.name[:100]}"
    try:
        append_record(elsewhere, record)
    except RecordError:
        print(harmless_json(msgspec.json.encode(record).decode()))
        return "on standard output"
    return f"in {elsewhere}"
