"""The pipeline: loads a model folder and turns prompts into pictures."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fluxperf.engine.config import FluxConfig
from fluxperf.errors import ConfigError
from fluxperf.pipeline.asked import MOST_TOKENS, asked, checked_output, refuse, refuse_to_load
from fluxperf.pipeline.decoder import check_pictures
from fluxperf.pipeline.embeddings import Embedded
from fluxperf.pipeline.generation import Decode, Generated, Generation, OnStep
from fluxperf.pipeline.guided import GUIDED, Besides, against, checked_names
from fluxperf.pipeline.hub import found
from fluxperf.pipeline.latents import check_latents
from fluxperf.pipeline.libraries import library
from fluxperf.pipeline.noise import NoiseFrom, check_finite
from fluxperf.pipeline.parts import BEST_RUNG, Parts, TransformerOptions, load_parts, needed
from fluxperf.pipeline.single import open_single
from fluxperf.pipeline.stages import Stage
from fluxperf.pipeline.text import T5Keeping, T5Precision, TextOptions

#: Ledger size at which a call drops the crossings of earlier calls.
_CROSSINGS = 10_000


@dataclass
class PipelineOutput:
    """Result of a call: ``images`` as in diffusers, and fluxperf's own fields.

    Args:
        images: in the call's ``output_type``.
        seeds: the seed of each picture; ``None`` if a generator's seed is unknown.
        steps_s: seconds of each step.
        stages: seconds and copies of each stage.
        notes: warnings, such as a prompt that was cut.
    """

    images: Any
    seeds: list[int | None]
    steps_s: list[float] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Pipeline:
    """FLUX.1 on a device. `from_pretrained` loads it; a call makes pictures.

    Threads may share it. Their calls run one after another, as the device makes one picture at a time.

    A call takes negative prompts and callbacks as in diffusers. ``negative_prompt`` (``negative_prompt_2`` for T5), or
    ``negative_prompt_embeds`` with ``negative_pooled_prompt_embeds``, cost a second forward in each step if
    ``true_cfg_scale`` is above 1. ``callback_on_step_end`` is called as ``f(pipeline, step, timestep, tensors)`` after
    each step, with the tensors named in ``callback_on_step_end_tensor_inputs`` (``latents``, ``prompt_embeds``); it
    returns a dict of those that it changes. Setting ``pipeline._interrupt`` to true ends the generation.

    Args:
        parts: loaded from a model folder.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts, self.config = parts, parts.config
        self.generation = Generation(parts)
        #: Held during a call, because tokenizers store settings of a call, and captured steps share memory.
        self._turn = threading.RLock()
        self._open, self._busy = True, False
        #: A callback sets it to end the generation, as in diffusers.
        self._interrupt = False

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        rung: str | None = None,
        device: Any = "auto",
        dtype: Any = None,
        torch_dtype: Any = None,
        revision: str | None = None,
        variant: str | None = None,
        local_files_only: bool = False,
        transformer: str | Path | None = None,
        t5: T5Keeping = "keep",
        t5_precision: T5Precision = "full",
        cache_prompts: int = 16,
        text_encoders: bool = True,
        vae: bool = True,
        nvtx: bool = False,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
        memory_gb: float | None = None,
        **others: Any,
    ) -> Pipeline:
        """Loads a pipeline.

        Args:
            path: folder in diffusers' layout, with ``model_index.json``; or a name on the hub, which is taken
                from the local cache or downloaded.
            rung: rung of the ladder; ``captured`` if ``None``.
            device: ``auto``, ``host`` or ``cuda``.
            dtype: of text encoders and VAE, ``float32`` or ``bfloat16``, as a name or a PyTorch dtype; that of the
                rung's activations if ``None``.
            torch_dtype: older name of ``dtype`` in diffusers.
            revision: branch, tag or commit on the hub.
            variant: word in the file names, such as ``fp16``.
            local_files_only: whether to use only the local cache.
            transformer: file whose weights replace the folder's transformer, in any supported layout. If it also holds
                text encoders or a VAE, these replace the folder's too. Configs and tokenizers are always the folder's.
            t5: where T5 is between prompts: ``keep`` it on the device, ``offload`` it to the host's memory, or ``free``
                it and read it again for a prompt that is not cached.
            t5_precision: ``full`` (as ``dtype``) or ``fp8`` (e4m3 with a scale per output channel).
            cache_prompts: number of prompts whose embeddings are kept.
            text_encoders: whether to load them; without them calls need embeddings.
            vae: whether to load it; without it calls return latents.
            nvtx: whether to push an NVTX range for every step, block and op. Stages always have ranges.
            on_bytes: called with the number of bytes of transformer and T5 as they are read.
            memory_gb: budget of device memory in GB for the transformer, for pictures of up to 1024 x 1024, one at a
                time; weights that do not fit are streamed. Text encoders and VAE are not part of it.
            others: arguments of diffusers that have no effect here, such as ``use_safetensors=True``.

        Raises:
            CheckpointError: the folder is no FLUX.1 model, or is incomplete; one message lists all problems.
            DeviceError: a library of the extra ``pipeline`` is missing, or the device does not work.
            FluxperfError: the rung or device is unknown, or the device cannot run the rung.
        """
        refuse_to_load(others)
        single = None if transformer is None else open_single(Path(transformer))
        options = TransformerOptions(rung or BEST_RUNG, nvtx, memory_gb, single)
        text = TextOptions(t5, t5_precision, cache_prompts) if text_encoders else None
        named, parts = _dtype(dtype, torch_dtype), needed(text_encoders, vae, single)
        folder = found(path, parts, revision, local_files_only, variant)
        return cls(load_parts(folder, str(device), named, options, text, vae, on_bytes, variant))

    def close(self) -> None:
        """Frees everything and closes the device, after the current call. Further calls have no effect."""
        with self._turn:
            if self._open:
                self._open = False
                with self.parts.device.working():
                    self.generation.forget()
                    self.parts.close()

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        prompt_2: str | Sequence[str] | None = None,
        *,
        height: int | None = 1024,
        width: int | None = 1024,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int | None = 1,
        generator: Any = None,
        seed: int | Sequence[int] | None = None,
        noise_from: NoiseFrom = "device",
        latents: Any = None,
        prompt_embeds: Any = None,
        pooled_prompt_embeds: Any = None,
        output_type: str = "pil",
        return_dict: bool = True,
        max_sequence_length: int | None = MOST_TOKENS,
        on_step: OnStep | None = None,
        sigmas: Any = None,
        **others: Any,
    ) -> PipelineOutput | tuple[Any]:
        """Makes pictures of prompts. Arguments have the names and meanings of diffusers' ``FluxPipeline``.

        Args:
            prompt: one or several.
            prompt_2: T5's prompts; ``prompt`` if ``None``.
            height: pixels, a multiple of 16.
            width: pixels, a multiple of 16.
            num_inference_steps: 4 for schnell and 28 for dev if ``None``.
            guidance_scale: for dev; 3.5 if ``None``.
            num_images_per_prompt: pictures per prompt, in one batch.
            generator: one PyTorch generator for the batch, or a list with one per picture; instead of ``seed``.
            seed: of the first picture, the others have the next numbers; or one per picture; random if ``None``. Noise
                equals that of ``torch.Generator(device).manual_seed(seed)`` in diffusers on the same device.
            noise_from: ``device``; or ``cpu`` for noise that does not depend on the GPU, which costs a copy to it.
            latents: packed noise [B, I, C] to start from, a tensor or a NumPy array; a generator then has no effect.
            prompt_embeds: text [B, T, C] instead of a prompt, a tensor or a NumPy array.
            pooled_prompt_embeds: pooled text [B, P] for ``prompt_embeds``.
            output_type: ``pil``, ``np`` [B, H, W, 3] in [0, 1], ``pt`` [B, 3, H, W] in [0, 1], or ``latent`` [B, I, C].
            return_dict: whether to return an object with ``images``; otherwise a tuple.
            max_sequence_length: length of T5's sequence in tokens, at most 512; 512 if ``None``.
            on_step: called as ``on_step(step, seconds)`` after each step.
            sigmas: noise levels, one per step, instead of evenly spaced ones; the model's shift is applied to them.
            others: negative prompts and callbacks, as described for the class; unsupported arguments must be ``None``.

        Raises:
            ConfigError: an argument has an unsupported value.
            NumbersError: a picture is not finite. Tensors that stay on the device are not checked.
            FluxperfError: a part was not loaded, or the device failed.

        Warns:
            UserWarning: a prompt was cut, or an argument has no effect.
        """
        decode = _decode(checked_output(output_type))
        embedded = _given(self.config, prompt_embeds, pooled_prompt_embeds)
        wanted = asked(
            self.config,
            prompt,
            prompt_2,
            given=len(embedded),
            text_tokens=_tokens(embedded, max_sequence_length),
            height=height,
            width=width,
            steps=num_inference_steps,
            guidance=guidance_scale,
            per_prompt=num_images_per_prompt,
            sigmas=sigmas,
        )
        besides = self._besides(others, len(wanted.prompts) or len(embedded))
        generator, besides = _unless_given(latents, generator, besides)
        with self._call():
            made = self.generation.batch(
                wanted, embedded, seed, noise_from, generator, latents, decode=decode, on_step=on_step, besides=besides
            )
            images = self._output(made, output_type)
        for note in made.notes:
            warnings.warn(note, stacklevel=2)
        return PipelineOutput(images, made.seeds, made.steps_s, made.stages, made.notes) if return_dict else (images,)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """Reserves the pipeline for one call, and shortens the ledger before it.

        Raises:
            ConfigError: the pipeline was closed, or is called by its own ``on_step``.
        """
        with self._turn:
            if not self._open:
                raise ConfigError(
                    "expected an open pipeline, got one that was closed. Load another with from_pretrained."
                )
            if self._busy:
                raise ConfigError(
                    "expected on_step not to call its own pipeline, but it did. Call the pipeline afterwards."
                )
            crossings = self.parts.device.door.ledger.crossings
            if len(crossings) > _CROSSINGS:
                crossings.clear()
            self._busy, self._interrupt = True, False
            try:
                with self.parts.device.working():
                    yield
            finally:
                self._busy = False

    def _besides(self, given: Mapping[str, Any], count: int) -> Besides:
        """A call's negative prompts and callbacks, for a number of prompts; see the class's docstring."""
        refuse({name: value for name, value in given.items() if name not in GUIDED})
        tensors = given.get("negative_prompt_embeds"), given.get("negative_pooled_prompt_embeds")
        embedded = _given(self.config, *tensors, "negative_")
        texts = given.get("negative_prompt"), given.get("negative_prompt_2")
        besides = against(*texts, embedded, given.get("true_cfg_scale"), count)
        callback = given.get("callback_on_step_end")
        if callback is None:
            return besides
        names = checked_names(getattr(callback, "tensor_inputs", given.get("callback_on_step_end_tensor_inputs")))
        return replace(besides, callback=partial(callback, self), names=names, stopped=self._stops)

    def _stops(self) -> bool:
        return self._interrupt

    def _output(self, made: Generated, kind: str) -> Any:
        if kind == "pil":
            image = library("PIL.Image")
            return [image.fromarray(one) for one in made.pixels]
        # The device has finished with them; the caller gets a copy in memory of the caller's stream.
        if kind == "pt":
            return made.images.clone()
        if kind == "latent":
            if self.parts.bridge is None:
                latents = self.parts.device.door.to_host(made.latents, "latents")
                check_latents(latents)
                return latents
            return self.parts.bridge.tensor(made.latents).clone()
        bridge = self.parts.torch()
        with bridge.work():
            images = bridge.down(made.images.permute(0, 2, 3, 1), "images")
        check_pictures(~np.isnan(images).any(axis=(1, 2, 3)))
        return images


def _dtype(dtype: Any, torch_dtype: Any) -> str | None:
    """Name of a dtype that is given as either argument, as text or as a PyTorch dtype."""
    names = {str(one).removeprefix("torch.") for one in (dtype, torch_dtype) if one is not None}
    if len(names) > 1:
        raise ConfigError(
            f"dtype and torch_dtype: expected one of them, got {' and '.join(sorted(names))}. Leave torch_dtype out."
        )
    return next(iter(names), None)


def _decode(output: str) -> Decode:
    """The decoding that an output type needs."""
    return "no" if output == "latent" else "pixels" if output == "pil" else "images"


def _tokens(embedded: Sequence[Embedded], asked_for: int | None) -> int:
    """Length of T5's sequence: that of given embeddings, or the call's."""
    if embedded:
        return int(embedded[0].text.shape[0])
    return MOST_TOKENS if asked_for is None else asked_for


def _unless_given(latents: Any, generator: Any, besides: Besides) -> tuple[Any, Besides]:
    """The generator for the noise, and the options; with given latents no generator, and a note if there was one."""
    if latents is None or generator is None:
        return generator, besides
    return None, replace(besides, notes=(*besides.notes, "generator has no effect, because latents are given."))


def _given(config: FluxConfig, text: Any, pooled: Any, kind: str = "") -> list[Embedded]:
    """Embeddings that a caller gives, one per prompt, checked against the model's widths."""
    if text is None and pooled is None:
        return []
    shapes = [tuple(getattr(x, "shape", ())) for x in (text, pooled)]
    if [len(shape) for shape in shapes] != [3, 2] or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
        raise ConfigError(
            f"expected {kind}prompt_embeds [B, T, C] and {kind}pooled_prompt_embeds [B, P], got {list(shapes[0])} and "
            f"{list(shapes[1])}."
        )
    widths = (config.text_dim, config.pooled_dim)
    if (shapes[0][-1], shapes[1][-1]) != widths:
        raise ConfigError(
            f"{kind}prompt_embeds and {kind}pooled_prompt_embeds: expected {widths[0]} and {widths[1]} features, got "
            f"{shapes[0][-1]} and {shapes[1][-1]}. They come from the text encoders of another model; use this "
            "model's."
        )
    if isinstance(text, np.ndarray) != isinstance(pooled, np.ndarray):
        raise ConfigError(
            f"{kind}prompt_embeds and {kind}pooled_prompt_embeds: expected two arrays or two tensors, got one of "
            "each. Convert one of them."
        )
    for name, numbers in (("prompt_embeds", text), ("pooled_prompt_embeds", pooled)):
        check_finite(numbers, kind + name)
    if isinstance(text, np.ndarray):
        text, pooled = text.astype(np.float32), pooled.astype(np.float32)
    else:
        text, pooled = text.detach().float(), pooled.detach().float()
    return [Embedded(*both) for both in zip(text, pooled, strict=True)]
