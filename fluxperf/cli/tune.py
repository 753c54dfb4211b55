"""``fluxperf tune``: a thorough search for the algorithm of every matrix product, once per machine."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fluxperf.cli.options import Batch, OwnPixels, Steps, TextTokens, WorkloadName
from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import config_named
from fluxperf.engine.device.cublaslt import Gain, Product
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.phases import phase_named
from fluxperf.errors import BindError
from fluxperf.workloads import Workload, obstacles, prepare, workload_named


def tune(
    workload: WorkloadName = "schnell-1024",
    height: OwnPixels = None,
    width: OwnPixels = None,
    text_tokens: TextTokens = None,
    steps: Steps = None,
    batch: Batch = None,
    rung: Annotated[
        list[str] | None, typer.Option("--rung", "-r", help="Rungs whose products are searched; captured if none.")
    ] = None,
) -> None:
    """Search the algorithm of every matrix product for about a second each; needs a GPU.

    A run chooses among what cuBLASLt offers of itself, in milliseconds. This asks for more, and tries on a card that
    has become hot. What it finds is kept for this GPU and this version of cuBLAS: every later run takes it.
    """
    chosen = workload_named(workload, height=height, width=width, text_tokens=text_tokens, steps=steps, batch=batch)
    names = [phase_named(name).name for name in rung or ["captured"]]
    for name in names:
        if problems := obstacles(phase_named(name), "cuda"):
            raise BindError(name, "cuda", problems)
    console = Console()
    for name in names:
        gains, place = _search(name, chosen)
        console.print(_table(name, gains))
    console.print(f"-> {place}")


def _search(rung: str, workload: Workload) -> tuple[dict[Product, Gain], str]:
    """One generation, whose products are searched as they come."""
    prepared = prepare(rung, workload, SyntheticWeights(config_named(workload.model)), "cuda")
    device = prepared.device
    if not isinstance(device, CudaDevice):  # an internal truth: that is what was asked for
        raise AssertionError(device.kind)
    try:
        device.products.thorough = True
        prepared.denoise()
        return device.products.gains, str(device.choices_kept.path)
    finally:
        prepared.close()


def _table(rung: str, gains: dict[Product, Gain]) -> Table:
    saved = "nothing to search: these products have been searched before" if not gains else ""
    view = Table(title=f"Products of {rung}", title_justify="left", caption=saved, caption_justify="left")
    for heading in ("product", "candidates", "offered us", "chosen us", "saved"):
        view.add_column(heading, justify="left" if heading == "product" else "right")
    for p, gain in gains.items():
        what = f"{p.m} x {p.n} x {p.k} {p.dtype} {p.epilogue}" + (f" batch {p.batch}" if p.batch > 1 else "")
        times = (f"{seconds * 1e6:.1f}" for seconds in (gain.offered_s, gain.chosen_s))
        view.add_row(what, str(gain.candidates), *times, f"{1 - gain.chosen_s / gain.offered_s:.1%}")
    return view
