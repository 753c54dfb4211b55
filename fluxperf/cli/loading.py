"""How loading of weights is shown: a bar with bytes and rate while it runs, a line when it is done."""

from __future__ import annotations

from fluxperf.cli.progress import Progress
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.harness.records import LoadRow


class BytesBar:
    """A bar that is seen while files are read.

    Args:
        total: bytes that will be read between `begin` and `end`; no bar for 0.
    """

    def __init__(self, total: int) -> None:
        #: Shown by itself, or below another one.
        self.progress = Progress("weights", total or None, in_bytes=True)
        self.progress.visible(False)
        self._shown, self._total = False, total

    def begin(self) -> None:
        """The weights are placed from now on."""
        self._shown = self._total > 0
        self.progress.visible(self._shown)

    def end(self) -> None:
        """They are there: the bar goes."""
        self._shown = False
        self.progress.visible(False)

    def advance(self, nbytes: int) -> None:
        """So many more have been read; any thread may call it."""
        if self._shown:
            self.progress.advance(nbytes)


class LoadingBar(BytesBar):
    """The bar of a checkpoint, once for every rung; none for weights that are drawn.

    Args:
        source: weights that are about to be placed, any number of times.
    """

    def __init__(self, source: WeightSource) -> None:
        super().__init__(source.stored_bytes)
        if isinstance(source, Checkpoint):
            source.on_bytes = self.advance


def loaded(row: LoadRow) -> str:
    """Bytes, seconds and rate of loading, in words: ``weights: 23.8 GB in 4.1 s, 5.8 GB/s``."""
    return f"weights: {_size(row.bytes)} in {row.time_s:.1f} s, {_size(row.bytes / row.time_s)}/s"


def _size(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
