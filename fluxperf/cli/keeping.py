"""Records of a command: each kept when it is done, whatever happens to the disk or to the command later."""

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
        self._show, self._elsewhere, self._refused, self._others = show, list[str](), "", list[str]()

    def add(self, records: Iterable[Record]) -> None:
        """Keeps records of a rung; what goes wrong is said in the end, since other rungs can be measured."""
        for record in records:
            with undisturbed():
                self._keep(record)

    def put(self, path: Path, write: Callable[[Path], object]) -> None:
        """Writes a file that belongs to the records; likewise."""
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
        """Around what measures.

        Raises:
            RecordError: a file did not take what it was to; says where that is.
            BaseException: what goes wrong meanwhile, with a note about that; if the command was stopped, also about
                what was kept.
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
        """For those whom others wait for, after each record.

        Raises:
            RecordError: a file did not take what it was to; says where that is.
        """
        if said := self._said():
            raise RecordError(" ".join(said))

    def _said(self) -> list[str]:
        """A sentence about what was refused."""
        found = list(self._others)
        if self._refused:
            places = ", ".join(dict.fromkeys(self._elsewhere))
            found.append(f"{self._refused} {plural(len(self._elsewhere), 'record')} that it did not take: {places}.")
        return found


def kept(records: list[Record], output: Path | None) -> str:
    """A sentence for a command that was stopped: where the finished records are."""
    if not records:
        return "No rung was finished before."
    where = "shown above" if output is None else f"appended to {output}"
    return f"What was finished before is kept: {plural(len(records), 'record')} {where}."


def _rescued(record: Record, output: Path) -> str:
    """Where a record went that its file did not take."""
    where = rescued(output, lambda path: append_record(path, record))
    if not where:
        print(harmless_json(encoded(record).decode()))
    return where or "on standard output"
