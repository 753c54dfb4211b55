"""Exact counts of one forward, per rung: copies through the door, bytes, launches, waits, memory.

They are counted in the structure of FLUX.1 (19 + 38 blocks) at a small width, as copies and calls do not depend on
width.
"""

from __future__ import annotations

import warnings
from typing import Any

from .rungs import NO_GPU, RUNGS, prepared

#: 19 + 38 blocks of width 64.
WORKLOAD = "tiny-57"

#: Counts besides copies. Without a GPU there are no launches and no device allocations.
COUNTS = ("op_calls", "syncs") if NO_GPU else ("op_calls", "launches", "syncs", "allocations", "peak_bytes")

Totals = dict[str, dict[str, int | None] | str]


def setup_cache() -> Totals:
    """Counts of every rung, made once for all benchmarks of this file; or the reason if a rung does not run."""
    from fluxperf.recording import count

    totals: Totals = {}
    for rung in RUNGS:
        try:
            counted: Any = count(prepared(rung, WORKLOAD))
        except NotImplementedError as error:
            warnings.warn(f"rung {rung} is left out: {error}", stacklevel=1)
            totals[rung] = str(error)
            continue
        # For commits before the CUDA device returned the forward's result as well.
        counted = (counted[0] if isinstance(counted, tuple) else counted).totals
        totals[rung] = {name: getattr(counted, name, None) for name in counted.__struct_fields__}
        prepared.cache_clear()
    return totals


setup_cache.timeout = 600


def _of(totals: Totals, rung: str, name: str) -> int:
    """One count.

    Raises:
        NotImplementedError: the rung does not run here, or this device does not count it (launches of a host twin).
    """
    counts = totals[rung]
    if isinstance(counts, str):
        raise NotImplementedError(counts)
    number = counts.get(name)
    if number is None:
        raise NotImplementedError(f"{name} is not counted on this device")
    return number


class Copies:
    """Copies between host and device in one forward."""

    params = (RUNGS, ("d2h", "h2d"))
    param_names = ("rung", "direction")
    version = "1"

    def setup(self, totals: Totals, rung: str, direction: str) -> None:
        """Skips a rung that does not run here."""
        _of(totals, rung, f"{direction}_copies")

    def track_copies(self, totals: Totals, rung: str, direction: str) -> int:
        """Copies, exact."""
        return _of(totals, rung, f"{direction}_copies")

    def track_bytes(self, totals: Totals, rung: str, direction: str) -> int:
        """Bytes copied, exact."""
        return _of(totals, rung, f"{direction}_bytes")

    track_copies.unit = "copies"
    track_bytes.unit = "bytes"


class Counts:
    """Other counts of one forward."""

    params = (
        RUNGS,
        ("op_calls", "syncs") if NO_GPU else ("op_calls", "launches", "syncs", "allocations", "peak_bytes"),
    )
    param_names = ("rung", "count")
    unit = "count"
    version = "1"

    def setup(self, totals: Totals, rung: str, count: str) -> None:
        """Skips counts that this device does not have."""
        _of(totals, rung, count)

    def track_count(self, totals: Totals, rung: str, count: str) -> Any:
        """The count, exact on one machine; ``peak_bytes`` is bytes."""
        return _of(totals, rung, count)
