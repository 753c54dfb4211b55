"""FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxperf.pipeline.text_to_image import Pipeline

__version__ = "0.1.0"

__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """The pipeline, imported when it is asked for: what only measures does not wait for it."""
    if name == "Pipeline":
        from fluxperf.pipeline.text_to_image import Pipeline

        return Pipeline
    raise AttributeError(f"module 'fluxperf' has no attribute {name!r}")
