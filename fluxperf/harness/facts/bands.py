"""A/A bands that are too wide to judge a small change, and how to narrow them."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.calibration import Calibrated
from fluxperf.harness.facts.commands import calibrate_command
from fluxperf.harness.facts.study import Ladder
from fluxperf.harness.significance import detectable
from fluxperf.harness.text import units

#: A smallest detectable change from here on is too wide: the policy's rules treat less than this as "no change".
WIDE = 0.03

#: Maximum number of pairs to search for the fewest that detect such a change. More would take hours.
_MOST_PAIRS = 48


class Narrowing(NamedTuple):
    """A way to narrow a band: a sentence, and the command of the new calibration."""

    text: str
    command: str


def narrowed(ladder: Ladder, rung: str, known: Calibrated | None) -> Narrowing | None:
    """A way to narrow a rung's band; ``None`` if it is narrow enough or not calibrated.

    More pairs lower the smallest detectable change only down to the margin of the test, which is the A/A spread itself.
    If the spread is too wide, each process must become more stable first.

    Args:
        ladder: ladder of the rung.
        rung: name of the rung.
        known: calibration of the rung.
    """
    if known is None or (known.detectable is not None and known.detectable <= WIDE):
        return None
    shows = "no change" if known.detectable is None else f"no change below {units.percent(known.detectable)}"
    pairs = units.plural(known.pairs, "pair detects", "pairs detect")
    start = f"{pairs} {shows} (A/A spread {units.percent(known.spread)})"
    enough = _pairs(known)
    if enough:
        text = f"{start}: {enough} pairs would detect {units.percent(WIDE)}."
        return Narrowing(text, f"{calibrate_command(ladder, rung)} --pairs {enough}")
    text = (
        f"{start}, and more pairs alone cannot detect {units.percent(WIDE)}: make each process more stable first, "
        "with more generations, a warm-up, and no other work on the machine."
    )
    return Narrowing(text, f"{calibrate_command(ladder, rung)} --pairs {max(8, known.pairs)} --repeat 15 --warmup 3")


def _pairs(known: Calibrated) -> int | None:
    """The fewest pairs with this spread that detect `WIDE`; ``None`` if no affordable number does."""
    for pairs in range(known.pairs + 1, _MOST_PAIRS + 1):
        if detectable(known.spread, pairs, known.alpha, known.power, known.spread) <= WIDE:
            return pairs
    return None
