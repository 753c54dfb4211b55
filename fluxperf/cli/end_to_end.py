"""``fluxperf run --end-to-end``: measures rungs from a prompt to a PNG file, and prints the stages of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from rich import box
from rich.table import Table

from fluxperf.cli.keeping import Keeping
from fluxperf.cli.progress import Progress
from fluxperf.cli.terminal import Console, say
from fluxperf.errors import ConfigError
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import Record
from fluxperf.pipeline.stages import STAGES
from fluxperf.words import plural
from fluxperf.workloads import Workload


class How(NamedTuple):
    """Settings of the measured rungs, from the options of ``fluxperf run``."""

    device: str
    sampling: Sampling
    seed: int
    nvtx: bool
    witness: bool
    peers: tuple[str, ...]
    memory_gb: float | None
    variant: str | None = None


def folders() -> tuple[str, ...]:
    """Subfolders of a model that a picture needs."""
    from fluxperf.pipeline.parts import needed  # imported here because other runs do not need it

    return needed(text=True, vae=True)


def measure_pictures_of(
    names: Sequence[str], workload: Workload, weights: Path | None, how: How, keeping: Keeping
) -> None:
    """Measures rungs. The record of each is saved as soon as the rung is done.

    Args:
        names: rungs.
        workload: sizes.
        weights: folder of the whole pipeline.
        how: settings from the options of ``fluxperf run``.
        keeping: saves the records.

    Raises:
        ConfigError: no folder was given, or a peer was named.
    """
    if weights is None:
        raise ConfigError("run --end-to-end: expected --weights DIR, the folder of a whole pipeline, got none.")
    if how.peers:
        raise ConfigError(
            f"run --end-to-end --peer {how.peers[0]}: peers are measured from latents to latents only. Leave out "
            "--peer. benchmarks/end_to_end.py also measures the pipeline of diffusers."
        )
    # Only these runs need the code that reads and encodes prompts.
    from fluxperf.pipeline.measuring import measure_pictures
    from fluxperf.pipeline.text_to_image import Pipeline

    turns = how.sampling.turns
    with Progress("loading", None if turns is None else len(names) * (1 + turns)) as progress:
        for name in names:
            progress.show(f"{name}: loading")
            pipeline = Pipeline.from_pretrained(
                weights, rung=name, device=how.device, variant=how.variant, nvtx=how.nvtx
            )
            progress.show(name)
            try:
                record, _ = measure_pictures(pipeline, workload, how.sampling, how.seed, how.witness, progress.advance)
            finally:
                pipeline.close()
            keeping.add([record])


def show_pictures(records: Sequence[Record], output: Path | None) -> None:
    """Prints the stages by workload, and the file that the records were appended to."""
    for name in dict.fromkeys(record.workload.name for record in records):
        Console().print(stage_table([record for record in records if record.workload.name == name]))
    if output is not None:
        say(f"{plural(len(records), 'record')} appended to {output}.")


def stage_table(records: Sequence[Record]) -> Table:
    """Table by rung: median milliseconds from prompt to file and of each stage, and the copies of a picture."""
    workload, machine = records[0].workload, records[0].machine
    twins = " Host twins: these times say nothing about a GPU." if records[0].ran_as == "twin" else ""
    view = Table(
        title=f"prompt to PNG: {workload.height} x {workload.width} pixels, {workload.text_tokens} text tokens, "
        f"{workload.steps} steps, batch {workload.batch}\non {machine.gpu or machine.cpu}",
        caption=f"Medians of n pictures in ms. Up, down: exact copies of one picture.{twins}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    short = {"text_encode": "text", "vae_decode": "vae"}
    for heading in ("rung", "picture", *(short.get(stage, stage) for stage in STAGES), "/step", "n", "up", "down"):
        view.add_column(heading, justify="left" if heading == "rung" else "right", no_wrap=True)
    for record in records:
        times = {name: [x for one in samples for x in one] for name, samples in record.times_s.items()}
        view.add_row(
            record.rung,
            *(_milliseconds(median(times[name])) for name in ("picture", *STAGES, "step")),
            str(len(times["picture"])),
            str(sum(row.h2d_copies for row in record.stages)),
            str(sum(row.d2h_copies for row in record.stages)),
        )
    return view


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.{1 if seconds < 10 else 0}f}"
