"""Reads one folder of evidence: complete, of one commit, of one kind of card; anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fluxperf.errors import RecordError
from fluxperf.harness.facts.documents import Documents, documents_in
from fluxperf.harness.facts.evidence import Given, gathered
from fluxperf.harness.facts.sifting import Sifted
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.records import Record, variant
from fluxperf.published import context
from fluxperf.shipped import BASELINES, present
from fluxperf.suites import SUITES, missing_in

ROOT = Path(__file__).resolve().parents[2]
SUITE = "headline"


class Evidence(NamedTuple):
    """A folder's evidence: the study of its records, its documents, and its number of processes."""

    folder: Path
    study: Study
    documents: Documents
    processes: int

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


def read(folder: Path) -> Evidence:
    """The evidence in a folder.

    Raises:
        RecordError: a part is missing, a line is damaged, or commits, trees or machines are mixed.
    """
    sifted = Sifted()
    files = list(sifted.read([str(folder)]))
    problems = [problem for file in files for problem in file.problems]
    if lacking := missing_in(folder, SUITE):
        problems.append(f"{lacking} `fluxperf evidence {SUITE} -o {folder} --list` lists them.")
    records = [record for file in files for record in file.records]
    if any(record.dirty for record in records):
        problems.append("Some records are of a changed tree.")
    for what, found in (
        ("commit", {str(record.commit) for record in records}),
        ("kind of card", {str(record.machine.gpu) for record in records}),
    ):
        if len(found) != 1:
            problems.append(f"Expected one {what}, got {', '.join(sorted(found)) or 'none'}.")
    if problems:
        raise RecordError(f"{folder} is not drawn: README and docs show whole evidence only. {' '.join(problems)}")
    given = Given(
        paths=[str(folder)], samples=frozenset(), verdict=None, history=[], ceilings=[], baselines=present(BASELINES),
        checkout=ROOT, timeline=None, command="",
    )  # fmt: skip
    extras = gathered(files, given, sifted.gathering)
    study = sifted.survey(files, context(""), extras)
    processes = sum(part.processes for part in SUITES[SUITE]())
    return Evidence(folder, study, documents_in([folder]), processes)
