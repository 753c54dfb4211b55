"""Agreement of rungs and diffusers with the same weights, with the measured errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fluxperf.harness.measure.environment import commit, installed, machine
from tests.model.error_bounds import BFLOAT16_RATIO, FLOAT32_BOUND
from tests.model.rung_runs import FAIR, Case, Moment, relative_error

if TYPE_CHECKING:
    from tests.model.same_numbers import Pair

#: diffusers in its own bfloat16, as a name among rungs.
DIFFUSERS = "diffusers bfloat16"

#: Distributions whose versions affect the results.
_LIBRARIES = ("torch", "diffusers", "cupy-cuda13x", "cupy-cuda12x", "nvidia-cudnn-frontend", "nvmath-python")


class Finding(NamedTuple):
    """A measured relative error and its bound (infinite where none is set)."""

    quantity: str
    subject: str
    case: Case
    t: float
    error: float
    bound: float

    def row(self, pair: Pair) -> dict[str, Any]:
        """As a row of the parity record."""
        config, case = pair.config, self.case
        return {
            "quantity": self.quantity,
            "subject": self.subject,
            "blocks": [config.double_blocks, config.single_blocks],
            "dim": config.dim,
            "batch": case.batch,
            "text_tokens": case.text_tokens,
            "image_tokens": [case.rows, case.columns],
            "t": self.t,
            "error": self.error,
            "bound": self.bound if math.isfinite(self.bound) else None,
        }


def float32(pair: Pair, rung: str, case: Case) -> Iterator[Finding]:
    """A float32 rung equals diffusers in float32 up to rounding."""
    for moment in FAIR:
        error = relative_error(pair.ours(rung, case, moment), pair.theirs("float32", case, moment))
        yield Finding("error against diffusers float32", rung, case, moment.sigma, error, FLOAT32_BOUND)


def bfloat16(pair: Pair, rung: str, case: Case) -> Iterator[Finding]:
    """A bfloat16 rung is as close to diffusers in float32 as diffusers in bfloat16 is."""
    for moment in FAIR:
        own = _own_error(pair, case, moment)
        error = relative_error(pair.ours(rung, case, moment), pair.theirs("float32", case, moment))
        quantity = "error against diffusers float32"
        yield Finding(quantity, DIFFUSERS, case, moment.sigma, own, math.inf)
        yield Finding(quantity, rung, case, moment.sigma, error, BFLOAT16_RATIO * own)


def apart(pair: Pair, first: str, second: str, case: Case) -> Iterator[Finding]:
    """Two bfloat16 results differ by no more than independent errors within their bounds explain.

    Each is the exact result plus an error, and squares of independent errors add. With e the error of diffusers in
    bfloat16 and 1.1 e the bound of a rung, a rung and diffusers differ by at most ``sqrt(1 + 1.1^2) e``, two rungs by
    ``sqrt(2) 1.1 e``. Errors that both share (rounded modulations, for example) reduce the difference.
    """
    for moment in FAIR:
        own = _own_error(pair, case, moment)
        names = (first, second)
        results = [pair.theirs("bfloat16", case, moment) if name == DIFFUSERS else pair.ours(name, case, moment)
                   for name in names]  # fmt: skip
        bound = own * math.hypot(*(1.0 if name == DIFFUSERS else BFLOAT16_RATIO for name in names))
        yield Finding("difference", " - ".join(names), case, moment.sigma, relative_error(*results), bound)


def _own_error(pair: Pair, case: Case, moment: Moment) -> float:
    return relative_error(pair.theirs("bfloat16", case, moment), pair.theirs("float32", case, moment))


def record(rows: list[dict[str, Any]], device: dict[str, str]) -> dict[str, Any]:
    """Results as rows, with their test; a row that several tests found appears once."""
    revision, changed = commit(Path(__file__).resolve().parents[2])
    return {
        "what": "relative errors |x - reference| / |reference| of one forward, in Frobenius norms; the reference is "
        "diffusers in float32 without TF32, on the same weights; a difference is relative to its second subject",
        "commit": revision,
        "uncommitted_changes": changed,
        "machine": msgspec.to_builtins(machine(device)),
        "versions": {name: version for name in _LIBRARIES if (version := installed(name))},
        "rows": list({json.dumps(row): row for row in rows}.values()),
    }
