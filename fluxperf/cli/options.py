"""Options that say what is run, the same in every command that runs a workload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxperf.workloads import WORKLOADS

_PIXELS = typer.Option(help="Pixels, a multiple of 16.")

WorkloadName = Annotated[
    str, typer.Option("--workload", "-w", help=f"One of {', '.join(WORKLOADS)}; the sizes below replace its own.")
]
#: Of a picture, and in place of a workload's own.
Pixels = Annotated[int, _PIXELS]
OwnPixels = Annotated[int | None, _PIXELS]
TextTokens = Annotated[int | None, typer.Option(help="Length of the text sequence.")]
Steps = Annotated[int | None, typer.Option(help="Euler steps.")]
Batch = Annotated[int | None, typer.Option(help="Images at once.")]
Weights = Annotated[
    Path | None,
    typer.Option(help="FLUX.1 checkpoint: diffusers folder or single file. Synthetic weights if not given."),
]
MemoryGb = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        help="Budget of device memory, in 10^9 bytes, for all that the transformer takes: weights that do not fit are "
        "kept in pinned host memory and streamed beside the compute.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of synthetic weights and inputs.")]
