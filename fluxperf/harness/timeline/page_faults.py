"""Page faults of unified memory as a table."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from fluxperf.harness.timeline.columns import Column
from fluxperf.harness.timeline.rows import NONE, FaultKind, Side
from fluxperf.harness.timeline.tables import OfKinds


class Fault(msgspec.Struct, frozen=True, gc=False):
    """``number`` page faults of unified memory that were served together; ``range`` is assigned as in unified.py.

    Those of the host have no duration, and no GPU (0).
    """

    side: Side
    access: str
    start_ns: int
    end_ns: int
    process: int
    gpu: int
    number: int
    range: int = NONE


class Faults(OfKinds[Fault, FaultKind]):
    """Page faults of unified memory."""

    what: Column
    start_ns: Column
    end_ns: Column
    process: Column
    gpu: Column
    number: Column
    range: Column

    @property
    def unplaced(self) -> NDArray[np.bool_]:
        """Whether the range of each row is unknown."""
        found: NDArray[np.bool_] = self.range == NONE
        return found

    @staticmethod
    def _kind(row: Fault) -> FaultKind:
        return FaultKind(row.side, row.access)

    def _row(self, *values: int) -> Fault:
        what, *rest = values
        return Fault(*self.kinds[what], *rest)
