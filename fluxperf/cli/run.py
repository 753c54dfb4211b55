"""``fluxperf run``: measures rungs of a workload and appends their records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fluxperf.cli.ladder import ladder
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import SyntheticWeights, WeightSource
from fluxperf.engine.config import config_named
from fluxperf.engine.device import open_device
from fluxperf.engine.phases import PHASES, phase_named
from fluxperf.errors import ConfigError
from fluxperf.harness.records import Record, append_record
from fluxperf.recording import EXTRA_RUNS, measure
from fluxperf.workloads import WORKLOADS, Workload, prepare, reference_latents, workload_named


def run(
    workload: Annotated[
        str, typer.Option("--workload", "-w", help=f"One of {', '.join(WORKLOADS)}; the sizes below replace its own.")
    ] = "tiny",
    height: Annotated[int | None, typer.Option(help="Pixels, a multiple of 16.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, a multiple of 16.")] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Length of the text sequence.")] = None,
    steps: Annotated[int | None, typer.Option(help="Euler steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images at once.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(help="FLUX.1 checkpoint: diffusers folder or single file. Synthetic weights if not given."),
    ] = None,
    rung: Annotated[
        list[str] | None, typer.Option("--rung", "-r", help="Rung to measure; repeat for several. All if not given.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every rung of the ladder; the default, said aloud.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, host or cuda.")] = "auto",
    repeat: Annotated[int, typer.Option(min=1, help="Timed generations per rung, after one warm-up.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of synthetic weights and inputs.")] = 0,
    nvtx: Annotated[bool, typer.Option("--nvtx", help="Push NVTX ranges in timed runs, for a profiler.")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Append the records to this JSON Lines file.")
    ] = None,
) -> None:
    """Measure rungs of a workload: exact copy counts, error against the oracle, times.

    A record is appended as soon as its rung is done; a run that is stopped keeps every rung it finished.
    """
    chosen = workload_named(workload, height=height, width=width, text_tokens=text_tokens, steps=steps, batch=batch)
    if everything and rung:
        raise ConfigError("run: expected either --all or --rung, got both. Leave one out.")
    names = [phase_named(name).name for name in rung] if rung else [phase.name for phase in PHASES]
    kind = open_device(device).kind
    source: WeightSource = Checkpoint(weights) if weights else SyntheticWeights(config_named(chosen.model), seed)
    records = _measure_all(names, chosen, source, kind, repeat, seed, nvtx, output)
    Console().print(ladder(records))
    if output is not None:
        typer.echo(f"{len(records)} records appended to {output}. `fluxperf report {output}` makes a page of them.")


def _measure_all(
    names: list[str],
    workload: Workload,
    source: WeightSource,
    device: str,
    repeat: int,
    seed: int,
    nvtx: bool,
    output: Path | None,
) -> list[Record]:
    """Records of the rungs, each appended when it is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    records: list[Record] = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("oracle", total=1 + len(names) * (repeat + EXTRA_RUNS))
        reference = reference_latents(workload, source, seed)
        progress.advance(task)
        for name in names:
            progress.update(task, description=name)
            prepared = prepare(name, workload, source, device, seed=seed, nvtx=nvtx)
            record = measure(prepared, repeat, reference, on_sample=lambda: progress.advance(task))
            records.append(record)
            if output is not None:
                append_record(output, record)
    return records
