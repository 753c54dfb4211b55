"""The oracle as a table of ops: the whole model in float64, the reference for a run's error."""

from __future__ import annotations

from typing import Any

from fluxperf.engine.ops import reference
from fluxperf.engine.ops.catalog import implements, twin
from fluxperf.engine.ops.table import OP_NAMES

for _op in OP_NAMES:
    # joined_halves allocates a destination and computes nothing, so there is nothing to verify.
    if _op != "joined_halves":
        twin(_op, "oracle")(getattr(reference, _op))


@implements("joined_halves", "oracle", device="host")
def joined_halves(device: Any, *_: Any) -> tuple[None, None]:
    """No destinations: each op allocates its own result."""
    return None, None
