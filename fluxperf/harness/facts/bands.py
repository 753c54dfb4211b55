"""A/A bands that are too wide to judge a small change by, and what narrows them."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.calibration import Calibrated
from fluxperf.harness.facts.commands import calibrate_command
from fluxperf.harness.facts.study import Ladder
from fluxperf.harness.significance import detectable
from fluxperf.harness.text import units

#: A smallest change that shows is too wide from here on: the policy's rules call less than this "no change".
WIDE = 0.03

#: Pairs that are looked through for fewest that show such a change; a comparison of more takes hours.
_MOST_PAIRS = 48


class Narrowing(NamedTuple):
    """A way to narrow a band: a sentence, and the command that calibrates so."""

    text: str
    command: str


def narrowed(ladder: Ladder, rung: str, known: Calibrated | None) -> Narrowing | None:
    """A way to narrow a rung's band; ``None`` where it is narrow enough, or nothing is calibrated.

    More pairs show a smaller change only down to the margin of the test, which is the A/A spread itself. Where that is
    too wide, each process must become steadier first.

    Args:
        ladder: which the rung is of.
        rung: its name.
        known: its calibration.
    """
    if known is None or (known.detectable is not None and known.detectable <= WIDE):
        return None
    shows = "no change" if known.detectable is None else f"no change below {units.percent(known.detectable)}"
    pairs = units.plural(known.pairs, "pair shows", "pairs show")
    start = f"{pairs} {shows} (A/A spread {units.percent(known.spread)})"
    enough = _pairs(known)
    if enough:
        text = f"{start}: {enough} pairs would show {units.percent(WIDE)}."
        return Narrowing(text, f"{calibrate_command(ladder, rung)} --pairs {enough}")
    text = (
        f"{start}, and more pairs alone cannot show {units.percent(WIDE)}: make each process steadier first, with more "
        "generations, a warm-up, and nothing else on the machine."
    )
    return Narrowing(text, f"{calibrate_command(ladder, rung)} --pairs {max(8, known.pairs)} --repeat 15 --warmup 3")


def _pairs(known: Calibrated) -> int | None:
    """The fewest pairs of this spread that show `WIDE`, or ``None`` where no affordable number does."""
    for pairs in range(known.pairs + 1, _MOST_PAIRS + 1):
        if detectable(known.spread, pairs, known.alpha, known.power, known.spread) <= WIDE:
            return pairs
    return None
