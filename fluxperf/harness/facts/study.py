"""Records sorted into ladders: which records a report compares, and which it keeps separate.

Records are compared only if workload, machine, implementation, origin and way of running are the same. Each such group
is a ladder, with the newest record at each rung. Peers of one workload on one machine form a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from fluxperf.harness.facts.ceilings import Ceiling, ceilings_for, highest, tried_ceilings
from fluxperf.harness.facts.inputs import NOTHING, Context, Extras, RungInfo
from fluxperf.harness.facts.provenance import unique, where
from fluxperf.harness.facts.samples import summary_of
from fluxperf.harness.records import END_TO_END, IN_TURNS_WITH, Record, RecordsFile, WorkloadRow, variant
from fluxperf.harness.text.escape import shown
from fluxperf.harness.text.units import BY, NBSP, plural

TWIN_SAYS = "Copies and errors are valid, times say nothing about a GPU."
TWIN_NOTE = "host twin: copies and errors are valid, times say nothing about a GPU"
SAMPLE_NOTE = (
    "a committed record of another machine, shown beside the measurements of this machine and never compared with them"
)

_ORDER = {"kernel": 0, "peer": 1, "twin": 2}
_WAYS = {"kernel": "GPU kernels", "peer": "peers", "twin": "host twins"}


class Rung(NamedTuple):
    """One rung of one ladder: its newest record, or ``None``, and all its records.

    ``info`` is ``None`` for a rung that is not in the ladder.
    """

    name: str
    info: RungInfo | None
    record: Record | None
    records: tuple[Record, ...]

    @property
    def held(self) -> int:
        """Number of records of the rung."""
        return len(self.records)

    @property
    def label(self) -> str:
        """The rung's name, without harmful characters and of limited length."""
        return shown(self.name, 48)


class Ladder(NamedTuple):
    """Comparable records, in the order of the ladder. Missing rungs are included without a record."""

    workload: WorkloadRow
    label: str
    machine: str
    ran_as: str
    implementation: str
    rungs: tuple[Rung, ...]
    start: str
    sample: bool = False
    view: str = ""
    #: A named workload of the same model; this workload's own name if it has one.
    base: str = ""

    @property
    def twin(self) -> bool:
        """Whether these are host twins, whose times say nothing about a GPU."""
        return self.ran_as == "twin"

    @property
    def way(self) -> str:
        """The way it ran, as text."""
        who = "" if self.implementation in ("", "fluxperf") else f" of {shown(self.implementation, 48)}"
        return _WAYS.get(self.ran_as, shown(self.ran_as)) + who

    @property
    def title(self) -> str:
        """The ladder's title, in one line."""
        return f"{'Sample: ' if self.sample else ''}{self.label}, {self.way} on {self.machine}"

    @property
    def measured(self) -> list[Rung]:
        """The rungs that have a record."""
        return [rung for rung in self.rungs if rung.record]

    @property
    def timed(self) -> list[Rung]:
        """The rungs of the ladder that have a time, in its order."""
        return [rung for rung in self.rungs if rung.info and summary_of(rung.record)]

    @property
    def records(self) -> list[Record]:
        """The newest record of each rung."""
        return [rung.record for rung in self.rungs if rung.record]

    @property
    def baseline(self) -> Record | None:
        """The record of the ladder's first rung."""
        return self.at(self.start)

    @property
    def best(self) -> Rung | None:
        """The rung with the shortest time; ``None`` if none has a time."""
        return min(self.timed, key=lambda rung: median_of(rung.record), default=None)

    def at(self, name: str) -> Record | None:
        """The record of the rung called ``name``."""
        return next((rung.record for rung in self.rungs if rung.name == name and rung.record), None)


class View(NamedTuple):
    """One choice of the page's switch: one workload on one machine, from one origin."""

    id: str
    label: str
    machine: str
    sample: bool


class Study(NamedTuple):
    """All data for the sections of a page.

    ``kernels`` are records of single kernels, ``pictures`` those from a prompt to a file. Neither are rungs.
    """

    files: Sequence[RecordsFile]
    context: Context
    extras: Extras
    ladders: tuple[Ladder, ...]
    kernels: tuple[Record, ...]
    tried: tuple[Ceiling, ...]
    pictures: tuple[Record, ...] = ()

    @property
    def records(self) -> list[Record]:
        """All records, in the order of the files."""
        return [record for file in self.files for record in file.records]

    @property
    def used(self) -> list[Record]:
        """The newest records, from which the page's numbers come."""
        return [*(one for ladder in self.ladders for one in ladder.records), *self.kernels, *self.pictures]

    @property
    def climbing(self) -> list[Ladder]:
        """The ladders with rungs of ours; peers have no rungs in common with us."""
        return [ladder for ladder in self.ladders if ladder.ran_as != "peer"]

    @property
    def views(self) -> list[View]:
        """Choices of the switch, in the page's order."""
        return list({row.view: View(row.view, row.label, row.machine, row.sample) for row in self.ladders}.values())

    def peers_of(self, ladder: Ladder) -> list[Rung]:
        """Measured peers of a ladder's workload on its machine, from the same origin."""
        same = [one for one in self.ladders if one.ran_as == "peer" and one.view == ladder.view]
        return [rung for one in same for rung in one.measured]

    def ceilings_of(self, machine: str) -> dict[str, Ceiling]:
        """Ceilings of a machine, by resource; empty if none were measured or published."""
        return ceilings_for(machine, self.extras.ceilings, self.tried)


def survey(files: Sequence[RecordsFile], context: Context, extras: Extras = NOTHING) -> Study:
    """The records of ``files`` sorted into ladders: measurements of this machine first, then samples.

    Within each, the headline workload is first, then those with more rungs; GPU kernels come before peers and twins.
    """
    groups: dict[tuple[object, ...], list[Record]] = {}
    kernels, pictures = [], []
    for file in files:
        sample = file.path in extras.samples
        for record in file.records:
            if "call" in record.times_s and "denoise" not in record.times_s:
                kernels.append(record)
            elif END_TO_END in record.settings:
                pictures.append(record)
            else:
                groups.setdefault(_key(record, sample), []).append(record)
    labels = _workload_labels([group[0].workload for group in groups.values()])
    ladders = [
        _ladder(group, context, label, sample=bool(key[0]))
        for (key, group), label in zip(groups.items(), labels, strict=True)
    ]
    most: dict[tuple[bool, str], int] = {}
    for ladder in ladders:
        climbed = sum(1 for rung in ladder.measured if rung.info)
        most[ladder.sample, ladder.label] = max(climbed, most.get((ladder.sample, ladder.label), 0))
    ladders.sort(
        key=lambda ladder: (
            ladder.sample,
            ladder.workload.name != context.headline_workload,
            -most[ladder.sample, ladder.label],
            ladder.label,
            ladder.twin,
            ladder.machine,
            _ORDER.get(ladder.ran_as, 9),
        )
    )
    places = unique("\0".join(_place(ladder)) for ladder in ladders)
    named = [one._replace(view=f"view-{places.index(chr(0).join(_place(one))) + 1}") for one in ladders]
    here = tried_ceilings(record for file in files for record in file.records)
    tried = highest([*extras.tried, *here])
    return Study(files, context, extras, tuple(named), tuple(kernels), tuple(tried), tuple(pictures))


def _key(record: Record, sample: bool) -> tuple[object, ...]:
    who = "" if record.ran_as == "peer" else record.implementation
    return (sample, record.workload, where(record), record.ran_as, who)


def _place(ladder: Ladder) -> tuple[str, str, str]:
    return ("sample" if ladder.sample else "", ladder.label, ladder.machine)


def _workload_labels(rows: Sequence[WorkloadRow]) -> list[str]:
    """A label for each workload. If several share a name, each label includes the differences from the others.

    Sizes without a name are labelled by their model, with all differences from it.
    """
    kinds: dict[str, list[WorkloadRow]] = {}
    for row in rows:
        for kind in (row.name, f"model {row.model}"):
            kinds.setdefault(kind, [])
            if row not in kinds[kind]:
                kinds[kind].append(row)
    return [_label(row, kinds[f"model {row.model}" if row.name == "custom" else row.name]) for row in rows]


def _label(row: WorkloadRow, alike: Sequence[WorkloadRow]) -> str:
    name = shown(row.model if row.name == "custom" and len(alike) > 1 else row.name, 48)
    told = [
        text
        for text, fields in _told(row)
        if len({tuple(getattr(one, field) for field in fields) for one in alike}) > 1
    ]
    return f"{name} ({', '.join(told)})" if told else name


def _told(row: WorkloadRow) -> list[tuple[str, tuple[str, ...]]]:
    """Texts about a workload, each with the fields that it describes."""
    return [
        (shown(row.model, 48), ("model",)),
        (f"{row.height}{BY}{row.width}{NBSP}px", ("height", "width")),
        (plural(row.text_tokens, "text token"), ("text_tokens",)),
        (plural(row.steps, "step"), ("steps",)),
        (f"batch{NBSP}{row.batch}", ("batch",)),
        (f"weights {shown(row.weights, 64)}", ("weights",)),
    ]


def _ladder(group: Sequence[Record], context: Context, label: str, *, sample: bool) -> Ladder:
    first = group[0]
    peers = first.ran_as == "peer"
    by_rung: dict[str, list[Record]] = {}
    for record in group:
        by_rung.setdefault(_peer(record) if peers else variant(record), []).append(record)
    rungs = []
    if not peers:
        for info in context.ladder:
            found = by_rung.pop(info.name, [])
            rungs.append(Rung(info.name, info, shown_of(found), tuple(found)))
    rungs += [Rung(name, None, shown_of(found), tuple(found)) for name, found in by_rung.items()]
    start = context.ladder[0].name if context.ladder else ""
    who = "" if peers else first.implementation
    named = first.workload.name
    base = named if named != "custom" else context.bases.get(first.workload.model, "")
    return Ladder(first.workload, label, where(first), first.ran_as, who, tuple(rungs), start, sample, base=base)


def _peer(record: Record) -> str:
    """A peer's name, with its form if the name does not contain it."""
    if record.rung.startswith(record.implementation):
        return record.rung
    return f"{record.implementation} ({record.rung})"


def shown_of(records: Sequence[Record]) -> Record | None:
    """The record that represents a rung: of the newest record's commit, the newest one that ran alone.

    Records that took turns with a peer are for the comparison with that peer.
    """
    last = newest(records)
    if last is None:
        return None
    same = [one for one in records if (one.commit, one.dirty) == (last.commit, last.dirty)]
    return newest([one for one in same if IN_TURNS_WITH not in one.settings]) or last


def newest(records: Sequence[Record]) -> Record | None:
    """The record with the latest time; of equal or unreadable times the one that was appended last."""
    best = max(enumerate(records), key=lambda pair: (_moment(pair[1].created_utc), pair[0]), default=None)
    return best[1] if best else None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def median_of(record: Record | None) -> float:
    """The median time of all steps, or infinity if there is none."""
    found = summary_of(record)
    return found.median if found else float("inf")
