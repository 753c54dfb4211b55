"""Settings of a measurement: how many samples, and when."""

from __future__ import annotations

from typing import NamedTuple

from fluxperf.harness.measure.stopping import Until


class Sampling(NamedTuple):
    """How something is timed again and again.

    Args:
        repeat: samples to keep, at least 1; with ``until`` the least number.
        warmup: runs before them; with ``until`` the least number.
        until: go on until the warm-up has settled and the median is known this well, or a bound is reached.
        rest_s: idle seconds before each sample. A card that works without a pause lowers its clock at its limit of
            power; one image after a pause is another measurement, and both are of use.
    """

    repeat: int
    warmup: int = 1
    until: Until | None = None
    rest_s: float = 0.0

    @property
    def turns(self) -> int | None:
        """Runs in all; ``None`` where the samples decide."""
        return None if self.until else self.warmup + self.repeat

    @property
    def settings(self) -> dict[str, str]:
        """The same as settings of a record."""
        return {"rest_s": f"{self.rest_s:g}"} if self.rest_s else {}
