"""A verdict as Markdown: the outcome in one line, then a table of all rows except plain passes."""

from __future__ import annotations

from fluxperf.harness.text.escape import shown
from fluxperf.harness.verdict import Row, Verdict
from fluxperf.words import plural

#: Maximum rows of the table; the JSON verdict has every row.
MOST_ROWS = 200

#: Maximum notes below it.
MOST_NOTES = 20

#: Characters with a meaning in Markdown or HTML, as entities.
_ENTITIES = {ord(char): f"&#{ord(char)};" for char in "\\`*_[]<>|~&@#"}

_SAYS = {
    "pass": "passes",
    "regression": "a regression",
    "error": "an error: nothing is proven",
    "unsure": "UNSURE: neither a change nor its absence is shown",
    "ungated": "nothing gated",
}


def markdown(verdict: Verdict, most_rows: int = MOST_ROWS, most_notes: int = MOST_NOTES) -> str:
    """The verdict as GitHub-flavoured Markdown, with limits for the rows of its table and for the notes."""
    counts = ", ".join(f"{number:,} {name}" for name, number in sorted(verdict.counts.items()))
    lines = [
        f"## Performance gate: {_SAYS[verdict.outcome]}",
        "",
        f"Base {cell(verdict.base)}, head {cell(verdict.head)}. {plural(len(verdict.rows), 'row')}: {counts}. "
        f"Exit code {verdict.exit_code}.",
    ]
    rows = verdict.telling
    if rows and most_rows:
        lines += ["", "| | verdict | metric | base | head | change | smallest detectable | why |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in rows[:most_rows]]
    if len(rows) > most_rows:
        lines += ["", f"The JSON verdict has {plural(len(rows) - most_rows, 'more row')}."]
    lines += ["", *(f"- {name}: {cell(value)}" for name, value in verdict.provenance.told)]
    if notes := verdict.notes[:most_notes]:
        lines += ["", "Also:", *(f"- {cell(note)}" for note in notes)]
    if len(verdict.notes) > most_notes:
        lines += [f"- The JSON verdict has {plural(len(verdict.notes) - most_notes, 'more note')}."]
    return "\n".join(lines) + "\n"


def cell(text: str, limit: int = 400) -> str:
    """Text for a table cell: one line, without Markdown, HTML or mentions."""
    return shown(text, limit).translate(_ENTITIES)


def _line(row: Row) -> str:
    mark = {"error": "ERROR", "regression": "FAIL", "unsure": "?", "ungated": "not gated"}.get(row.outcome, "ok")
    values = (_value(row.base, row), _value(row.head, row), _change(row), _least(row))
    return f"| {mark} | {row.verdict} | {cell(row.id)} | {' | '.join(values)} | {cell(row.message)} |"


def _value(value: float | int | str | None, row: Row) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return cell(value, 48)
    if row.unit == "s":
        return f"{value * 1e3:.3f} ms"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _change(row: Row) -> str:
    if row.change is None:
        return ""
    ends = f" ({row.low:+.2%} to {row.high:+.2%})" if row.low is not None and row.high is not None else ""
    return f"{row.change:+z.2%}{ends}"


def _least(row: Row) -> str:
    if row.detectable is None:
        return ""
    return f"{row.detectable:.2%}" if row.kind == "noisy" else f"{row.detectable:g}"
