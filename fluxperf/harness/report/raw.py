"""The raw data: the records inside the page, and the command that made the page."""

from __future__ import annotations

import msgspec
from markupsafe import Markup

from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.provenance import commit_of
from fluxperf.harness.facts.study import Study
from fluxperf.harness.outlines import Outline
from fluxperf.harness.pages.panels import Block, Commands, Data, Fold, Text, banner, present
from fluxperf.harness.pages.tables import Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import script_json, shown

# keeps the page below 2 MB even with many records
_MOST_BYTES = 900_000

_WITHOUT_SCRIPTS = Markup(
    '<noscript><p class="banner">Without scripts, read the records in this page\'s source. Each is a script '
    "element of type application/json.</p></noscript>"
)


def raw_panels(study: Study) -> list[Block]:
    """The command that made the page, the files, and the records as JSON.

    Records whose numbers the page shows come first, until the page reaches its maximum size.
    """
    in_turns = (ours for ladder in study.climbing for _, ours, _ in beside_peers(study, ladder))
    used = list({id(record): record for record in (*study.used, *in_turns)}.values())
    shown_above = {id(record) for record in used}
    embedded: list[Data] = []
    size = 0
    others = (record for record in study.records if id(record) not in shown_above)
    for record in (one for one in (*used, *others) if not isinstance(one, Outline)):
        text = script_json(msgspec.to_builtins(record))
        if size + len(text) > _MOST_BYTES:
            if id(record) in shown_above:
                continue
            break
        size += len(text)
        # safe as markup: `script_json` leaves no <, > or & in it
        embedded.append(Data(_title(record), Markup(text)))
    missing = len(study.records) - len(embedded)
    amount = f"{units.plural(len(study.records), 'record')}, {len(used)} of them shown above"
    return present(
        Text("This page was made by:"),
        Commands([shown(study.extras.command or study.context.command, 400)]),
        _files(study),
        Text(f"{amount}. This page contains them as JSON."),
        banner(f"{units.plural(missing, 'record')} more would make the page too large and are only in the files.")
        if missing
        else None,
        _WITHOUT_SCRIPTS,
        Fold(f"{len(embedded)} records as JSON", embedded, "folded"),
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
