"""Machines, and data that must not be compared: other machines, other commits, changed trees, host twins."""

from __future__ import annotations

from collections.abc import Callable

from fluxperf.harness.facts.provenance import commit_of, provenance, short, unique, where
from fluxperf.harness.facts.study import SAMPLE_NOTE, TWIN_SAYS, Ladder, Study
from fluxperf.harness.measure.clocks import POWER_CAP, throttling, throttling_note
from fluxperf.harness.measure.environment import busy_note
from fluxperf.harness.pages.panels import Block, Notes, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import IN_TURNS_WITH, Machine, Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_FIELDS: tuple[tuple[str, Callable[[Machine], str | None]], ...] = (
    ("GPU", lambda machine: machine.gpu or "none"),
    ("Driver", lambda machine: machine.driver),
    ("CUDA", lambda machine: machine.cuda),
    ("CuPy", lambda machine: machine.cupy),
    ("cuDNN", lambda machine: machine.cudnn),
    ("CPU", lambda machine: machine.cpu),
    ("CPU cores", lambda machine: units.count(machine.cores)),
    ("Memory", lambda machine: units.quantity(machine.memory_bytes, "B")),
    ("Python", lambda machine: machine.python),
    ("NumPy", lambda machine: machine.numpy),
    ("System", lambda machine: machine.os),
)


def machines_panels(study: Study) -> list[Block]:
    """The machines as columns, and rules for comparisons."""
    machines: dict[Machine, list[Record]] = {}
    for record in study.records:
        machines.setdefault(record.machine, []).append(record)
    numbers = [str(number) for number in range(1, len(machines) + 1)]
    columns = [Column("What", number=False), *(Column(f"Machine {number}", number=False) for number in numbers)]
    rows = [[Cell(name), *(_cell(read(machine)) for machine in machines)] for name, read in _FIELDS]
    groups = machines.values()
    rows.append([Cell("Workloads"), *(Cell(units.listing(_workloads(study, group), 4)) for group in groups)])
    rows.append([Cell("Commits"), *(Cell(units.listing(unique(map(commit_of, group)), 4)) for group in groups)])
    rows.append([Cell("Records"), *(Cell(units.count(len(group))) for group in groups)])
    found = remarks(study)
    told = Notes([text for _, text in found], "remarks", [warning for warning, _ in found])
    return [source(provenance(study.records)), told, Table("Machines", columns, rows, sortable=False)]


def _cell(text: str | None) -> Cell:
    return MISSING if text is None else Cell(shown(text))


def _workloads(study: Study, records: list[Record]) -> list[str]:
    labels = {id(record): ladder.label for ladder in study.ladders for record in ladder.records}
    return unique(labels.get(id(record), shown(record.workload.name, 48)) for record in records)


def remarks(study: Study) -> list[tuple[bool, str]]:
    """Sentences about allowed comparisons; ``True`` marks a warning."""
    found: list[tuple[bool, str]] = []
    for name in unique(record.workload.name for record in study.records):
        machines = unique(where(record) for record in study.records if record.workload.name == name)
        if len(machines) > 1:
            text = f"{shown(name, 48)} was measured on {len(machines)} machines: {units.listing(machines)}. "
            found.append((True, text + "Each has its own ladder; times of different machines are not compared."))
        ladders = [ladder for ladder in study.ladders if ladder.workload.name == name]
        commits = _commits([record for one in ladders for record in one.records])
        if len(ladders) > 1 and len(commits) > 1:
            text = f"{shown(name, 48)}: its ladders come from {len(commits)} commits ({units.listing(commits, 4)})."
            found.append((True, text))
    found += [(True, shown(one.mixed, 600)) for one in study.extras.suites if one.mixed]
    for ladder in study.ladders:
        found += [(True, text) for text in _within(ladder)]
    found += _throttled(study)
    if not any(warning for warning, _ in found) and study.records:
        shown_ones = _commits(study.used)
        older = [commit for commit in _commits(study.records) if commit not in shown_ones]
        what = "The newest record of each rung is" if older else "All records are"
        also = f" Older records are of {units.listing(older, 4)}." if older else ""
        said = f"{what} from one machine, as far as they tell, and one clean commit, so rungs can be compared."
        found.append((False, said + also))
    if any(ladder.sample for ladder in study.ladders):
        found.append((False, f"A sample is {SAMPLE_NOTE}."))
    if any(ladder.twin for ladder in study.ladders):
        text = f"Times marked “twin” are of host twins. {TWIN_SAYS} They are never compared with a GPU's times."
        found.append((False, text))
    return found


def _throttled(study: Study) -> list[tuple[bool, str]]:
    """Reduced clocks: by the power limit, which is usual under such load, or a warning for any other reason."""
    found, capped = list[tuple[bool, str]](), list[str]()
    for ladder in study.ladders:
        if any(set(throttling(record)) - {POWER_CAP} for record in ladder.records):
            found.append((True, f"{ladder.title}: {shown(throttling_note(ladder.records), 400)}"))
        elif rungs := _names(ladder, lambda record: bool(throttling(record))):
            capped.append(f"{ladder.title} ({units.listing(rungs)})")
    if capped:
        text = "The GPU was at its power limit, which lowers clocks, during these measurements: "
        found.append((False, f"{text}{'; '.join(capped)}."))
    return found


def _within(ladder: Ladder) -> list[str]:
    """Differences between the records of one ladder that are shown side by side."""
    records = ladder.records
    texts = []
    commits = _commits(records)
    if len(commits) > 1:
        texts.append(
            f"{ladder.title}: the rungs come from {len(commits)} commits ({units.listing(commits, 4)}). "
            "Differences between them may be caused by the commit."
        )
    dirty = _names(ladder, lambda record: bool(record.dirty))
    if dirty:
        texts.append(
            f"{ladder.title}: measured in a tree with uncommitted changes: {units.listing(dirty)}. The commit does "
            "not identify the code."
        )
    unknown = _names(ladder, lambda record: record.commit is None or record.dirty is None)
    if unknown:
        texts.append(
            f"{ladder.title}: the record does not contain the commit, or whether its tree was clean: "
            f"{units.listing(unknown)}."
        )
    if said := busy_note(records):
        texts.append(f"{ladder.title}: {shown(said, 400)}")
    for name, read in _FIELDS:
        values = unique(shown(read(record.machine) or "none", 40) for record in records)
        if len(values) > 1:
            texts.append(f"{ladder.title}: {name} differs between rungs ({units.listing(values, 4)}).")
    # A memory budget is part of a rung's name here, and each peer took turns with a rung of ours.
    told = {"memory_gb", *([IN_TURNS_WITH] if ladder.ran_as == "peer" else [])}
    for name in sorted({key for record in records for key in record.settings} - told):
        values = unique(shown(record.settings.get(name, "not set"), 40) for record in records)
        if len(values) > 1:
            what = f"setting {shown(name, 40)} differs between rungs"
            texts.append(f"{ladder.title}: {what} ({units.listing(values, 4)}).")
    return texts


def _commits(records: list[Record]) -> list[str]:
    return [short(commit) for commit in dict.fromkeys(record.commit for record in records)]


def _names(ladder: Ladder, test: Callable[[Record], bool]) -> list[str]:
    return [rung.label for rung in ladder.measured if rung.record and test(rung.record)]
