"""Measures pictures from prompt to file: a record with the stages of a picture and the counts of a forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from fluxperf.engine.device.transfers import Crossing
from fluxperf.harness.measure.clocks import Watch
from fluxperf.harness.measure.sampler import Samples, Variant, interleave
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import END_TO_END, Record, StageRow, Totals
from fluxperf.harness.timeline.witness import Witness
from fluxperf.lifeline import scratch
from fluxperf.pipeline.asked import Asked, asked
from fluxperf.pipeline.embeddings import PromptCache
from fluxperf.pipeline.generation import Generated
from fluxperf.pipeline.stages import STAGES
from fluxperf.pipeline.text_to_image import Pipeline
from fluxperf.record_rows import clocked, joules, outside
from fluxperf.recording import count, record_of
from fluxperf.workloads import Prepared, Workload

#: The measured prompt, about as long as those in use.
PROMPT = (
    "A red fox in fresh snow at dawn, low sun behind birch trees, its breath visible in the cold air, photographed "
    "with a long lens, shallow depth of field, fine detail in the fur"
)


def measure_pictures(
    pipeline: Pipeline,
    workload: Workload,
    sampling: Sampling,
    seed: int = 0,
    witness: bool = False,
    on_sample: Callable[[], None] = lambda: None,
    beside: Sequence[Variant] = (),
) -> tuple[Record, list[Samples]]:
    """Makes the same picture repeatedly, each time from the prompt to a file; its embeddings are never cached.

    Args:
        pipeline: with text encoders and VAE.
        workload: sizes; the batch is the number of pictures of one prompt.
        sampling: number of pictures and of warm-ups.
        seed: of the noise.
        witness: whether CUPTI counts one more forward and one more picture.
        on_sample: called after the counted forward and after each picture.
        beside: other programs that make the same picture; measured in turns.

    Returns:
        A record whose ``times_s`` have ``picture`` (from prompt to file), every stage, and ``step``; and the others'
            samples.

    Raises:
        FluxperfError: unsupported sizes, or a part that was not loaded.
    """
    wanted = _wanted(pipeline, workload)
    device = pipeline.parts.device
    encoders = pipeline.parts.encoders()
    before, encoders.cache = encoders.cache, PromptCache(0)
    try:
        with scratch("fluxperf-picture-") as folder:
            prepared = Prepared(pipeline.parts.transformer, workload, *pipeline.generation.inputs(wanted, seed))
            setup = _weights(device.door.ledger.crossings)
            counts = count(prepared, witness)
            on_sample()
            start = len(device.door.ledger.crossings)
            made: list[Generated] = []
            picture = partial(_picture, pipeline, wanted, seed, folder)
            with Watch(device.bus_id) as watch:
                variants = [Variant(device, lambda _: made.append(picture())), *beside]
                samples, *others = interleave(variants, sampling, on_sample, window=watch.window())
            generations = device.door.ledger.crossings[start:]
            seen = _witnessed(picture) if witness else None
    finally:
        encoders.cache = before
    around = outside(setup, generations, len(made), counts.totals, workload.steps)
    record = record_of(prepared, counts, around, samples)
    settings = {END_TO_END: "prompt to PNG", "t5": encoders.keeping, "encoders": pipeline.parts.dtype}
    record = msgspec.structs.replace(
        record,
        times_s=_times(samples, made),
        **clocked({"picture": samples.whole, "warmup_picture": samples.warmup}),
        energy_j={} if beside or sampling.rest_s else joules(watch.conditions, {"picture": len(samples.whole)}),
        stages=_stages(made[-1]),
        loads=pipeline.parts.loads,
        settings={**record.settings, **settings, **sampling.settings},
        conditions=[watch.conditions] if watch.conditions else None,
        picture_witness=seen,
    )
    return record, others


def _wanted(pipeline: Pipeline, workload: Workload) -> Asked:
    return asked(
        pipeline.config,
        PROMPT,
        text_tokens=workload.text_tokens,
        height=workload.height,
        width=workload.width,
        steps=workload.steps,
        per_prompt=workload.batch,
    )


def _picture(pipeline: Pipeline, wanted: Asked, seed: int, folder: Path) -> Generated:
    """One batch, from prompt to files. Drops large arrays afterwards."""
    made = pipeline.generation.batch(wanted, seed=seed)
    for index in range(len(made.seeds)):
        made.save(folder / f"{index}.png", index)
    made.latents = made.images = made.pixels = None
    return made


def _witnessed(picture: Callable[[], Generated]) -> Totals:
    """CUPTI's counts of one picture, including those of PyTorch's libraries."""
    with Witness() as seen:
        picture()
    return seen.totals


def _weights(crossings: list[Crossing]) -> list[Crossing]:
    """Crossings of the weights of transformer and T5 during loading."""
    return [crossing for crossing in crossings if "weights" in crossing.label]


def _times(samples: Samples, made: list[Generated]) -> dict[str, list[list[float]]]:
    """Samples by metric; warm-ups, which come first, are separate."""
    warm = len(samples.warmup_s)
    kept, first = made[warm:], made[:warm]

    def of(stage: str, several: list[Generated]) -> list[float]:
        return [sum(one.seconds for one in each.stages if one.name == stage) for each in several]

    times: dict[str, Any] = {"picture": [samples.whole_s]}
    times |= {stage: [of(stage, kept)] for stage in STAGES}
    times |= {"step": [[seconds for each in kept for seconds in each.steps_s]]}
    times |= {"warmup": [of("denoise", first)], "warmup_picture": [samples.warmup_s]}
    times |= {"warmup_step": [[seconds for each in first for seconds in each.steps_s]]}
    return times


def _stages(made: Generated) -> list[StageRow]:
    """Copies by stage; the files of one batch count as one stage."""
    rows = []
    for name in STAGES:
        some = [one for one in made.stages if one.name == name]
        rows.append(
            StageRow(
                stage=name,
                h2d_copies=sum(one.h2d_copies for one in some),
                d2h_copies=sum(one.d2h_copies for one in some),
                h2d_bytes=sum(one.h2d_bytes for one in some),
                d2h_bytes=sum(one.d2h_bytes for one in some),
            )
        )
    return rows
