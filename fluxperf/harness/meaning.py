"""The cause of a change: cycles, joules and seconds of one metric, judged separately, are explained together.

| cycles | joules | seconds | explanation and verdict |
|---|---|---|---|
| more | | | more work: SLOWER |
| same or fewer | more | more | hungrier: the same work at a lower clock, SLOWER |
| same | same or less | more | not the change: the card ran slower, UNSURE |
| same | not known | more | work is the same, but whether it became hungrier is not known: UNSURE |
| same | unsure | more | the same work; more samples or pairs can show whether it became hungrier: UNSURE |
| unsure, at clocks far apart | increase exceeds any possible one of cycles | more | hungrier: SLOWER |
| unsure, at clocks far apart | not more | more | a lower clock, and perhaps more work: UNSURE |
| unsure, at clocks far apart | not less | less | a higher clock, and perhaps less work: UNSURE |
| same | same | unsure, or the same in turns of few processes | the same work: SAME |
| same | same or more | less | not the change: the card ran quicker, SAME |

Hungrier means more joules for the same cycles. Without cycles, seconds alone are judged. Verdicts on cycles are never
changed. An increase of joules for the same cycles is called hungrier too, except if the card ran at a higher clock: any
work then takes more joules, so the row of joules becomes UNSURE.

A few slow generations affect means, tails and joules, but not medians. So means and tails of seconds are explained by
means and tails of cycles, and joules by medians and means of cycles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from fluxperf.harness.pairing import parts
from fluxperf.harness.verdict import Judgement, Outcome, Row


class _Word(NamedTuple):
    """The explanation of a row: its final verdict and outcome (``None`` keeps them), its reason, and a sentence."""

    verdict: Judgement | None
    reason: str
    outcome: Outcome | None
    says: str


_MORE_WORK = _Word(None, "more_work", None, "More work: the GPU takes more cycles for it.")
_LESS_WORK = _Word(None, "less_work", None, "Less work: the GPU takes fewer cycles for it.")
_HUNGRIER = _Word(None, "hungrier", None, "Hungrier: the same cycles take more joules, so the card lowers its clock.")
_HUNGRIER_FOR_LESS = _Word(
    None, "hungrier", None, "Hungrier: fewer cycles take more joules, so the card lowers its clock."
)
_HUNGRIER_ANYHOW = _Word(
    None, "hungrier", None, "Hungrier: joules are more than cycles can be, so the card lowers its clock."
)
_MORE_JOULES_ANYHOW = _Word(None, "hungrier", None, "Hungrier: joules are more than cycles can be.")
_MORE_JOULES = _Word(None, "hungrier", None, "Hungrier: the same cycles take more joules.")
_MORE_JOULES_FOR_LESS = _Word(None, "hungrier", None, "Hungrier: fewer cycles take more joules.")
_JOULES_OF_WORK = _Word(None, "more_work", None, "More work: some generations take more cycles, and so more joules.")
_JOULES_OF_CLOCK = _Word(
    "UNSURE", "card_quicker", "unsure",
    "The head ran at a higher clock, which takes more joules, so it is unknown whether it became hungrier.",
)  # fmt: skip
_LEANER = _Word(None, "leaner", None, "Leaner: the same cycles take fewer joules, so the card raises its clock.")
_CARD_SLOWER = _Word(
    "UNSURE", "card_slower", "unsure",
    "Not the change: cycles are the same and joules no more, so the card ran slower (clock, temperature, limit).",
)  # fmt: skip
_NO_JOULES = _Word(
    "UNSURE", "no_joules", "unsure",
    "The work is the same in cycles. Joules are not known, so it is unknown whether it became hungrier or the card "
    "ran slower.",
)  # fmt: skip
_NOISY_JOULES = _Word(
    "UNSURE", "noisy_joules", "unsure",
    "The work is the same in cycles. Joules are too noisy to show whether it became hungrier or the card ran "
    "slower: take more samples in each process (--repeat), or more pairs.",
)  # fmt: skip
_CLOCKS_APART = _Word(
    "UNSURE", "clocks_apart", "unsure",
    "The head ran at another clock, and cycles do not show how much of this is caused by the change. Measure both "
    "sides at one clock.",
)  # fmt: skip
_CARD_QUICKER = _Word(
    "SAME", "card_quicker", "pass", "Not the change: cycles and joules are the same, the card ran quicker."
)  # fmt: skip
_HIGHER_CLOCK = _Word(
    "SAME", "card_quicker", "pass", "Not the change: cycles are the same and joules are more, the card ran quicker."
)  # fmt: skip


_SAME_WORK = _Word("SAME", "same_work", "pass", "Cycles and joules are the same: so is the work.")


def explained(rows: Sequence[Row], beside: Sequence[Row] = ()) -> list[Row]:
    """The rows in order. Rows of seconds are explained by cycles and joules of the same metric.

    Args:
        rows: of any number of metrics and rungs, each judged separately.
        beside: rows that only explain others, such as cycles of means and tails.
    """
    known = {row.id: row for row in (*beside, *rows)}
    return [_explained(row, known) for row in rows]


def _explained(row: Row, known: dict[str, Row]) -> Row:
    name, _ = parts(row.metric)
    family, _, key = name.partition(".")
    if family == "cycles" and row.verdict in ("SLOWER", "FASTER"):
        return _said(row, _MORE_WORK if row.verdict == "SLOWER" else _LESS_WORK)
    if family == "energy" and row.verdict == "SLOWER":
        return _said(row, _word_of_joules(row, key, known))
    # Tails have seconds only: cycles of the median say nothing about the slowest samples.
    unsure = row.reason == "few_processes_same" or (row.reason in ("too_noisy", "few_processes") and name == row.metric)
    if family != "times" or (row.verdict not in ("SLOWER", "FASTER") and not unsure):
        return row
    cycles, joules = (_beside(row, known, f"{one}.{key}") for one in ("cycles", "energy"))  # of all generations
    if unsure:
        return _said(row, _SAME_WORK if _verdict(cycles) == _verdict(joules) == "SAME" else None)
    form = row.metric.removeprefix(name)
    return _said(row, _word(row.verdict, _beside(row, known, f"cycles.{key}{form}"), joules))


def _word(seconds: str, cycles: Row | None, energy: Row | None) -> _Word | None:
    """The explanation of seconds that changed; ``None`` if cycles do not explain it."""
    slower = seconds == "SLOWER"
    work, joules = _verdict(cycles), _verdict(energy)
    if work == seconds:
        return _MORE_WORK if slower else _LESS_WORK
    if slower and work == "FASTER" and joules == "SLOWER":
        return _HUNGRIER_FOR_LESS
    if cycles is not None and cycles.reason == "clocks_apart":
        hungrier = _HUNGRIER_ANYHOW if slower and _outgrow(energy, cycles) else None
        return hungrier if joules == seconds else _CLOCKS_APART
    if work != "SAME":
        return None
    if slower:
        words = {"SLOWER": _HUNGRIER, "SAME": _CARD_SLOWER, "FASTER": _CARD_SLOWER, "UNSURE": _NOISY_JOULES}
        return words.get(joules or "", _NO_JOULES)
    return {"FASTER": _LEANER, "SAME": _CARD_QUICKER, "SLOWER": _HIGHER_CLOCK}.get(joules or "")


def _word_of_joules(row: Row, key: str, known: dict[str, Row]) -> _Word | None:
    """The explanation of joules that increased; ``None`` if cycles do not explain it."""
    work, seconds = (_beside(row, known, f"{name}.{key}") for name in ("cycles", "times"))
    cycles, mean = _verdict(work), _verdict(_beside(row, known, f"cycles.{key}.mean"))
    if work is not None and work.reason == "clocks_apart":
        grown = _MORE_JOULES_ANYHOW if _outgrow(row, work) else None
        return _JOULES_OF_CLOCK if _higher_clock(seconds, work) else grown
    if cycles == "FASTER" and mean in (None, "FASTER", "SAME"):
        return _JOULES_OF_CLOCK if _higher_clock(seconds, work) else _MORE_JOULES_FOR_LESS
    if cycles != "SAME":
        return None
    if mean == "SLOWER":
        return _JOULES_OF_WORK
    if mean not in (None, "SAME"):
        return None
    return _JOULES_OF_CLOCK if _higher_clock(seconds, work) else _MORE_JOULES


def _higher_clock(seconds: Row | None, cycles: Row | None) -> bool:
    """Whether the clock became higher: seconds decreased, and by more than cycles if those decreased too."""
    if seconds is None or seconds.verdict != "FASTER":
        return False
    if cycles is None or cycles.verdict != "FASTER":
        return True
    return seconds.high is not None and cycles.low is not None and seconds.high < cycles.low


def _outgrow(joules: Row | None, cycles: Row) -> bool:
    """Whether joules increased by more than cycles may have, by the intervals of both and the slope's error."""
    if joules is None or joules.low is None or cycles.high is None or cycles.margin is None:
        return False
    return math.log1p(joules.low) > math.log1p(cycles.high) + cycles.margin


def _beside(row: Row, known: dict[str, Row], metric: str) -> Row | None:
    """The row of another metric of the same rung."""
    return known.get(f"{row.workload}/{row.rung}/{metric}")


def _verdict(row: Row | None) -> str | None:
    return row.verdict if row else None


def _said(row: Row, word: _Word | None) -> Row:
    if word is None:
        return row
    return msgspec.structs.replace(
        row,
        verdict=word.verdict or row.verdict,
        reason=word.reason,
        outcome=word.outcome or row.outcome,
        message=f"{row.message} {word.says}",
    )
