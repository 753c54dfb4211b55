"""Evidence besides records, read from files: a verdict, calibrations, ceilings, history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxperf.errors import RecordError
from fluxperf.harness.calibration import Calibration, file_of, read_calibration
from fluxperf.harness.columns import Gathering
from fluxperf.harness.facts.ceilings import Ceiling, rates_in, read_ceilings
from fluxperf.harness.facts.documents import documents_in
from fluxperf.harness.facts.inputs import Extras, SuiteFolder
from fluxperf.harness.history import Rules, load
from fluxperf.harness.history import history as series_of
from fluxperf.harness.places import Place, is_url
from fluxperf.harness.records import Record, RecordsFile
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.verdict import SCHEMA, Verdict


class Given(NamedTuple):
    """Paths of the evidence, and ``home``, the folder of the page.

    ``paths`` are those of the records: folders among them may contain ceilings too.
    """

    paths: Sequence[Place]
    samples: frozenset[str]
    verdict: Path | None
    history: Sequence[Place]
    ceilings: Sequence[Path]
    baselines: Path
    checkout: Path
    timeline: Path | None
    command: str
    rules: Rules = Rules()
    suites: Sequence[SuiteFolder] = ()
    home: Path | None = None


def gathered(files: Sequence[RecordsFile], given: Given, gathering: Gathering) -> Extras:
    """Reads all given evidence.

    Args:
        files: records files.
        given: paths of other evidence.
        gathering: points of the records of these files.

    Raises:
        RecordError: a file cannot be read or is of another kind.
        PolicyError: a calibration cannot be used.
        TimelineError: a timeline cannot be read.
    """
    records = (record for file in files for record in file.records)
    columns, problems = load(given.history, gathering)
    return Extras(
        samples=given.samples,
        verdict=read_verdict(given.verdict) if given.verdict else None,
        calibrations=_calibrations(records, given.baselines),
        ceilings=_ceilings(given),
        history=series_of(columns, given.checkout, problems=problems, rules=given.rules),
        timeline=read_timeline(given.timeline) if given.timeline else None,
        suites=given.suites,
        documents=documents_in(Path(path) for path in given.paths if not is_url(path)),
        command=given.command,
        home=given.home,
    )


def read_verdict(path: Path) -> Verdict:
    """The verdict in a file that ``fluxperf gate --json`` wrote.

    Raises:
        RecordError: the file cannot be read, or is not a verdict.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Verdict)
    except OSError as error:
        raise RecordError(
            f"cannot read a verdict from {path}: {error.strerror}. Expected a verdict file. Write one with "
            f"`fluxperf gate ... --json {path}`."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(
            f"verdict {path}: expected a file of `fluxperf gate ... --json FILE`, got something else ({error}). "
            "Name such a file."
        ) from error
    if found.schema != SCHEMA:
        raise RecordError(
            f"verdict {path}: expected schema {SCHEMA}, got {found.schema}. Run the gate again with this version "
            "of fluxperf."
        )
    return found


def _calibrations(records: Iterable[Record], folder: Path) -> list[Calibration]:
    """Calibrations of the machines on which records were measured."""
    kinds = {(record.machine, record.ran_as): record for record in records}
    paths = dict.fromkeys(file_of(folder, record) for record in kinds.values())
    return [found for path in paths if (found := read_calibration(path))]


def _ceilings(given: Given) -> list[Ceiling]:
    """Ceilings from the named files, then from those in folders of records."""
    found = [ceiling for path in given.ceilings for ceiling in read_ceilings(path)]
    for folder in (Path(path) for path in given.paths if not is_url(path)):
        found += rates_in(folder) if folder.is_dir() else []
    return found
