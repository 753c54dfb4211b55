"""Makes pictures for a command, with progress bars and a line per picture with the time of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fluxperf.budgets import in_words
from fluxperf.cli.loading import BytesBar, loaded
from fluxperf.cli.progress import Progress
from fluxperf.cli.rescue import write_or_rescue
from fluxperf.cli.terminal import say
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import FluxConfig, config_named
from fluxperf.engine.phases import phase_named
from fluxperf.errors import ConfigError, RecordError
from fluxperf.lifeline import undisturbed
from fluxperf.pipeline import png
from fluxperf.pipeline.asked import Asked, asked
from fluxperf.pipeline.embeddings import Words, load_embeddings, save_embeddings
from fluxperf.pipeline.folder import TEXT, TRANSFORMER, VAE, open_folder
from fluxperf.pipeline.generation import Generated, OnStep
from fluxperf.pipeline.hub import found
from fluxperf.pipeline.jobs import Defaults, Job, Line, check_suffix, is_folder, jobs_of
from fluxperf.pipeline.latents import load_latents, save_latents
from fluxperf.pipeline.parts import load_decoder, load_encoders, needed
from fluxperf.pipeline.single import SingleFile, open_single, parts_from
from fluxperf.pipeline.text import T5Precision
from fluxperf.pipeline.text_to_image import Pipeline


class How(NamedTuple):
    """Settings for making pictures."""

    model: Path
    rung: str | None
    device: str
    tokens: int
    noise_from: str
    t5: str
    t5_precision: str
    nvtx: bool
    memory_gb: float | None
    revision: str | None = None
    variant: str | None = None
    transformer: Path | None = None

    @property
    def single(self) -> SingleFile | None:
        """The single file with the transformer's weights, if they are not in the folder."""
        return None if self.transformer is None else open_single(self.transformer)

    def at_hand(self, parts: tuple[str, ...]) -> How:
        """The same settings with the local folder of the model, which is downloaded if necessary."""
        return self._replace(model=found(self.model, parts, self.revision, variant=self.variant), revision=None)


def make_pictures(
    how: How,
    lines: list[Line],
    embeddings: Path | None,
    given: Defaults,
    output: Path | None,
    latents_out: Path | None,
) -> None:
    """Loads the model and makes every picture.

    Args:
        how: settings.
        lines: prompts; none if embeddings are given.
        embeddings: file of embeddings.
        given: the command's values for all pictures.
        output: file or folder of the pictures.
        latents_out: file or folder of the latents.

    Raises:
        FluxperfError: a request, a model or an output path is invalid.
    """
    if lines:  # Check before gigabytes are read. Embeddings are checked later, against the sizes of the model.
        for job in jobs_of(lines, [], given, output, latents_out):
            _wanted(config_named("dev"), job, how.tokens)
    how = how.at_hand(needed(embeddings is None, output is not None, how.single))
    stored = None
    if embeddings is not None:
        kept = how.transformer or open_folder(how.model, TRANSFORMER, how.variant).path
        stored = load_embeddings(embeddings, Checkpoint(kept, how.variant).config)
        lines = [Line(prompt=one.prompt, prompt_2=one.prompt_2) for one in stored.prompts]
    jobs = jobs_of(lines, stored.rows if stored else [], given, output, latents_out)
    pipeline = _loaded(how, text_encoders=stored is None, vae=output is not None, cached=max(16, len(jobs)))
    if stored is None:
        pipeline.generation.ahead([(job.prompt, job.prompt_2 or job.prompt) for job in jobs], how.tokens)
    before = [_written(job) for job in jobs]
    try:
        for number, job in enumerate(jobs, start=1):
            _picture(pipeline, how, job, f"picture {number} of {len(jobs)}", stored.encoders if stored else "")
    except (KeyboardInterrupt, RecordError) as error:
        # Files are counted, not loop turns: an interrupt may come between a file and its count.
        done = sum(_written(job) not in (None, old) for job, old in zip(jobs, before, strict=True))
        error.add_note(f"{done} of {len(jobs)} pictures are finished. No partial file is left.")
        raise
    finally:
        pipeline.close()


def _written(job: Job) -> tuple[int, int] | None:
    """Identity of the job's last output file. A new output file replaces it and has another identity."""
    last = job.latents_out if job.output is None else job.output
    try:
        found = None if last is None else last.stat()
    except FileNotFoundError:
        return None
    return found and (found.st_ino, found.st_mtime_ns)


def _wanted(config: FluxConfig, job: Job, tokens: int) -> Asked:
    """The checked request of a job."""
    return asked(
        config,
        job.prompt if job.embedded is None else None,
        job.prompt_2 if job.embedded is None else None,
        given=0 if job.embedded is None else 1,
        text_tokens=tokens if job.embedded is None else job.embedded.text.shape[0],
        height=job.height,
        width=job.width,
        steps=job.steps,
        guidance=job.guidance,
    )


def _loaded(how: How, text_encoders: bool, vae: bool, cached: int) -> Pipeline:
    """The loaded pipeline, with a bar while loading and a line when it is loaded."""
    folders = [part for part in needed(text_encoders, False, how.single) if part in ("transformer", "text_encoder_2")]
    files = [file for name in folders for file in (how.model / name).glob("*.safetensors") if file.is_file()]
    files += [how.transformer] if how.transformer is not None and how.transformer.is_file() else []
    bar = BytesBar(sum(file.stat().st_size for file in files))
    console = bar.progress.console
    with bar.progress:
        bar.begin()
        pipeline = Pipeline.from_pretrained(
            how.model,
            rung=how.rung,
            device=how.device,
            variant=how.variant,
            transformer=how.transformer,
            t5=how.t5,  # type: ignore[arg-type]
            t5_precision=how.t5_precision,  # type: ignore[arg-type]
            cache_prompts=cached,
            text_encoders=text_encoders,
            vae=vae,
            nvtx=how.nvtx,
            on_bytes=bar.advance,
            memory_gb=how.memory_gb,
        )
        bar.end()
    placed = pipeline.parts.transformer
    if placed.plan is not None and placed.budget is not None:
        console.print(in_words(placed.plan, placed.budget), highlight=False, soft_wrap=True)
    loads = dict(pipeline.parts.loads)
    ready = loads.pop("ready")
    read = "; ".join(f"{name.replace('_', ' ')} {loaded(row)}" for name, row in loads.items())
    console.print(f"ready in {ready.time_s:.1f} s: {read.replace('weights: ', '')}", highlight=False, soft_wrap=True)
    return pipeline


def _picture(pipeline: Pipeline, how: How, job: Job, title: str, encoders: str) -> None:
    """Makes one picture, and prints the time of its stages."""
    start = time.perf_counter()
    wanted = _wanted(pipeline.config, job, how.tokens)
    with _bar(title, wanted.workload.steps) as on_step:
        made = pipeline.generation.batch(
            wanted,
            embedded=() if job.embedded is None else [job.embedded],
            seed=job.seed,
            noise_from=how.noise_from,  # type: ignore[arg-type]
            decode="no" if job.output is None else "pixels",
            on_step=on_step,
            labels=() if job.embedded is None else [Words(job.prompt, job.prompt_2 or "")],
            encoders=encoders,
        )
    for note in made.notes:
        say(f"note: {note}", err=True)
    with undisturbed():
        if job.latents_out is not None:
            numbers = pipeline.parts.device.door.to_host(made.latents, "latents")
            write_or_rescue(job.latents_out, lambda path: save_latents(path, numbers, made.metadata[0]))
        if job.output is not None:
            write_or_rescue(job.output, made.save)
    where = " and ".join(str(path) for path in (job.output, job.latents_out) if path is not None)
    say(f"{where}: {_told(made)}; {time.perf_counter() - start:.2f} s")


@contextmanager
def _bar(title: str, steps: int) -> Iterator[OnStep]:
    """A bar of steps that shows the milliseconds of the last step."""
    with Progress(title, steps) as progress:

        def on_step(step: int, seconds: float) -> None:
            progress.show(done=step + 1, note=f"{seconds * 1e3:.1f} ms/step")

        yield on_step


def _told(made: Generated) -> str:
    """Size, seed and stages of a picture as text."""
    workload, stages = made.workload, ", ".join(f"{one.name} {one.seconds * 1e3:.1f} ms" for one in made.stages)
    per_step = sum(made.steps_s) / len(made.steps_s) * 1e3
    size = f"{workload.width} x {workload.height}"
    return f"{size}, seed {made.seeds[0]}, {workload.steps} steps of {per_step:.1f} ms; {stages}"


def encode_prompts(how: How, prompts: list[Words], output: Path) -> None:
    """Writes embeddings of prompts, in the dtype of the rung's text encoders, or in float32 if no rung is named."""
    if not prompts:
        raise ConfigError("--embeddings-out: expected a prompt or --prompts, got none.")
    dtype = phase_named(how.rung).activations if how.rung else "float32"
    single = how.single
    how = how.at_hand(parts_from(single, TEXT))
    precision: T5Precision = how.t5_precision  # type: ignore[assignment]
    encoders, _ = load_encoders(how.model, how.device, dtype, precision, variant=how.variant, single=single)
    embedded, notes = encoders.stored([one.prompt for one in prompts], [one.prompt_2 for one in prompts], how.tokens)
    for note in notes:
        say(f"note: {note}", err=True)
    write_or_rescue(output, lambda path: save_embeddings(path, prompts, embedded, encoders.words))
    say(f"{output}: embeddings of {len(prompts)} prompt{'' if len(prompts) == 1 else 's'}, {how.tokens} tokens each")


def decode_latents(how: How, path: Path, output: Path | None) -> None:
    """Writes the picture of stored latents."""
    if output is None:
        raise ConfigError("--decode: expected -o, a file for the picture, got only another output. Add -o.")
    target = output / f"{path.stem}.png" if is_folder(output) or not output.suffix else output
    check_suffix("-o", target, ".png")
    latents, rows, columns, metadata = load_latents(path)
    # Decoded with the settings of the generation. Files of earlier versions do not store them.
    dtype = metadata.get("vae") or "bfloat16"
    single = how.single
    how = how.at_hand(parts_from(single, VAE))
    decoder, bridge = load_decoder(how.model, how.device, dtype, how.variant, single)
    images = decoder.images(bridge.device.door.to_device(latents, "latents"), rows, columns)
    png.write(target, decoder.pixels(images)[0], metadata)
    say(f"{target}: {metadata['size']}, decoded from {path}")
