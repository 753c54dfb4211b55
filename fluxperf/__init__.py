"""FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxperf.harness.frames import records_frame
    from fluxperf.pipeline.text_to_image import Pipeline

__version__ = "0.1.0"

__all__ = ["Pipeline", "__version__", "records_frame"]


def __getattr__(name: str) -> Any:
    """The pipeline and the table of records, imported when they are asked for: nothing else waits for them."""
    if name == "Pipeline":
        from fluxperf.pipeline.text_to_image import Pipeline

        return Pipeline
    if name == "records_frame":
        from fluxperf.harness.frames import records_frame

        return records_frame
    raise AttributeError(f"module 'fluxperf' has no attribute {name!r}")
