"""Settings of a measurement: number and conditions of samples."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.measure.stopping import Until


class Sampling(NamedTuple):
    """How something is timed repeatedly.

    Args:
        repeat: samples to keep, at least 1; with ``until`` the minimum number.
        warmup: runs before them; with ``until`` the minimum number.
        until: continue until the warm-up has settled and the median is known this precisely, or a limit is reached.
        rest_s: idle seconds before each sample. A GPU that works without a pause lowers its clock at its power limit.
            One image after a pause is another measurement, and both are useful.
    """

    repeat: int
    warmup: int = 1
    until: Until | None = None
    rest_s: float = 0.0

    @property
    def turns(self) -> int | None:
        """Total number of runs; ``None`` if it depends on the samples."""
        return None if self.until else self.warmup + self.repeat

    @property
    def settings(self) -> dict[str, str]:
        """The same as settings of a record."""
        return {"rest_s": f"{self.rest_s:g}"} if self.rest_s else {}
