"""Records sorted into ladders: what a report compares, and what it keeps apart.

Records are compared only where workload, machine, implementation and the way they ran are the same. Each such group
is a ladder, with the newest record at each rung.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from fluxperf.harness.records import Record, RecordsFile, WorkloadRow
from fluxperf.harness.report.escape import shown
from fluxperf.harness.report.inputs import Context, RungInfo
from fluxperf.harness.report.units import BY, NBSP, listing, plural
from fluxperf.harness.stats import Summary, summarize

TWIN_SAYS = "say what crosses and whether the numbers agree, not how fast a GPU is."
TWIN_NOTE = "host twin: says what crosses and whether the numbers agree, not how fast a GPU is"

_ORDER = {"kernel": 0, "peer": 1, "twin": 2}
_WAYS = {"kernel": "GPU kernels", "peer": "peer", "twin": "host twins"}


class Rung(NamedTuple):
    """One rung of one ladder: its newest record, or ``None``, and how many records there were.

    ``info`` is ``None`` for a rung that the ladder does not have.
    """

    name: str
    info: RungInfo | None
    record: Record | None
    held: int

    @property
    def label(self) -> str:
        """The rung's name, harmless and of bounded length."""
        return shown(self.name, 48)


class Speedup(NamedTuple):
    """Median over median; ``low`` and ``high`` follow from the extremes of the samples."""

    ratio: float
    low: float
    high: float
    single: bool


class Ladder(NamedTuple):
    """Records that may be compared, in the order of the ladder; missing rungs are there without a record."""

    workload: WorkloadRow
    label: str
    machine: str
    ran_as: str
    implementation: str
    rungs: tuple[Rung, ...]
    start: str

    @property
    def twin(self) -> bool:
        """Whether these are host twins, whose times say nothing about a GPU."""
        return self.ran_as == "twin"

    @property
    def way(self) -> str:
        """How it ran, in words."""
        who = "" if self.implementation == "fluxperf" else f" of {shown(self.implementation, 48)}"
        return _WAYS.get(self.ran_as, shown(self.ran_as)) + who

    @property
    def title(self) -> str:
        """What the ladder holds, in one line."""
        return f"{self.label}, {self.way} on {self.machine}"

    @property
    def measured(self) -> list[Rung]:
        """The rungs that have a record."""
        return [rung for rung in self.rungs if rung.record]

    @property
    def records(self) -> list[Record]:
        """The newest record of each rung."""
        return [rung.record for rung in self.rungs if rung.record]

    @property
    def baseline(self) -> Record | None:
        """The record of the ladder's first rung."""
        return self.at(self.start)

    def at(self, name: str) -> Record | None:
        """The record of the rung called ``name``."""
        return next((rung.record for rung in self.rungs if rung.name == name and rung.record), None)


class Study(NamedTuple):
    """Everything that a section is built from."""

    files: Sequence[RecordsFile]
    context: Context
    ladders: tuple[Ladder, ...]

    @property
    def records(self) -> list[Record]:
        """All records, in the order of the files."""
        return [record for file in self.files for record in file.records]

    @property
    def used(self) -> list[Record]:
        """The newest records, of which the page's numbers are."""
        return [record for ladder in self.ladders for record in ladder.records]

    @property
    def climbing(self) -> list[Ladder]:
        """The ladders that climb: those of peers have no rungs in common with ours."""
        return [ladder for ladder in self.ladders if ladder.ran_as != "peer"]


def survey(files: Sequence[RecordsFile], context: Context) -> Study:
    """The records of ``files`` sorted into ladders: the headline workload first, kernels before twins."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in (record for file in files for record in file.records):
        row = record.workload
        what = (getattr(row, name) for name in row.__struct_fields__)
        key = (*what, where(record), record.ran_as, record.implementation)
        groups.setdefault(key, []).append(record)
    labels = _workload_labels([group[0].workload for group in groups.values()])
    ladders = [_ladder(group, context, label) for group, label in zip(groups.values(), labels, strict=True)]
    ladders.sort(
        key=lambda ladder: (
            ladder.workload.name != context.headline_workload,
            ladder.label,
            _ORDER.get(ladder.ran_as, 9),
            ladder.machine,
        )
    )
    return Study(files, context, tuple(ladders))


def where(record: Record) -> str:
    """The machine that the record's times belong to: its GPU, or its CPU for a host twin."""
    machine = record.machine
    if machine.gpu and record.ran_as != "twin":
        return shown(machine.gpu)
    return f"{shown(machine.cpu)} ({plural(machine.cores, 'core')})"


def _workload_labels(rows: Sequence[WorkloadRow]) -> list[str]:
    """A label for each workload; where one name stands for several, each says what it is besides."""
    kinds: dict[str, list[WorkloadRow]] = {}
    for row in rows:
        kinds.setdefault(row.name, [])
        if row not in kinds[row.name]:
            kinds[row.name].append(row)
    names = [shown(row.name, 48) for row in rows]
    return [
        name if len(kinds[row.name]) == 1 else f"{name} ({sizes(row)})" for name, row in zip(names, rows, strict=True)
    ]


def sizes(row: WorkloadRow) -> str:
    """What a workload computes, in words."""
    return (
        f"{shown(row.model, 48)}, {row.height}{BY}{row.width}{NBSP}px, {plural(row.text_tokens, 'text token')}, "
        f"{plural(row.steps, 'step')}, batch{NBSP}{row.batch}, weights {shown(row.weights, 64)}"
    )


def _ladder(group: Sequence[Record], context: Context, label: str) -> Ladder:
    first = group[0]
    by_rung: dict[str, list[Record]] = {}
    for record in group:
        by_rung.setdefault(record.rung, []).append(record)
    rungs = []
    if first.ran_as != "peer":
        for info in context.ladder:
            found = by_rung.pop(info.name, [])
            rungs.append(Rung(info.name, info, _newest(found), len(found)))
    rungs += [Rung(name, None, _newest(found), len(found)) for name, found in by_rung.items()]
    start = context.ladder[0].name if context.ladder else ""
    return Ladder(first.workload, label, where(first), first.ran_as, first.implementation, tuple(rungs), start)


def _newest(records: Sequence[Record]) -> Record | None:
    """The record with the latest time; of equal or unreadable times, the one that was appended last."""
    best = max(enumerate(records), key=lambda pair: (_moment(pair[1].created_utc), pair[0]), default=None)
    return best[1] if best else None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def summary_of(record: Record | None, metric: str = "denoise") -> Summary | None:
    """Summary of a record's samples of one metric, or ``None`` where it has none above zero."""
    found = summarize(record.times_s.get(metric, [])) if record else None
    return found if found and found.low > 0 else None


def speedup(before: Summary | None, after: Summary | None) -> Speedup | None:
    """How many times shorter ``after`` is than ``before``, or ``None`` where one of them has no samples."""
    if not before or not after:
        return None
    single = before.samples == 1 or after.samples == 1
    return Speedup(before.median / after.median, before.low / after.high, before.high / after.low, single)


def short(commit: str | None) -> str:
    """A commit as it is shown: the first ten digits of a full one, anything else bounded."""
    if commit is None:
        return "not recorded"
    return shown(commit[:10] if len(commit) == 40 else commit, 24)


def commit_of(record: Record) -> str:
    """The record's commit, shortened, and whether the tree held changes that no commit has."""
    if record.commit is None:
        return "commit not recorded"
    text = short(record.commit)
    if record.dirty is None:
        return f"{text} (not known whether clean)"
    return f"{text} + uncommitted changes" if record.dirty else text


def unique(values: Iterable[str]) -> list[str]:
    """The values without repetition, in order."""
    return list(dict.fromkeys(values))


def samples_of(record: Record, metric: str = "denoise") -> str:
    """How many samples there are in how many processes: 3 x 5, or "5 + 4" where processes differ."""
    sizes_ = [len(samples) for samples in record.times_s.get(metric, []) if samples]
    if not sizes_:
        return "none"
    if sum(sizes_) == 1:
        return "1"
    if len(set(sizes_)) == 1:
        return f"{len(sizes_)}{NBSP}{BY}{NBSP}{sizes_[0]}"
    return " + ".join(str(size) for size in sizes_)


def provenance(records: Sequence[Record]) -> str:
    """Where numbers come from: machine, commit and samples, as one line under a section's title."""
    machines = unique(where(record) for record in records)
    commits = unique(commit_of(record) for record in records)
    samples = unique(samples_of(record) for record in records)
    return (
        f"Machine: {listing(machines, 3)}. {'Commit' if len(commits) == 1 else 'Commits'}: {listing(commits, 4)}. "
        f"Samples (processes {BY} samples of each): {listing(samples, 4)}."
    )
