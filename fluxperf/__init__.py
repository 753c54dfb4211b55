"""FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it.

`Pipeline` makes pictures from prompts, and `records_frame` reads measurements into a table. The rest of the public API:

- `fluxperf.gpu`: the primitives of the model on CuPy arrays of any program;
- `fluxperf.pytest_plugin`: a mark and a fixture that count copies between host and device in tests, and
  `fluxperf.harness.timeline.transfers`, which the fixture gives;
- `fluxperf.pipeline.stages`: the stages of a picture, as in ``PipelineOutput.stages``;
- `fluxperf.harness.records` and `fluxperf.harness.points`: the fields of a records file and of a history;
- `fluxperf.errors`: every error that is raised on purpose.

Everything else may change without notice. The commands explain themselves: ``fluxperf -h``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluxperf.harness.frames import records_frame
    from fluxperf.pipeline.text_to_image import Pipeline, PipelineOutput

__version__ = "0.1.0"

__all__ = ["Pipeline", "PipelineOutput", "__version__", "records_frame"]


def __getattr__(name: str) -> Any:
    """The pipeline and the table of records, imported only when they are accessed."""
    if name in ("Pipeline", "PipelineOutput"):
        from fluxperf.pipeline import text_to_image

        return getattr(text_to_image, name)
    if name == "records_frame":
        from fluxperf.harness.frames import records_frame

        return records_frame
    raise AttributeError(f"module 'fluxperf' has no attribute {name!r}")
