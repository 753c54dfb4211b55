"""Reads any number of records files for a report, and keeps only those records whole whose numbers are shown.

Up to `MOST_BYTES`, all records stay whole. Beyond that, points go into columns and records become outlines. The records
that the page shows are then read once more.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from fluxperf.errors import RecordError
from fluxperf.harness.columns import Gathering
from fluxperf.harness.facts.ceilings import Ceiling, highest, tried_ceilings
from fluxperf.harness.facts.inputs import Context, Extras
from fluxperf.harness.facts.provenance import where
from fluxperf.harness.facts.samples import sizes_of
from fluxperf.harness.facts.study import Study, newest, survey
from fluxperf.harness.outlines import Outline, Outliner
from fluxperf.harness.places import File, Place, Unread, digest_of, line_at, visit
from fluxperf.harness.records import SUFFIX, WANTED, Record, RecordsFile, records_in
from fluxperf.uncollected import uncollected

#: Maximum bytes of records that are all kept whole. In memory they take three times as much.
MOST_BYTES = 40_000_000


class _Lines(NamedTuple):
    """A file, with the positions of its records in bytes."""

    file: File
    starts: array[int]
    ends: array[int]


class Sifted:
    """Reads records files; see the module.

    Args:
        most: maximum bytes of records that are all kept whole.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        #: Points of every record, of all files.
        self.gathering = Gathering()
        #: The highest rates of libraries' trials in records of which only an outline is kept.
        self.tried: list[Ceiling] = []
        self._most, self._bytes, self._outlined = most, 0, False
        self._outliner = Outliner()
        self._kept: list[list[Record]] = []
        self._lie: dict[str, _Lines] = {}

    def read(self, places: Iterable[Place], origin: str = "", apart: Collection[str] = ()) -> Iterator[RecordsFile]:
        """Reads the files at some places, as `fluxperf.harness.records.read_many` does.

        Args:
            places: files, folders, patterns and URLs.
            origin: a word that distinguishes their series from others.
            apart: paths of files to leave out.

        Raises:
            RecordError: a named file cannot be read or contains no record, or a folder contains no file that does.
        """

        def use(file: File, lines: Iterator[bytes]) -> RecordsFile | None:
            return None if file.name in apart else self._read(file, lines, origin)

        with uncollected():
            for found in visit(places, (SUFFIX,), use, WANTED):
                if isinstance(found, Unread):
                    yield RecordsFile(found.name, [], [found.problem])
                elif found is not None:
                    yield found

    def _read(self, file: File, lines: Iterator[bytes], origin: str) -> RecordsFile:
        kept: list[Record] = []
        digests, problems, where, at = list[bytes](), list[str](), _Lines(file, array("Q"), array("Q")), 0

        def counted() -> Iterator[bytes]:
            nonlocal at
            for line in lines:
                at += len(line)
                yield line

        self._kept.append(kept)
        for record, line in records_in(file.name, counted(), problems):
            digests.append(digest_of(line))
            where.starts.append(at - len(line))
            where.ends.append(at)
            self.gathering.add(record, file.name, len(digests), digests[-1], origin)
            kept.append(self._fitting(record, len(line)))
        self._lie[file.name] = where
        return RecordsFile(file.name, kept, problems, digests)

    def _fitting(self, record: Record, size: int) -> Record:
        """The record, or its outline if there are too many; then earlier records become outlines too."""
        self._bytes += size
        if self._bytes <= self._most:
            return record
        if not self._outlined:
            self._outlined = True
            for kept in self._kept:
                kept[:] = map(self._outline, kept)
        return self._outline(record)

    def _outline(self, record: Record) -> Outline:
        if record.choices:
            self.tried = highest([*self.tried, *tried_ceilings([record])])
        return self._outliner.of(record)

    def survey(self, files: Sequence[RecordsFile], context: Context, extras: Extras) -> Study:
        """The study of the files, with whole records where it shows them.

        Raises:
            RecordError: a file has changed since.
        """
        extras = extras._replace(tried=self.tried)
        found = survey(files, context, extras)
        if not self._outlined:
            return found
        wanted = {id(record) for record in _shown(found)}
        return survey([self._whole(file, wanted) for file in files], context, extras)

    def _whole(self, file: RecordsFile, wanted: set[int]) -> RecordsFile:
        """A file with the wanted records as they were read."""
        places = [place for place, record in enumerate(file.records) if id(record) in wanted]
        if not places:
            return file
        records, (found, starts, ends) = list(file.records), self._lie[file.path]
        for place in places:
            try:
                line = line_at(found, starts[place], ends[place] - starts[place])
            except OSError as error:
                raise RecordError(
                    f"cannot read {file.path} again: {error.strerror or error}. Make the report again."
                ) from error
            if digest_of(line) != file.digests[place]:
                raise RecordError(
                    f"{file.path}: expected an unchanged file, but it changed while it was read. Make the report again."
                )
            records[place] = next(records_in(file.path, [line], []))[0]
        return msgspec.structs.replace(file, records=records)


def _shown(study: Study) -> Iterator[Record]:
    """Records whose numbers a page may show.

    Of each rung: the newest, others of its commit (processes of one measurement), and the newest with each combination
    of settings (to be compared with peers that were run in the same way). Of each kernel: the newest. Of pictures: all,
    as they are few.
    """
    yield from study.pictures
    for ladder in study.ladders:
        for rung in ladder.rungs:
            of_settings: dict[tuple[tuple[str, str], ...], list[Record]] = {}
            for record in rung.records:
                if rung.record and (record.commit, record.dirty) == (rung.record.commit, rung.record.dirty):
                    yield record
                if sizes_of(record):
                    of_settings.setdefault(tuple(record.settings.items()), []).append(record)
            yield from (last for some in of_settings.values() if (last := newest(some)))
    kernels: dict[tuple[str, str], list[Record]] = {}
    for record in study.kernels:
        kernels.setdefault((where(record), record.rung), []).append(record)
    yield from (last for some in kernels.values() if (last := newest(some)))
