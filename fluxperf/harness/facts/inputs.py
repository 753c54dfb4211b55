"""Inputs of a report besides the records: the ladder, published figures, and other evidence.

The harness does not know the engine, so the caller describes the ladder and the figures.
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

    ``phase`` is the mission's name for it ("Phase 1", "beyond"), ``change`` the difference to the rung before, and
    ``expected`` the speedup over the rung before that was expected beforehand (lowest, highest), or ``None``.
    """

    name: str
    phase: str
    change: str
    expected: tuple[float, float] | None


class PhaseInfo(NamedTuple):
    """One phase of the mission: its first and last rung, and the expected speedup between them."""

    name: str
    before: str
    after: str
    expected: tuple[float, float]


class Published(NamedTuple):
    """The published baseline. Seconds are for 4 steps at 1024x1024; copies for one forward of the full model.

    ``named_costs`` are published costs as (op, how it is done, seconds per call). ``source`` is the source of all
    figures. ``guided`` names the models that embed a guidance scale.
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
    """Sustained rates of a GPU at its power limit, in operations per second: of matrix products, and of attention."""

    products: float
    attention: float


class Context(NamedTuple):
    """All inputs of a report besides the records.

    ``bases`` gives a named workload for each model. Other sizes of the model are written as options beside that name.
    ``sustained`` are rates by dtype of the products, ``sustained_source`` is their source.
    """

    ladder: Sequence[RungInfo]
    phases: Sequence[PhaseInfo]
    published: Published
    headline_workload: str
    command: str
    bases: Mapping[str, str] = {}
    sustained: Mapping[str, Rates] = {}
    sustained_source: str = ""


class SuiteFolder(NamedTuple):
    """A folder with evidence of a suite: the command that measures it, what it lacks, what in it is of something else.

    The last two are sentences; "" if there is nothing to say.
    """

    command: str
    lacking: str = ""
    mixed: str = ""


class Extras(NamedTuple):
    """Evidence besides records. The page lists missing evidence with the command that makes it.

    ``samples`` are paths of records files from another machine, shown marked beside the others and never compared with
    them. ``verdict`` is the result of a gate, ``calibrations`` are A/A spreads by kind of machine, ``ceilings`` are
    rates of a machine, ``tried`` are rates of libraries' trials in records that are not loaded, ``history`` has series
    over commits, ``documents`` are documents beside records. ``suites`` are folders of suites that records
    are from. ``timeline`` is a capture of a step, attributed. ``command`` is the command that makes this page. ``home``
    is the folder of the page, to which links are relative; ``None`` for a page without a folder and links.
    """

    samples: frozenset[str] = frozenset()
    verdict: Verdict | None = None
    calibrations: Sequence[Calibration] = ()
    ceilings: Sequence[Ceiling] = ()
    tried: Sequence[Ceiling] = ()
    history: History | None = None
    timeline: Timeline | None = None
    documents: Documents = Documents()
    suites: Sequence[SuiteFolder] = ()
    command: str = ""
    home: Path | None = None


#: Extras of a report that has only records.
NOTHING = Extras()
