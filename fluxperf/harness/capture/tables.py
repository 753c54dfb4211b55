"""Tables of a capture: costs of each op, block and step, top kernels, copies, and findings."""

from __future__ import annotations

from collections import defaultdict

from fluxperf.harness.pages.panels import Text
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Node, Table, Tree
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.timeline.findings import KINDS, Finding
from fluxperf.harness.timeline.summary import Row, Summary
from fluxperf.harness.timeline.tree import Branch

#: Maximum rows of a table; the others are added up in one more row.
MOST_ROWS = 200
MOST_KERNELS = 25
MOST_BRANCHES = 400

#: Share of the longest range's GPU time from which a range of the tree is open at first.
OPEN_FROM = 0.1

_COSTS = (
    Column("Calls", hint="ranges that the row adds up"),
    Column("Host", hint="time in those ranges on their threads, nested ranges included"),
    Column("GPU", hint="time in which a GPU ran work that was launched in them"),
    Column("Share", hint="share of the GPU time of all rows"),
    Column("Idle", hint="time in which a GPU was idle before work of the row began"),
    Column("Kernels"),
    Column("Copies"),
    Column("Copied"),
    Column("Waits", hint="synchronizations that block the host"),
    Column("Waited"),
)

_BRANCHES = (
    Column("Range", number=False),
    Column("Calls"),
    Column("Host", hint="time in the range on its thread"),
    Column("GPU", hint="time in which a GPU ran work launched in the range or below it"),
    Column("Idle", hint="time in which a GPU was idle before that work began"),
    Column("Shortest", hint="of the calls, from the first to the last work on a GPU"),
    Column("Median", hint="of the same"),
    Column("Longest", hint="of the same"),
    Column("Kernels"),
    Column("Copies", hint="between host and device"),
    Column("Copied", hint="between host and device"),
    Column("Waits", hint="synchronizations that block the host"),
    Column("Waited"),
)

_KERNELS = (
    Column("Kernel", number=False, wide=True),
    Column("GPU time", hint="sum of the durations of all launches"),
    Column("Share", hint="share of the GPU time of kernels, copies and memsets"),
    Column("Launches"),
    Column("Mean", hint="share of the launches of this capture"),
)

_COPIES = (
    Column("Direction", number=False),
    Column("From", number=False),
    Column("To", number=False),
    Column("Copies"),
    Column("Bytes"),
    Column("GPU time"),
    Column("Rate", hint="bytes divided by GPU time"),
)

_FINDINGS = (
    Column("Finding", number=False),
    Column("Range", number=False, wide=True),
    Column("Seen", number=False, wide=True),
    Column("Count"),
    Column("Cost", hint="cost in the capture; costs overlap, and may not all be saved"),
)


def costs(summary: Summary) -> Table:
    """Costs of each range of a summary, with a row of totals."""
    rows = summary.rows[:MOST_ROWS]
    # the sum of rows, not the total: work of two rows may overlap
    whole = sum(row.gpu_ms for row in summary.rows)
    cells = [_cost(row, shown(row.name, 120), whole) for row in rows]
    if len(summary.rows) > len(rows):
        cells.append(left_out(len(summary.rows) - len(rows), len(_COSTS)))
    cells.append(_cost(summary.total, "whole capture", whole))
    title = f"By {summary.by}"
    return Table(title, (Column(summary.by.capitalize(), number=False), *_COSTS), cells, tall=len(cells) > 16)


def left_out(number: int, columns: int) -> list[Cell]:
    """A row with the number of rows that were left out of a table."""
    return [Cell(units.plural(number, "more row")), *[MISSING] * columns]


def _cost(row: Row, name: str, whole_ms: float) -> list[Cell]:
    copies, moved = sum(copy.count for copy in row.copies), sum(copy.bytes for copy in row.copies)
    share = Cell(units.percent(row.gpu_ms / whole_ms), row.gpu_ms) if whole_ms else MISSING
    return [
        Cell(name),
        _count(row.calls),
        _time(row.host_ms),
        _time(row.gpu_ms),
        share,
        _time(row.idle_ms),
        _count(row.kernels),
        _count(copies),
        Cell(units.quantity(moved, "B"), moved) if moved else MISSING,
        _count(row.syncs),
        _time(row.sync_ms),
    ]


def _count(value: int) -> Cell:
    return Cell(units.count(value), value) if value else MISSING


def _time(value_ms: float) -> Cell:
    return Cell(units.time(value_ms / 1e3), value_ms) if value_ms else MISSING


def inclusive(branches: list[Branch]) -> Tree | None:
    """The ranges with the most GPU time, each below the one around it; ``None`` without a range."""
    rows = [row for branch in branches for _, row in branch.rows()]
    if not any(row.calls for row in rows):
        return None
    rows.sort(key=lambda row: (-row.gpu_ms, -row.host.total_ms, row.path))
    kept = {id(row) for row in rows[:MOST_BRANCHES]}
    opened = OPEN_FROM * max(row.gpu_ms for row in rows)

    def nodes(level: list[Branch]) -> list[Node]:
        seen = [row for row in level if id(row) in kept]
        found = [Node(_branch(row), nodes(row.children), row.gpu_ms >= opened) for row in seen]
        if len(seen) < len(level):
            found.append(Node(left_out(len(level) - len(seen), len(_BRANCHES) - 1)))
        return found

    return Tree("Each range with its children", _BRANCHES, nodes(branches))


def _branch(row: Branch) -> list[Cell]:
    turns = row.projected
    return [
        Cell(shown(row.name, 120)),
        _count(row.calls),
        *map(_time, (row.host.total_ms, row.gpu_ms, row.idle_ms)),
        *([MISSING] * 3 if turns is None else map(_time, (turns.min_ms, turns.median_ms, turns.max_ms))),
        _count(row.kernels),
        _count(row.copies),
        Cell(units.quantity(row.copy_bytes, "B"), row.copy_bytes) if row.copy_bytes else MISSING,
        _count(row.waits),
        _time(row.wait_ms),
    ]


def kernels(by_kernel: Summary) -> Table | None:
    """The kernels with the most GPU time, and all others in one row; ``None`` without a kernel.

    Args:
        by_kernel: the capture's summary by kernel.
    """
    rows = [row for row in by_kernel.rows if row.kernels]
    rows.sort(key=lambda row: (-row.gpu_sum_ms, row.name))
    if not rows:
        return None
    whole = by_kernel.total.gpu_sum_ms
    cells = [_kernel(shown(row.name, 160), row.gpu_sum_ms, row.kernels, whole) for row in rows[:MOST_KERNELS]]
    rest = rows[MOST_KERNELS:]
    if rest:
        name = units.plural(len(rest), "other kernel")
        cells.append(_kernel(name, sum(row.gpu_sum_ms for row in rest), sum(row.kernels for row in rest), whole))
    return Table("Kernels by GPU time", _KERNELS, cells, tall=len(cells) > 16)


def _kernel(name: str, spent_ms: float, launches: int, whole_ms: float) -> list[Cell]:
    return [
        Cell(name),
        Cell(units.time(spent_ms / 1e3), spent_ms),
        Cell(units.percent(spent_ms / whole_ms), spent_ms) if whole_ms else MISSING,
        Cell(units.count(launches), launches),
        Cell(units.time(spent_ms / launches / 1e3), spent_ms / launches),
    ]


def copies(summary: Summary) -> Table | None:
    """Copies by direction and memory, the longest total first; ``None`` without a copy."""
    rows = sorted(summary.total.copies, key=lambda row: -row.gpu_ms)
    if not rows:
        return None
    cells = [
        [
            Cell(shown(row.direction, 60)),
            Cell(shown(row.source_memory, 40)),
            Cell(shown(row.target_memory, 40)),
            Cell(units.count(row.count), row.count),
            Cell(units.quantity(row.bytes, "B"), row.bytes),
            _time(row.gpu_ms),
            Cell(units.quantity(row.bytes / row.gpu_ms * 1e3, "B/s"), row.bytes / row.gpu_ms)
            if row.gpu_ms
            else MISSING,
        ]
        for row in rows
    ]
    return Table("Copies by direction and memory", _COPIES, cells)


def advice(found: list[Finding]) -> list[Text]:
    """Advice for the kinds of findings in the capture, the most expensive kind first."""
    told: dict[str, dict[str, None]] = defaultdict(dict)
    costs: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for row in found:
        costs[row.finding] += row.cost_ms
        counts[row.finding] += row.count
        told[row.finding].setdefault(row.advice)
    return [
        Text(
            f"{KINDS[name].meaning[0].upper()}{KINDS[name].meaning[1:]}. {' '.join(told[name])}",
            bold=f"{name}, {units.plural(counts[name], 'time')}, {units.time(cost / 1e3)}.",
        )
        for name, cost in sorted(costs.items(), key=lambda pair: (-pair[1], pair[0]))
    ]


def findings(found: list[Finding]) -> Table | None:
    """Findings range by range, the most expensive first; ``None`` if there is none."""
    cells = [
        [
            Cell(row.finding),
            Cell(shown(row.range, 160)),
            Cell(shown(row.seen, 120)),
            Cell(units.count(row.count), row.count),
            Cell(units.time(row.cost_ms / 1e3), row.cost_ms),
        ]
        for row in found[:MOST_ROWS]
    ]
    if not cells:
        return None
    if len(found) > MOST_ROWS:
        cells.append(left_out(len(found) - MOST_ROWS, len(_FINDINGS) - 1))
    return Table("Findings by range and cost", _FINDINGS, cells, tall=len(cells) > 12)
