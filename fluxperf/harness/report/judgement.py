"""The gate's verdict on the page: outcome, reason, and a row for everything except plain passes."""

from __future__ import annotations

from markupsafe import Markup

from fluxperf.harness.facts.study import Study
from fluxperf.harness.pages.panels import Block, Heading, Notes, Text, present, source
from fluxperf.harness.pages.tables import MISSING, Cell, Column, Table
from fluxperf.harness.text import units
from fluxperf.harness.text.escape import shown
from fluxperf.harness.verdict import REASONS, Outcome, Row, Verdict

#: Maximum rows of the table; the JSON verdict has every row.
MOST_ROWS = 200

_SAYS: dict[Outcome, tuple[str, str, str]] = {
    "pass": ("Pass", "good", "No gated metric got worse."),
    "regression": ("Regression", "bad", "A gated metric got worse."),
    "error": ("Error", "bad", "Something could not be judged, so nothing is proven: this does not pass."),
    "unsure": (
        "Unsure",
        "warn",
        "The samples neither show a change nor rule out one of relevant size: this does not pass.",
    ),
    "ungated": ("Nothing gated", "warn", "No compared metric is gated."),
}

_NONE = Markup(
    '<p class="banner">No verdict was given, so it is not known whether a change made something worse. Run '
    "<code>fluxperf gate ... --json verdict.json</code>, then <code>fluxperf report ... --verdict "
    "verdict.json</code>.</p>"
)

_KINDS = {"regression": "bad", "error": "bad", "unsure": "warn", "pass": "good", "ungated": "missing"}

_COLUMNS = (
    Column("Metric", number=False, hint="workload / rung / metric"),
    Column("Verdict", number=False),
    Column("Base"),
    Column("Head"),
    Column("Change", hint="head over base, minus one, with its confidence interval"),
    Column("Pairs", hint="process pairs, base and head run one after the other"),
    Column("p", hint="adjusted p-value of the verdict (sign-flip, Holm)"),
    Column("Smallest detectable", hint="minimum detectable effect, or 1 for a count"),
    Column("Why", number=False, wide=True),
)


def verdict_panels(study: Study) -> list[Block]:
    """The verdict, or how to get one if the report has none."""
    verdict = study.extras.verdict
    if verdict is None:
        return [_NONE]
    title, kind, meaning = _SAYS[verdict.outcome]
    rows = verdict.telling
    about = (
        f"Base {shown(verdict.base, 160)}, head {shown(verdict.head, 160)}; judged "
        f"{shown(verdict.created_utc, 40)} by fluxperf {shown(verdict.fluxperf or 'of unknown version', 24)}; "
        f"exit code {verdict.exit_code}."
    )
    notes = Notes([shown(note, 400) for note in verdict.notes])
    return present(
        Text(meaning, f"outcome {kind}", bold=title),
        source(about),
        Text(_counts(verdict)),
        _table(rows) if rows else None,
        *((Heading("Different, although the sides are not kept apart"), notes) if notes.texts else ()),
    )


def _counts(verdict: Verdict) -> str:
    told = [f"{number:,} {shown(name, 24)}" for name, number in sorted(verdict.counts.items())]
    telling = len(verdict.telling)
    rest = f" {telling:,} of them are not plain passes and are listed." if telling else " All of them are plain passes."
    return f"{units.plural(len(verdict.rows), 'metric')} compared: {units.listing(told)}.{rest}"


def _table(rows: list[Row]) -> Table:
    left = f"; {len(rows) - MOST_ROWS:,} more are in the JSON verdict" if len(rows) > MOST_ROWS else ""
    cells = [_row(row) for row in rows[:MOST_ROWS]]
    return Table(
        f"Metrics that are not plain passes: errors first, then regressions, unsure ones, changes{left}",
        _COLUMNS,
        cells,
        tall=True,
    )


def _row(row: Row) -> list[Cell]:
    accepted = f"accepted: {shown(row.accepted, 200)}" if row.accepted else ""
    return [
        Cell(shown(row.id, 120)),
        Cell(row.verdict, None, row.outcome if row.outcome != "pass" else "", kind=_KINDS[row.outcome]),
        _value(row.base, row.unit),
        _value(row.head, row.unit),
        _change(row),
        MISSING if row.pairs is None else Cell(units.count(row.pairs), row.pairs),
        MISSING if row.p is None else Cell(f"{row.p:.2g}", row.p),
        _least(row),
        Cell(shown(row.message, 500), None, accepted or REASONS.get(row.reason, shown(row.reason, 48))),
    ]


def _value(value: float | int | str | None, unit: str) -> Cell:
    if value is None:
        return MISSING
    if isinstance(value, str):
        return Cell(shown(value, 48))
    if unit == "s":
        return Cell(units.time(value), float(value))
    return Cell(f"{value:,}" if isinstance(value, int) else units.digits(value), float(value))


def _change(row: Row) -> Cell:
    if row.change is None:
        return MISSING
    ends = row.low is not None and row.high is not None
    note = f"{100 * (row.low or 0):+.2f} to {100 * (row.high or 0):+.2f}{units.NBSP}%" if ends else "no interval"
    return Cell(units.change(row.change, 2), row.change, note if row.kind == "noisy" else "")


def _least(row: Row) -> Cell:
    if row.detectable is None:
        return MISSING
    text = f"{100 * row.detectable:.2f}{units.NBSP}%" if row.kind == "noisy" else f"{row.detectable:g}"
    return Cell(text, row.detectable)
