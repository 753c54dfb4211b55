"""``fluxperf kernels``: times each memory-bound kernel by itself, on a GPU."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.table import Table

from fluxperf.cli.keeping import Keeping
from fluxperf.cli.terminal import Console
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.errors import NoGpuError
from fluxperf.harness.timeline import driver
from fluxperf.kernel_times import records


def kernels(
    rung: Annotated[
        list[str] | None,
        typer.Option("--rung", "-r", help="Kernel, e.g. 'norm_modulate (fused)', also with a dtype. All if not given."),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed batches of 40 calls.")] = 9,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Append the records to this JSON Lines file.")
    ] = None,
) -> None:
    """Time every memory-bound kernel at the shapes of schnell-1024, back to back; needs a GPU.

    To compare these times of two revisions: ``fluxperf gate --workload kernels``.
    """
    if not driver.device_count():  # before CuPy is looked for, which a machine without a GPU need not have
        raise NoGpuError("kernels")
    device = CudaDevice()
    keeping = Keeping(output)
    found = records(device, repeat, rung or ())
    with keeping.until_done():
        keeping.add(found)
    view = Table(caption="Medians of batches of 40 calls.", caption_justify="left")
    for heading in ("kernel", "us", "GB/s"):
        view.add_column(heading, justify="left" if heading == "kernel" else "right")
    for record in found:
        seconds = median(record.times_s["call"][0])
        view.add_row(record.rung, f"{seconds * 1e6:.1f}", f"{int(record.settings['bytes']) / seconds / 1e9:.0f}")
    Console().print(view)
