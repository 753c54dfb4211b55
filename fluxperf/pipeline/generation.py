"""Generation: turns one batch of prompts or embeddings into latents and pictures, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

import fluxperf
from fluxperf.engine.executors import Request
from fluxperf.engine.model.schedule import sigmas
from fluxperf.errors import ConfigError
from fluxperf.pipeline import noise, png
from fluxperf.pipeline.asked import MOST_TOKENS, Asked
from fluxperf.pipeline.embeddings import Embedded, Words
from fluxperf.pipeline.guided import Besides, GuidedSteps
from fluxperf.pipeline.parts import Parts
from fluxperf.pipeline.stages import Stage, Stages, on_host
from fluxperf.workloads import Workload

#: Called with index and seconds of each step after the device has completed it.
OnStep = Callable[[int, float], Any]

#: The result of a batch: pixels on the host, images on the device, or latents.
Decode = Literal["pixels", "images", "no"]

#: Number of sizes whose rotation tables are kept.
_SIZES = 8


@dataclass
class Generated:
    """Pictures of one call. ``latents`` [B, I, C] and, if decoded, ``images`` [B, 3, H, W] are on the device.

    ``metadata`` is stored in the files; ``notes`` are sentences about inputs that were cut or ignored.
    """

    latents: Any
    images: Any
    seeds: list[int | None]
    metadata: list[dict[str, str]]
    workload: Workload
    steps_s: list[float]
    stages: list[Stage]
    notes: list[str]
    pixels: Any = None

    def save(self, path: Path, index: int = 0) -> None:
        """Writes a picture as a PNG file with its metadata; adds the stage ``png``. A failed write leaves no file.

        Raises:
            RecordError: the file cannot be written.
        """
        with on_host("png", time.perf_counter, self.stages):
            png.write(path, self.pixels[index], self.metadata[index])


class Generation:
    """Runs the parts of a pipeline.

    Args:
        parts: the loaded parts.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts, self.device, self.config = parts, parts.device, parts.config
        self._ropes: dict[tuple[int, int, int], tuple[Any, Any]] = {}

    def forget(self) -> None:
        """Drops everything that is kept between calls."""
        self._ropes.clear()

    def ahead(self, prompts: Sequence[tuple[str, str]], tokens: int = MOST_TOKENS) -> None:
        """Encodes pairs of prompts (CLIP's, T5's) in advance if T5 does not stay on the device."""
        encoders = self._parts.encoders()
        if prompts and encoders.keeping != "keep":
            encoders.encode([first for first, _ in prompts], [second for _, second in prompts], tokens)

    def batch(
        self,
        wanted: Asked,
        embedded: Sequence[Embedded] = (),
        seed: int | Sequence[int] | None = None,
        noise_from: noise.NoiseFrom = "device",
        generator: Any = None,
        latents: Any = None,
        decode: Decode = "pixels",
        on_step: OnStep | None = None,
        labels: Sequence[Words] = (),
        encoders: str = "",
        besides: Besides = Besides(),  # noqa: B008 - it never changes
    ) -> Generated:
        """One batch: its latents, and its pictures if they are decoded.

        Args:
            wanted: the checked arguments of the call.
            embedded: one for each prompt, if embeddings replace prompts.
            seed: see `Pipeline.__call__`.
            noise_from: see `Pipeline.__call__`.
            generator: see `Pipeline.__call__`.
            latents: see `Pipeline.__call__`.
            decode: to ``pixels`` on the host, to ``images`` on the device, or ``no``.
            on_step: called for each step after it is complete.
            labels: prompts of the embeddings, for the metadata.
            encoders: description of the encoders that computed the embeddings, for the metadata.
            besides: negative prompts and callbacks.

        Raises:
            FluxperfError: see `Pipeline.__call__`.
        """
        if decode != "no":
            self._parts.vae()
        stages = Stages(self.device)
        with stages.stage("text_encode"):
            text, pooled, notes = self._conditions(wanted, embedded)
            against = self._against(wanted, besides, notes)
        with stages.stage("noise"):
            start, seeds = self._start(wanted, seed, noise_from, generator, latents)
        with stages.stage("denoise"):
            steps = None
            request = self.request(wanted, text, pooled)
            if not besides.plain:
                sampler = self._parts.transformer.sampler
                steps = GuidedSteps(sampler, self._parts.torch(), start, request, against, besides)
            final, marks = self._denoised(start, request, on_step, steps)
        workload = wanted.workload
        images = pixels = None
        if decode != "no":
            with stages.stage("vae_decode"):
                images = self._parts.vae().images(final, workload.rows, workload.columns)
                pixels = self._parts.vae().pixels(images) if decode == "pixels" else None
        drawn = "given" if latents is not None else self._noise_name(noise_from, generator)
        if generator is not None and seeds[0] is None:
            drawn += ", after earlier draws from the generator"
        words = list(labels) or [Words(*both) for both in zip(wanted.prompts, wanted.prompts_2, strict=True)]
        computed = self._parts.encoders().words if wanted.prompts else encoders
        metadata = [self._metadata(wanted, index, one, drawn, words, computed) for index, one in enumerate(seeds)]
        for index, texts in enumerate(metadata):
            texts |= besides.metadata(index // wanted.per_prompt)
        seconds = [self.device.elapsed_s(*pair) for pair in pairwise(marks)]
        return Generated(
            final,
            images,
            seeds,
            metadata,
            workload,
            seconds,
            stages.rows(),
            [*wanted.notes, *besides.notes, *notes],
            pixels,
        )

    def inputs(self, wanted: Asked, seed: int) -> tuple[Any, Request]:
        """Noise [B, I, C] and the transformer's other inputs, for prompts and a seed."""
        text, pooled, _ = self._conditions(wanted, ())
        return self._start(wanted, seed, "device", None, None)[0], self.request(wanted, text, pooled)

    def request(self, wanted: Asked, text: Any, pooled: Any) -> Request:
        """The transformer's inputs, from text [B, T, C] and pooled text [B, P] on the device and a call's sizes."""
        workload = wanted.workload
        size = (text.shape[1], workload.rows, workload.columns)
        if size not in self._ropes:
            if len(self._ropes) == _SIZES:
                del self._ropes[next(iter(self._ropes))]
            self._ropes[size] = self._parts.transformer.rope(*size)
        folder, tokens = self._parts.folder, workload.rows * workload.columns
        levels = sigmas(workload.steps, tokens, folder.shifted, folder.shift, wanted.sigmas)
        return Request(text, pooled, self._ropes[size], levels, wanted.guidance)

    def _conditions(self, wanted: Asked, embedded: Sequence[Embedded]) -> tuple[Any, Any, list[str]]:
        """Text [B, T, C] and pooled text [B, P] on the device, and notes on prompts that were cut."""
        notes: list[str] = []
        if wanted.prompts:
            tokens = wanted.workload.text_tokens
            embedded, notes = self._parts.encoders().encode(wanted.prompts, wanted.prompts_2, tokens)
        each = [one for one in embedded for _ in range(wanted.per_prompt)]
        text, pooled = (self._stacked(rows) for rows in zip(*each, strict=True))
        return text, pooled, notes

    def _against(self, wanted: Asked, besides: Besides, notes: list[str]) -> Request | None:
        """The transformer's inputs for negative prompts; ``None`` if there are none."""
        if not besides.negative:
            return None
        other = replace(wanted, prompts=besides.prompts, prompts_2=besides.prompts_2)
        text, pooled, more = self._conditions(other, besides.embedded)
        notes += [f"negative: {note}" for note in more]
        return self.request(other, text, pooled)

    def _stacked(self, rows: Sequence[Any]) -> Any:
        """Rows of a batch as one device array.

        Tensors on the device are used directly; others are copied through the door.
        """
        if isinstance(rows[0], np.ndarray):
            return self.device.door.to_device(np.stack(rows), "prompt embeddings")
        bridge = self._parts.torch()
        with bridge.work():
            stacked = bridge.torch.stack(tuple(rows))
            if stacked.device.type == bridge.place.type:
                return bridge.array(stacked)
            return self.device.door.to_device(stacked.cpu().numpy(), "prompt embeddings")

    def _start(
        self, wanted: Asked, seed: int | Sequence[int] | None, where: noise.NoiseFrom, generator: Any, latents: Any
    ) -> tuple[Any, list[int | None]]:
        """Initial latents, and the seed of each picture (``None`` for given latents)."""
        workload, channels = wanted.workload, self.config.in_channels
        if sum(source is not None for source in (seed, generator, latents)) > 1:
            raise ConfigError("expected only one of seed, generator and latents, got several. Leave the others out.")
        tokens = workload.rows * workload.columns
        if latents is not None:
            shape = (workload.batch, tokens, channels)
            return noise.given(latents, shape, self.device, self._parts.bridge), [None] * workload.batch
        if generator is None:
            seeds = noise.seeds_of(seed, workload.batch)
            if self._parts.bridge is None:
                return noise.drawn_without_torch(seeds, tokens, channels, self.device), list(seeds)
            generator = noise.generators_of(seeds, where, self._parts.bridge)
        several = list(generator) if isinstance(generator, list | tuple) else [generator]
        seeds_known = [noise.seed_of(one) for one in several]
        spatial = (workload.batch, channels // 4, 2 * workload.rows, 2 * workload.columns)
        start = noise.drawn(generator, spatial, self._parts.dtype, self._parts.torch())
        return start, [*seeds_known, *[None] * workload.batch][: workload.batch]

    def _denoised(
        self, start: Any, request: Request, on_step: OnStep | None, steps: GuidedSteps | None = None
    ) -> tuple[Any, list[Any]]:
        """Final latents, and marks around every step.

        ``on_step`` is called one step late, after the next step was submitted, so that the device never waits for it.
        """
        device = self.device
        marks = [device.mark()]

        def note(step: int) -> None:
            marks.append(device.mark())
            if on_step is not None and step:
                on_step(step - 1, device.elapsed_s(*marks[-3:-1]))

        sampler = self._parts.transformer.sampler
        if steps is None:
            final = sampler.denoise(start, request, note)
        else:
            sampler.take(steps, len(request.sigmas) - 1, note)
            final = steps.latents()
        if on_step is not None:
            on_step(len(marks) - 2, device.elapsed_s(*marks[-2:]))
        return final, marks

    def _metadata(
        self, wanted: Asked, index: int, seed: int | None, drawn: str, prompts: Sequence[Words], encoders: str
    ) -> dict[str, str]:
        """Metadata of a picture's file."""
        number, workload = index // wanted.per_prompt, wanted.workload
        texts = {
            "Software": f"fluxperf {fluxperf.__version__}",
            "model": f"{self._parts.folder.name} ({self.config.name})",
            "transformer": "" if self._parts.single is None else self._parts.single.description,
            "rung": self._parts.transformer.phase.name,
            "device": self.device.describe().get("gpu", "host"),
            "size": f"{workload.width} x {workload.height}",
            "steps": str(workload.steps),
            "text_tokens": str(workload.text_tokens),
            "noise": drawn,
            "text_encoders": encoders,
            "vae": self._parts.dtype,
        }
        if prompts:
            texts["prompt"] = prompts[number].prompt
            if prompts[number].prompt_2 != prompts[number].prompt:
                texts["prompt_2"] = prompts[number].prompt_2
        texts = {name: text for name, text in texts.items() if text}
        if wanted.sigmas is not None:
            texts["sigmas"] = ", ".join(map(repr, wanted.sigmas))
        if wanted.guidance is not None:
            texts["guidance"] = f"{wanted.guidance:g}"
        if seed is not None:
            texts["seed"] = str(seed)
        return texts

    def _noise_name(self, where: str, generator: Any) -> str:
        """Description of the random generator that a seed is for."""
        if self._parts.bridge is None:
            return "NumPy PCG64"
        place = self._parts.bridge.place.type if where == "device" else "cpu"
        if generator is not None:
            first = generator[0] if isinstance(generator, list | tuple) else generator
            place = first.device.type
        return f"torch.Generator({place!r}), drawn in {self._parts.dtype}"
