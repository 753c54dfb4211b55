"""Inputs of a report besides the records: the ladder, published figures, and other evidence that it shows.

The harness knows no engine, so whoever calls it describes ladder and figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fluxperf.harness.calibration import Calibration
from fluxperf.harness.facts.ceilings import Ceiling
from fluxperf.harness.facts.documents import Documents
from fluxperf.harness.series import History
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.verdict import Verdict


class RungInfo(NamedTuple):
    """One rung of the ladder, in order.

    ``phase`` is the mission's name for it ("Phase 1", "beyond"), ``change`` what differs from the rung before, and
    ``expected`` the speedup over the rung before that was expected beforehand (lowest, highest), or ``None``.
    """

    name: str
    phase: str
    change: str
    expected: tuple[float, float] | None


class PhaseInfo(NamedTuple):
    """One phase of the mission: the rung it starts from, the rung it ends at, and the speedup expected between."""

    name: str
    before: str
    after: str
    expected: tuple[float, float]


class Published(NamedTuple):
    """The published baseline. Seconds are for 4 steps at 1024x1024; copies for one forward of the full model.

    ``named_costs`` are (op, how it is done, seconds per call) that its authors named; ``source`` says where all of it
    is from. ``guided`` names the models that embed a guidance scale.
    """

    baseline_s: float
    peer_s: float
    peer_name: str
    target_s: float
    baseline_block_s: float
    peer_block_s: float
    d2h_copies: int
    h2d_copies: int
    named_costs: Sequence[tuple[str, str, float]]
    source: str
    guided: tuple[str, ...] = ()

    def copies_of(self, model: str) -> tuple[int, int]:
        """Copies down and up of one forward of a model: one more each way if it embeds a guidance scale."""
        more = int(model in self.guided)
        return self.d2h_copies + more, self.h2d_copies + more

    @property
    def gap(self) -> float:
        """How many times slower the baseline is than the peer."""
        return self.baseline_s / self.peer_s


class Rates(NamedTuple):
    """Rates that a card holds at its limit of power, in operations per second: of products, and of attention."""

    products: float
    attention: float


class Context(NamedTuple):
    """Everything a report is told besides the records.

    ``bases`` names a workload for each model: other sizes of the model are given beside that name. ``sustained`` are
    rates by dtype of the products, ``sustained_source`` where they are from.
    """

    ladder: Sequence[RungInfo]
    phases: Sequence[PhaseInfo]
    published: Published
    headline_workload: str
    command: str
    bases: Mapping[str, str] = {}
    sustained: Mapping[str, Rates] = {}
    sustained_source: str = ""


class Extras(NamedTuple):
    """Evidence besides records; the page says of each what is missing, and how to make it.

    ``samples`` are paths of records files that were measured elsewhere and are shown beside the others, marked and
    never compared with them. ``verdict`` is what a gate said, ``calibrations`` A/A spreads by kind of machine,
    ``ceilings`` rates that a machine reaches, ``tried`` those that libraries' trials reached in records
    that are not here, ``history`` series over commits, ``documents`` what lies beside records,
    ``incomplete`` what suites of the records have not measured yet, each with the command that does.
    ``timeline`` is a capture of a step, attributed. ``command`` is the command that makes this page, ``home`` the
    folder that it is written into, from which links lead; ``None`` for a page that has no place, and no links.
    """

    samples: frozenset[str] = frozenset()
    verdict: Verdict | None = None
    calibrations: Sequence[Calibration] = ()
    ceilings: Sequence[Ceiling] = ()
    tried: Sequence[Ceiling] = ()
    history: History | None = None
    timeline: Timeline | None = None
    documents: Documents = Documents()
    incomplete: Sequence[tuple[str, str]] = ()
    command: str = ""
    home: Path | None = None


#: A report that is given nothing besides records.
NOTHING = Extras()
