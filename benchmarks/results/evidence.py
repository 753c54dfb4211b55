"""Reads one folder of evidence: of one commit, of one kind of card, and complete but for parts that are named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from fluxperf.errors import RecordError, UnknownNameError
from fluxperf.harness.facts.documents import Documents, documents_in
from fluxperf.harness.facts.evidence import Given, gathered
from fluxperf.harness.facts.sifting import Sifted
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.records import Record, variant
from fluxperf.published import context
from fluxperf.shipped import BASELINES, present
from fluxperf.suites import SUITES, lacking_in, processes_of

ROOT = Path(__file__).resolve().parents[2]
SUITE = "headline"


class Evidence(NamedTuple):
    """A folder's evidence: the study of its records, its documents, and the processes that each missing part lacks."""

    folder: Path
    study: Study
    documents: Documents
    lacking: Mapping[str, int]

    @property
    def processes(self) -> str:
        """The number of its processes, in words: "87 processes", or "85 of 87 processes"."""
        of = processes_of(SUITE)
        missing = sum(self.lacking.values())
        return f"{of - missing} of {of} processes" if missing else f"{of} processes"

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


def read(folder: Path, without: Collection[str] = ()) -> Evidence:
    """The evidence in a folder.

    Args:
        folder: path of the folder.
        without: names of parts that may be missing; pages say that they are.

    Raises:
        RecordError: another part is missing, one of these is complete, a line is damaged, or commits, trees or machines
            are mixed.
        UnknownNameError: the suite has no part of this name.
    """
    names = [part.name for part in SUITES[SUITE]()]
    for name in without:
        if name not in names:
            raise UnknownNameError("part", name, names)
    sifted = Sifted()
    files = list(sifted.read([str(folder)]))
    problems = [problem for file in files for problem in file.problems]
    lacking = lacking_in(folder, SUITE)
    if others := {name: count for name, count in lacking.items() if name not in without}:
        told = ", ".join(f"{name} ({count})" for name, count in others.items())
        problems.append(
            f"It lacks {sum(others.values())} of {processes_of(SUITE)} processes: {told}. "
            f"`fluxperf evidence {SUITE} -o {folder} --list` lists them."
        )
    if complete := [name for name in without if name not in lacking]:
        problems.append(f"{', '.join(complete)} is complete: do not name it as missing (LACKING in the Makefile).")
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
    return Evidence(folder, study, documents_in([folder]), lacking)
