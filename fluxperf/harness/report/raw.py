"""The raw data: the records themselves inside the page, and the command that measures them again."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from markupsafe import Markup

from fluxperf.harness.facts.provenance import commit_of
from fluxperf.harness.facts.study import Study
from fluxperf.harness.pages.tables import Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import script_json, shown

# So that the page stays below its 2 MB even with many records.
_MOST_BYTES = 900_000


class RawRecord(NamedTuple):
    """One embedded record: its title, and its JSON as it stands in the script element."""

    title: str
    json: Markup


class RawView(NamedTuple):
    """The raw data as the page shows them."""

    command: str
    table: Table
    amount: str
    records: list[RawRecord]
    left_out: str


def raw_view(study: Study) -> RawView:
    """The records as JSON, those that the page's numbers come from first, until the page's size is reached."""
    used = study.used
    rest = [record for record in study.records if not any(record is one for one in used)]
    embedded: list[RawRecord] = []
    size = 0
    for record in [*used, *rest]:
        text = script_json(msgspec.to_builtins(record))
        if size + len(text) > _MOST_BYTES:
            continue
        size += len(text)
        # Safe as markup: `script_json` leaves no <, > or & in it.
        embedded.append(RawRecord(_title(record), Markup(text)))
    missing = len(study.records) - len(embedded)
    left_out = (
        f"{units.plural(missing, 'record')} more would make the page too large; see the files." if missing else ""
    )
    return RawView(
        command=shown(study.extras.command or study.context.command, 400),
        table=_files(study),
        amount=f"{units.plural(len(study.records), 'record')}, of which {len(used)} are shown above",
        records=embedded,
        left_out=left_out,
    )


def _title(record: Record) -> str:
    return (
        f"{shown(record.rung, 48)}, {shown(record.workload.name, 48)}, {record.ran_as}, "
        f"{shown(record.created_utc, 40)}, {commit_of(record)}"
    )


def _files(study: Study) -> Table:
    columns = (
        Column("File", number=False),
        Column("Records"),
        Column("Problems"),
        Column("Oldest", number=False),
        Column("Newest", number=False),
    )
    rows = []
    for file in study.files:
        moments = sorted(record.created_utc for record in file.records) or ["—"]
        rows.append(
            [
                Cell(shown(file.path, 160), tag="sample" if file.path in study.extras.samples else ""),
                Cell(units.count(len(file.records)), len(file.records)),
                Cell(units.count(len(file.problems)), len(file.problems), kind="bad" if file.problems else ""),
                Cell(shown(moments[0], 40)),
                Cell(shown(moments[-1], 40)),
            ]
        )
    return Table("Files that were read", columns, rows)
