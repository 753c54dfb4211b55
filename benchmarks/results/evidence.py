"""Reads one folder of evidence: of one commit, of one kind of card, and complete but for parts that are named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fluxperf.errors import ConfigError, RecordError, UnknownNameError
from fluxperf.harness.collecting import Collection
from fluxperf.harness.facts.ceilings import rates_in
from fluxperf.harness.facts.documents import Documents, documents_in
from fluxperf.harness.facts.evidence import Given, gathered
from fluxperf.harness.facts.pictures import pictures_shown
from fluxperf.harness.facts.sifting import Sifted
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.parts import Here, Part, key_of, kind_of
from fluxperf.harness.records import IN_TURNS_WITH, Record, RecordsFile, variant
from fluxperf.published import context
from fluxperf.shipped import BASELINES, present
from fluxperf.suites import SUITES, lacking_in, processes_of
from fluxperf.workloads import HEADLINE

ROOT = Path(__file__).resolve().parents[2]
SUITE = "headline"


class Evidence(NamedTuple):
    """A folder's evidence: the study of its records, its documents, and the processes that each missing part lacks."""

    folder: Path
    study: Study
    documents: Documents
    lacking: Mapping[str, int]

    @property
    def name(self) -> str:
        """The folder as pages name it: its path in the checkout."""
        path = self.folder.resolve()
        return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else self.folder).as_posix()

    @property
    def processes(self) -> str:
        """The number of its processes, in words: "all 87 processes", or "85 of 87 processes"."""
        of = processes_of(SUITE)
        missing = sum(self.lacking.values())
        return f"{of - missing} of {of} processes" if missing else f"all {of} processes"

    @property
    def first(self) -> Record:
        """One of its records; commit and machine are the same in all."""
        return self.study.records[0]

    @property
    def commit(self) -> str:
        """Short hash of the commit."""
        return str(self.first.commit)[:7]

    @property
    def card(self) -> str:
        """Name of the card."""
        return str(self.first.machine.gpu)

    def ladder(self, workload: str) -> Ladder:
        """The ladder of a workload.

        Raises:
            RecordError: there is none.
        """
        for one in self.study.climbing:
            if one.workload.name == workload:
                return one
        raise RecordError(f"{self.folder}: expected records of {workload}, got none.")

    def within(self, workload: str) -> list[Record]:
        """Records of a workload with a memory budget."""
        return [one for one in self.ladder(workload).records if variant(one) != one.rung]


def read(folder: Path, without: Sequence[str] = ()) -> Evidence:
    """The evidence in a folder.

    Args:
        folder: path of the folder.
        without: names of parts of which no process is measured; pages say so.

    Raises:
        RecordError: another part is missing, one of these is not, a file is damaged, or commits, trees or machines are
            mixed.
        UnknownNameError: the suite measures no rung in a part of this name.
    """
    parts = {part.name: part for part in SUITES[SUITE]()}
    for name in without:
        if name not in parts or not parts[name].key:
            raise UnknownNameError(
                "part that measures a rung", name, [name for name, part in parts.items() if part.key]
            )
    sifted = Sifted()
    files = list(sifted.read([str(folder)]))
    problems = [problem for file in files for problem in file.problems]
    lacking = lacking_in(folder, SUITE)
    records = [record for file in files for record in file.records]
    there = {key_of(record.workload, record.rung, record.settings) for record in records}
    problems += _missing(folder, lacking, {name: parts[name].key in there for name in without})
    if any(record.dirty for record in records):
        problems.append("Some records are of a changed tree.")
    origins = {(str(record.commit), kind_of(record.machine)) for record in records}
    for what, found in (("commit", {one for one, _ in origins}), ("kind of card", {one for _, one in origins})):
        if len(found) != 1:
            problems.append(f"Expected one {what}, got {', '.join(sorted(found)) or 'none'}.")
    if not problems:
        ((commit, kind),) = origins
        problems += _of_another(folder, Here(commit, False, kind))
    if not problems:
        evidence = _studied(folder, sifted, files, lacking)
        problems += _unread(evidence, [part for name, part in parts.items() if name not in without])
    if problems:
        raise RecordError(f"{folder} is not drawn: README and docs show whole evidence only. {' '.join(problems)}")
    return evidence


def _missing(folder: Path, lacking: Mapping[str, int] | None, without: Mapping[str, bool]) -> Iterator[str]:
    """Complaints about missing parts, and about parts that are named as missing; ``without`` says which are there."""
    if lacking is None:
        yield f"Expected {SUITE}.jsonl and parts.ndjson there, as `fluxperf evidence {SUITE} -o FOLDER` writes them."
        return
    if others := {name: count for name, count in lacking.items() if name not in without}:
        told = ", ".join(f"{name} ({count})" for name, count in others.items())
        yield (
            f"It lacks {sum(others.values())} of {processes_of(SUITE)} processes: {told}. "
            f"`fluxperf evidence {SUITE} -o {folder} --list` lists them."
        )
    for name in (name for name, there in without.items() if there):
        yield f"Of {name} there are records: do not name it as missing (LACKING in the Makefile)."


def _of_another(folder: Path, here: Here) -> list[str]:
    """Complaints about a document of another commit, tree or card than the records."""
    try:
        Collection(folder, SUITE, SUITES[SUITE]()).check(here)
    except ConfigError as error:
        return [str(error)]
    return []


def _studied(folder: Path, sifted: Sifted, files: Sequence[RecordsFile], lacking: Mapping[str, int] | None) -> Evidence:
    given = Given(
        paths=[str(folder)], samples=frozenset(), verdict=None, history=[], ceilings=[], baselines=present(BASELINES),
        checkout=ROOT, timeline=None, command="",
    )  # fmt: skip
    extras = gathered(files, given, sifted.gathering)
    study = sifted.survey(files, context(""), extras)
    return Evidence(folder, study, documents_in([folder]), lacking or {})


def _unread(evidence: Evidence, parts: Iterable[Part]) -> Iterator[str]:
    """Complaints about parts that are there without their figures: those of a document, or records of a peer."""
    documents = evidence.documents
    shown = {name for name, one in documents.quality if one.workload.get("name") == HEADLINE}
    for name, table in documents.per_op:
        if table.workload and (table.workload.name, f"{table.rung}-ops.json") == (HEADLINE, name):
            shown.add(name)
    rungs = {record.rung for record in pictures_shown(evidence.study)}
    shown |= {name for name, one in documents.pictures if one.rungs and {row.rung for row in one.rungs} <= rungs}
    shown |= {"kernels.json"} if rates_in(evidence.folder) else set()
    measured = {(record.rung, record.settings.get(IN_TURNS_WITH), _sizes(record)) for record in evidence.study.records}
    for part in parts:
        if part.document and part.document not in shown:
            yield f"{part.document}: expected the figures of {part.name}, of {HEADLINE}, found something else."
        peers = dict(part.key.settings).get(IN_TURNS_WITH, "") if part.key else ""
        for peer in filter(None, peers.split(", ")):
            if part.key and (peer, peers, part.key.sizes) not in measured:
                yield f"{SUITE}.jsonl: expected records of {peer} from {part.name}, got none."


def _sizes(record: Record) -> tuple[str | int, ...]:
    return key_of(record.workload, record.rung, {}).sizes
