"""The report as a comment on a pull request: Markdown below the size limit of code hosts."""

from __future__ import annotations

from collections.abc import Sequence

from fluxperf.harness.facts import summary
from fluxperf.harness.facts.provenance import provenance
from fluxperf.harness.facts.samples import samples_of, speedup, spread_of, summary_of
from fluxperf.harness.facts.study import Ladder, Rung, Study
from fluxperf.harness.formats.markdown import cell, markdown
from fluxperf.harness.records import Record
from fluxperf.harness.text import units
from fluxperf.words import plural

#: Maximum characters of a comment. GitHub refuses more than 65,536.
MOST_CHARACTERS = 60_000

#: Maximum rows of the verdict. The page and the JSON verdict have more.
MOST_ROWS = 40


def comment(study: Study) -> str:
    """The verdict, the ladders as tables, weaknesses, next steps, missing measurements. Ladders are dropped to fit."""
    seen = summary.summarized(study)
    verdict = study.extras.verdict
    head = [markdown(verdict, MOST_ROWS).rstrip()] if verdict else ["## fluxperf report", _plain(seen.measured)]
    if seen.problems:
        head += ["**Problems in the files**", _listed(seen.problems)]
    head.append(_listed([f"{one.about}: {one.text}" if one.about else one.text for one in seen.answer]))
    tail = ["**Strengths**", _listed(seen.fast)] if seen.fast else []
    tail += [
        "**Weaknesses**",
        _listed(seen.slow),
        "**Next steps**",
        _listed([one.text for one in seen.next_steps]),
    ]
    tail += ["<details><summary>Not measured</summary>", _listed(seen.unmeasured), "</details>"]
    room = MOST_CHARACTERS - len("\n\n".join([*head, *tail]))
    tables: list[str] = []
    for number, ladder in enumerate(study.climbing):
        text = _ladder(ladder)
        if len(text) > room:
            tables.append(f"The page has {plural(len(study.climbing) - number, 'more ladder')}.")
            break
        room -= len(text) + 2
        tables.append(text)
    return ("\n\n".join([*head, *tables, *tail]) + "\n")[:MOST_CHARACTERS]


def _plain(text: str) -> str:
    return cell(text, 4000).replace(units.NBSP, " ")


def _listed(texts: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(text)}" for text in texts[:12])


def _ladder(ladder: Ladder) -> str:
    lines = [
        f"**{_plain(ladder.title)}**",
        "",
        "| rung | time | spread | samples | over the rung before | copies down | up | error |",
        "|---|---:|---|---|---|---:|---:|---:|",
    ]
    before: Rung | None = None
    for rung in ladder.rungs:
        lines.append(
            _row(rung, rung.record, before)
            if rung.record
            else f"| {_plain(rung.label)} | no record |  |  |  |  |  |  |"
        )
        before = rung
    return "\n".join([*lines, "", _plain(provenance(ladder.records))])


def _row(rung: Rung, record: Record, before: Rung | None) -> str:
    found = summary_of(record)
    twin = " (twin)" if record.ran_as == "twin" else ""
    gain = speedup(before.record, record) if before and before.record and rung.info and not twin else None
    cells = [
        rung.label,
        f"{units.time(found.median)}{twin}" if found else "no time",
        spread_of(found) if found else "",
        samples_of(record),
        f"{units.times(gain.ratio)}, {gain.spread}" if gain else "",
        f"{record.totals.d2h_copies:,}",
        f"{record.totals.h2d_copies:,}",
        units.error(record.error.relative) if record.error else "no figure",
    ]
    return f"| {' | '.join(_plain(text) if text else '' for text in cells)} |"
