"""Saves the records of a command as soon as each is measured, even if the disk or the command fails later."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fluxperf.cli.rescue import rescued, write_or_rescue
from fluxperf.cli.terminal import harmless_json
from fluxperf.documents import encoded
from fluxperf.errors import RecordError
from fluxperf.files import check_writable
from fluxperf.harness.records import Record, append_record
from fluxperf.lifeline import undisturbed
from fluxperf.words import plural


class Keeping:
    """Appends records to a file. If that fails, records go to a file elsewhere, or are printed as the last resort.

    Args:
        output: records file; ``None`` to write none.
        show: prints records; called with the finished ones if the command is stopped and they are in no file.

    Raises:
        RecordError: the file cannot be written. This is checked before anything is measured.
    """

    def __init__(self, output: Path | None, show: Callable[[list[Record]], None] = lambda records: None) -> None:
        if output is not None:
            check_writable(output, appended=True)
        self.output, self.records = output, list[Record]()
        self._show, self._elsewhere, self._refused, self._others = show, list[str](), "", list[str]()

    def add(self, records: Iterable[Record]) -> None:
        """Saves the records of a rung. Errors are reported at the end, so that the other rungs are still measured."""
        for record in records:
            with undisturbed():
                self._keep(record)

    def put(self, path: Path, write: Callable[[Path], object]) -> None:
        """Writes a file that belongs to the records, with errors reported at the end too."""
        try:
            write_or_rescue(path, write)
        except RecordError as error:
            self._others.append(str(error))

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
        """Context for the measurement. Reports errors of saving at its end.

        Raises:
            RecordError: a file could not be written; the message says where the content is instead.
            BaseException: any error of the measurement, with notes about errors of saving and, if the command was
                stopped, about what was saved.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                if self.records and self.output is None:
                    self._show(self.records)
                error.add_note(kept(self.records, self.output))
            for said in self._said():
                error.add_note(said)
            raise
        self.check()

    def check(self) -> None:
        """Raises errors of saving after each record, for runs that other processes wait for.

        Raises:
            RecordError: a file could not be written; the message says where the content is instead.
        """
        if said := self._said():
            raise RecordError(" ".join(said))

    def _said(self) -> list[str]:
        """Sentences about what could not be saved."""
        found = list(self._others)
        if self._refused:
            places = ", ".join(dict.fromkeys(self._elsewhere))
            found.append(
                f"{self._refused} {plural(len(self._elsewhere), 'record')} that could not be saved there: {places}."
            )
        return found


def kept(records: list[Record], output: Path | None) -> str:
    """A sentence for a command that was stopped: where the finished records are."""
    if not records:
        return "No rung was finished before."
    where = "shown above" if output is None else f"appended to {output}"
    return f"Already finished and saved: {plural(len(records), 'record')} {where}."


def _rescued(record: Record, output: Path) -> str:
    """Saves a record elsewhere after its file could not be written. Returns the place."""
    where = rescued(output, lambda path: append_record(path, record))
    if not where:
        print(harmless_json(encoded(record).decode()))
    return where or "on standard output"
