"""The meaning of a change: cycles, joules and seconds of one metric, judged apart, become one word.

| cycles | joules | seconds | it is |
|---|---|---|---|
| more | | | more work: SLOWER |
| same | more | more | hungrier: the same work at a lower clock, SLOWER |
| same | same or less | more | not the change: the card ran slower, UNSURE |
| same | not known | more | work is the same, but whether it became hungrier is not known: UNSURE |
| same | not sure | more | the same; more samples or pairs can tell: UNSURE |
| same | same | not sure, or the same in turns of few processes | the same work: SAME |
| same | same | less | not the change: the card ran quicker, SAME |

Without cycles seconds alone are judged. Verdicts on cycles and joules stand as they are; joules that are more for the
same cycles are called hungrier, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fluxperf.harness.pairing import parts
from fluxperf.harness.verdict import Judgement, Outcome, Row


class _Word(NamedTuple):
    """The final form of a row of seconds: verdict, reason, outcome (``None`` keeps each), and words for it."""

    verdict: Judgement | None
    reason: str
    outcome: Outcome | None
    says: str


_MORE_WORK = _Word(None, "more_work", None, "More work: the GPU takes more cycles for it.")
_LESS_WORK = _Word(None, "less_work", None, "Less work: the GPU takes fewer cycles for it.")
_HUNGRIER = _Word(None, "hungrier", None, "Hungrier: the same cycles take more joules, so the card lowers its clock.")
_MORE_JOULES = _Word(None, "hungrier", None, "Hungrier: the same cycles take more joules.")
_LEANER = _Word(None, "leaner", None, "Leaner: the same cycles take fewer joules, so the card raises its clock.")
_CARD_SLOWER = _Word(
    "UNSURE", "card_slower", "unsure",
    "Not the change: cycles are the same and joules no more, so the card ran slower (clock, temperature, limit).",
)  # fmt: skip
_NO_JOULES = _Word(
    "UNSURE", "no_joules", "unsure",
    "The work is the same in cycles. Without joules nobody knows whether it became hungrier or the card ran slower.",
)  # fmt: skip
_NOISY_JOULES = _Word(
    "UNSURE", "noisy_joules", "unsure",
    "The work is the same in cycles. Joules are too noisy to show whether it became hungrier or the card ran slower: "
    "take more samples of each process (--repeat), or more pairs.",
)  # fmt: skip
_CARD_QUICKER = _Word(
    "SAME", "card_quicker", "pass", "Not the change: cycles and joules are the same, the card ran quicker."
)  # fmt: skip


_SAME_WORK = _Word("SAME", "same_work", "pass", "Cycles and joules are the same: so is the work.")


def explained(rows: Sequence[Row]) -> list[Row]:
    """The rows, in their order, with those of seconds put in the light of cycles and joules of the same metric.

    Args:
        rows: of any number of metrics and rungs, as they were judged one by one.
    """
    known = {row.id: row for row in rows}
    return [_explained(row, known) for row in rows]


def _explained(row: Row, known: dict[str, Row]) -> Row:
    family, _, key = parts(row.metric)[0].partition(".")
    if family == "cycles" and row.verdict in ("SLOWER", "FASTER"):
        return _said(row, _MORE_WORK if row.verdict == "SLOWER" else _LESS_WORK)
    if family == "energy" and row.verdict == "SLOWER":
        same = known.get(f"{row.workload}/{row.rung}/cycles.{key}")
        return _said(row, _MORE_JOULES) if same and same.verdict == "SAME" else row
    # Tails are seconds alone: cycles of the median say nothing of the slowest.
    unsure = row.reason == "few_processes_same" or (
        row.reason in ("too_noisy", "few_processes") and parts(row.metric)[0] == row.metric
    )
    if family != "times" or (row.verdict not in ("SLOWER", "FASTER") and not unsure):
        return row
    cycles, joules = (
        found.verdict if (found := known.get(f"{row.workload}/{row.rung}/{name}.{key}")) else None
        for name in ("cycles", "energy")
    )
    if unsure:
        return _said(row, _SAME_WORK) if cycles == joules == "SAME" else row
    word = _word(row.verdict, cycles, joules)
    return _said(row, word) if word else row


def _word(seconds: str, cycles: str | None, joules: str | None) -> _Word | None:
    """The word for seconds that changed; ``None`` where cycles do not tell."""
    slower = seconds == "SLOWER"
    if cycles == seconds:
        return _MORE_WORK if slower else _LESS_WORK
    if cycles != "SAME":
        return None
    if joules == seconds:
        return _HUNGRIER if slower else _LEANER
    if not slower:
        return _CARD_QUICKER if joules == "SAME" else None
    if joules is None:
        return _NO_JOULES
    return _NOISY_JOULES if joules == "UNSURE" else _CARD_SLOWER


def _said(row: Row, word: _Word) -> Row:
    return msgspec.structs.replace(
        row,
        verdict=word.verdict or row.verdict,
        reason=word.reason,
        outcome=word.outcome or row.outcome,
        message=f"{row.message} {word.says}",
    )
