"""Shows the loading of weights: a bar with bytes and rate while it runs, one line when it is finished."""

from __future__ import annotations

from fluxperf.cli.progress import Progress
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.harness.records import LoadRow


class BytesBar:
    """A bar that is visible while files are read.

    Args:
        total: bytes that will be read between `begin` and `end`; no bar for 0.
    """

    def __init__(self, total: int) -> None:
        #: The bar, shown by itself or below another one.
        self.progress = Progress("weights", total or None, in_bytes=True)
        self.progress.visible(False)
        self._shown, self._total = False, total

    def begin(self) -> None:
        """Shows the bar when the placing of the weights begins."""
        self._shown = self._total > 0
        self.progress.visible(self._shown)

    def end(self) -> None:
        """Hides the bar when the weights are placed."""
        self._shown = False
        self.progress.visible(False)

    def advance(self, nbytes: int) -> None:
        """Adds bytes that were read. Any thread may call it."""
        if self._shown:
            self.progress.advance(nbytes)


class LoadingBar(BytesBar):
    """The bar of a checkpoint, shown once per rung. No bar for synthetic weights.

    Args:
        source: weights that will be placed, any number of times.
    """

    def __init__(self, source: WeightSource) -> None:
        super().__init__(source.stored_bytes)
        if isinstance(source, Checkpoint):
            source.on_bytes = self.advance


def loaded(row: LoadRow) -> str:
    """Bytes, seconds and rate of loading as text: ``weights: 23.8 GB in 4.1 s, 5.8 GB/s``."""
    return f"weights: {_size(row.bytes)} in {row.time_s:.1f} s, {_size(row.bytes / row.time_s)}/s"


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
