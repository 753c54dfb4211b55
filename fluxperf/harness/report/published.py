"""The published baseline beside measurements: times, named costs, and copies of one full forward."""

from __future__ import annotations

from statistics import median

from fluxperf.harness.facts.blocks import FULL_BLOCKS, blocks_of, is_full
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import spread_of, summary_of
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.pages.panels import Group, Panel, Text, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown

_ABOUT = (
    "Published times are compared only with the same workload on a GPU. Copies are counted, and can be compared "
    "for every model with the same blocks."
)


def published_panel(study: Study) -> Panel:
    """The published figures, and the baselines of the records beside them."""
    ladders = [ladder for ladder in study.climbing if ladder.baseline]
    records = [ladder.baseline for ladder in ladders if ladder.baseline]
    where = provenance(records) if records else "These files contain no record of the baseline."
    content = present(
        Text(_ABOUT),
        source(f"Published figures: {study.context.published.source}"),
        source(f"Measured figures: {where}"),
        Group("columns", present(_times(study), _costs(study))),
        _copies(study, ladders),
    )
    return Panel("The published baseline", content, anchor="published")


def _gpu_baseline(study: Study) -> Record | None:
    """The headline workload's baseline on a GPU, the only record that is compared with published times."""
    name = study.context.headline_workload
    found = [one.baseline for one in study.climbing if one.workload.name == name and not one.twin and one.baseline]
    return found[0] if found else None


def _times(study: Study) -> Table:
    published = study.context.published
    record = _gpu_baseline(study)
    denoise = summary_of(record)
    columns = (
        Column("Quantity", number=False),
        Column("Published baseline"),
        Column(f"{shown(published.peer_name, 48)}, published"),
        Column("Gap"),
        Column("Our baseline on a GPU"),
    )
    ours = MISSING._replace(text="no GPU record")
    if denoise:
        ours = Cell(units.time(denoise.median), denoise.median, spread_of(denoise))
    block_gap = published.baseline_block_s / published.peer_block_s
    rows = [
        [
            Cell(f"4 steps at 1024 {units.BY} 1024"),
            Cell(units.given(published.baseline_s), published.baseline_s),
            Cell(units.given(published.peer_s), published.peer_s),
            Cell(units.times(published.gap), published.gap),
            ours,
        ],
        [
            Cell("one block"),
            Cell(units.given(published.baseline_block_s), published.baseline_block_s),
            Cell(units.given(published.peer_block_s), published.peer_block_s),
            Cell(units.times(block_gap), block_gap),
            _block(record),
        ],
    ]
    return Table("Published times", columns, rows)


def _block(record: Record | None) -> Cell:
    """The median time of a double block, and that of a single block."""
    if record is None:
        return MISSING._replace(text="no GPU record")
    kinds = ([row.time_s for row in record.blocks if row.section == kind] for kind in ("double", "single"))
    double, single = ([seconds for seconds in times if seconds is not None] for times in kinds)
    if not double or not single:
        return Cell("not measured by block", kind="missing")
    first, second = median(double), median(single)
    return Cell(units.time(first), first, f"double block; single block {units.time(second)}")


def _costs(study: Study) -> Table | None:
    """The ops with published cost, per call; ours only for the headline workload's baseline on a GPU."""
    if not study.context.published.named_costs:
        return None
    record = _gpu_baseline(study)
    columns = (
        Column("Op", number=False),
        Column("Published, per call"),
        Column("Our baseline on a GPU, per call", hint="in an observed run"),
    )
    rows = []
    for op, how, seconds in study.context.published.named_costs:
        found = [row for row in record.ops if row.op == op] if record else []
        calls = sum(row.count for row in found)
        ours = Cell("no GPU record" if record is None else "not recorded", kind="missing")
        if calls:
            each = sum(row.time_s for row in found) / calls
            ours = Cell(units.time(each), each, f"of {units.plural(calls, 'call')}")
        rows.append([Cell(op, None, how), Cell(units.given(seconds), seconds), ours])
    return Table("Named costs", columns, rows)


def _copies(study: Study, ladders: list[Ladder]) -> Table:
    published = study.context.published
    full = f"{FULL_BLOCKS[0]} + {FULL_BLOCKS[1]}"
    columns = (
        Column("Baseline of", number=False),
        Column("Blocks", hint="double + single"),
        Column("Copies down", hint="device to host, one forward"),
        Column("Copies up", hint="host to device, one forward"),
        Column("Against the published count", number=False),
    )
    rows = [
        [
            Cell("published", None, f"model with {full} blocks"),
            Cell(full, sum(FULL_BLOCKS)),
            Cell(units.count(published.d2h_copies), published.d2h_copies),
            Cell(units.count(published.h2d_copies), published.h2d_copies),
            MISSING,
        ]
    ]
    for ladder in ladders:
        record = ladder.baseline
        if record is None:
            continue
        double, single = blocks_of(record)
        totals = record.totals
        rows.append(
            [
                Cell(ladder.label, None, f"{ladder.way} on {ladder.machine}"),
                Cell(f"{double} + {single}", double + single),
                Cell(units.count(totals.d2h_copies), totals.d2h_copies),
                Cell(units.count(totals.h2d_copies), totals.h2d_copies),
                _compared(study, record),
            ]
        )
    return Table("Copies of one full forward", columns, rows)


def _compared(study: Study, record: Record) -> Cell:
    published = study.context.published
    if not is_full(record):
        return Cell(f"other model: not {FULL_BLOCKS[0]} + {FULL_BLOCKS[1]} blocks", kind="missing")
    expected = published.copies_of(record.workload.model)
    down, up = record.totals.d2h_copies - expected[0], record.totals.h2d_copies - expected[1]
    if not down and not up:
        return Cell("equal", kind="good")
    return Cell("not equal", None, f"{down:+,} down, {up:+,} up", kind="bad")
