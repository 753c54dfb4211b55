"""Steps that a caller takes part in: a negative prompt beside the prompt, and callbacks that see and change latents.

Both are diffusers'. Such steps are launched op by op: a graph has no place for what happens between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from fluxperf.engine.executors import Forwards, Request, Sampler
from fluxperf.errors import ConfigError, UnknownNameError
from fluxperf.pipeline import noise
from fluxperf.pipeline.asked import texts
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.embeddings import Embedded

#: Arguments of a call that ask for such steps.
GUIDED = (
    "negative_prompt", "negative_prompt_2", "true_cfg_scale", "negative_prompt_embeds", "negative_pooled_prompt_embeds",
    "callback_on_step_end", "callback_on_step_end_tensor_inputs",
)  # fmt: skip

#: Tensors that a callback may ask for.
CALLBACK_TENSORS = ("latents", "prompt_embeds")


@dataclass(frozen=True)
class Besides:
    """A call's options besides its prompts.

    ``scale`` and the negative prompts ``prompts`` (CLIP's), ``prompts_2`` (T5's) or ``embedded`` ones: the velocity is
    ``negative + scale (positive - negative)``, where there are any. ``callback(step, timestep, tensors)`` is called
    behind each step with tensors of ``names``, and returns those that it changes; ``stopped`` is asked behind it.
    """

    scale: float = 1.0
    prompts: tuple[str, ...] = ()
    prompts_2: tuple[str, ...] = ()
    embedded: Sequence[Embedded] = ()
    callback: Callable[[int, Any, dict[str, Any]], Any] | None = None
    names: tuple[str, ...] = ("latents",)
    stopped: Callable[[], bool] = lambda: False
    notes: tuple[str, ...] = ()

    @property
    def negative(self) -> bool:
        """Whether there is a second velocity in every step."""
        return bool(self.prompts or self.embedded)

    @property
    def plain(self) -> bool:
        """Whether nothing is asked for."""
        return not self.negative and self.callback is None

    def metadata(self, number: int) -> dict[str, str]:
        """Its part of a file's metadata, for a prompt of that number."""
        texts: dict[str, str] = {}
        if self.negative:
            texts["true_cfg_scale"] = f"{self.scale:g}"
            texts["negative_prompt"] = self.prompts[number] if self.prompts else "given as embeddings"
            if self.prompts and self.prompts_2[number] != self.prompts[number]:
                texts["negative_prompt_2"] = self.prompts_2[number]
        if self.callback is not None:
            texts["callback"] = "callback_on_step_end, which may have changed latents"
        return texts


def against(
    prompt: str | Sequence[str] | None,
    prompt_2: str | Sequence[str] | None,
    embedded: Sequence[Embedded],
    scale: Any,
    count: int,
) -> Besides:
    """Negative prompts with their scale, and notes on options without effect.

    Args:
        prompt: negative, one or ``count``.
        prompt_2: what T5 reads instead.
        embedded: embeddings instead of both.
        scale: 1 and less is without negative prompts, as in diffusers.
        count: of prompts.

    Raises:
        ConfigError: one of them cannot be.
    """
    scale = 1.0 if scale is None else scale
    if isinstance(scale, bool) or not isinstance(scale, Real) or not math.isfinite(float(scale)):
        raise ConfigError(f"true_cfg_scale {scale!r}: expected a finite number; 1 is without negative prompts.")
    if prompt is not None and embedded:
        raise ConfigError("expected either negative_prompt or negative_prompt_embeds, got both. Leave one out.")
    if prompt_2 is not None and prompt is None:
        raise ConfigError("negative_prompt_2: expected a negative_prompt beside it, got none.")
    if len(embedded) not in (0, count):
        raise ConfigError(f"negative_prompt_embeds: expected {count} as there are prompts, got {len(embedded)}.")
    first = () if prompt is None else texts("negative_prompt", prompt, count)
    second = first if prompt_2 is None else texts("negative_prompt_2", prompt_2, count)
    asks = bool(first or embedded)
    if float(scale) > 1 and asks:
        return Besides(float(scale), first, second, embedded)
    if asks:
        return Besides(notes=("negative prompts have no effect: true_cfg_scale is not above 1.",))
    idle = ("true_cfg_scale has no effect: there is no negative prompt.",)
    return Besides(notes=idle if float(scale) > 1 else ())


def checked_names(names: Any) -> tuple[str, ...]:
    """Names of tensors that a callback asks for.

    Raises:
        ConfigError: they are no list.
        UnknownNameError: there is no such tensor.
    """
    if names is None:
        return ("latents",)
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"callback_on_step_end_tensor_inputs: expected a list of names, got {names!r}.")
    for name in names:
        if name not in CALLBACK_TENSORS:
            raise UnknownNameError("callback_on_step_end_tensor_inputs", str(name), CALLBACK_TENSORS)
    return tuple(names)


class GuidedSteps:
    """Euler steps of a generation, each with what `Besides` asks for.

    Args:
        sampler: of the rung.
        bridge: PyTorch on the device.
        latents: noise [B, I, C] in float32.
        request: the rest.
        against: the same with negative prompts, if there are any.
        besides: what is asked for.
    """

    graph = None

    def __init__(
        self,
        sampler: Sampler,
        bridge: Bridge,
        latents: Any,
        request: Request,
        against: Request | None,
        besides: Besides,
    ) -> None:
        self._sampler, self._bridge, self._request, self._besides = sampler, bridge, request, besides
        self._noise = self._latents = latents
        self._forwards = sampler.begin(request)
        self._against: Forwards | None = None if against is None else sampler.begin(against)
        self._taken, self._stopped = 0, False

    def take(self) -> None:
        """Gives the next step to the device, and calls the callback behind it; nothing once it has stopped."""
        if self._stopped:
            return
        step, levels = self._taken, self._request.sigmas
        velocity = self._forwards.velocity(self._latents, step)
        if self._against is not None:
            velocity = self._combined(velocity, self._against.velocity(self._latents, step))
        self._latents = self._sampler.step(self._latents, velocity, levels[step + 1] - levels[step])
        self._taken += 1
        if self._besides.callback is not None:
            self._call(self._besides.callback, step)

    def latents(self) -> Any:
        """Latents [B, I, C] float32 behind the steps so far."""
        return self._latents

    def rewind(self) -> None:
        """Begins again from the noise."""
        self._latents, self._taken, self._stopped = self._noise, 0, False

    def _combined(self, positive: Any, negative: Any) -> Any:
        """``negative + scale (positive - negative)`` in float32, in the dtype of the velocities."""
        bridge, scale = self._bridge, self._besides.scale
        with bridge.work():
            one, other = bridge.tensor(positive), bridge.tensor(negative)
            mixed = other.float() + scale * (one.float() - other.float())
            bridge.tensor(positive).copy_(mixed)
        return positive

    def _call(self, callback: Callable[[int, Any, dict[str, Any]], Any], step: int) -> None:
        bridge, request, names = self._bridge, self._request, self._besides.names
        have = {"latents": self._latents, "prompt_embeds": request.text}
        with bridge.work():
            tensors = {name: bridge.tensor(have[name]) for name in names}
            at = bridge.torch.tensor(1000 * request.sigmas[step], device=bridge.place)
            changed = callback(step, at, tensors)
        changed = {} if changed is None else changed
        if not isinstance(changed, dict):
            raise ConfigError(f"callback_on_step_end: expected a dict of tensors, got {type(changed).__name__}.")
        device, shape = bridge.device, tuple(self._latents.shape)
        if "latents" in changed:
            self._latents = noise.given(changed["latents"], shape, device, bridge)
        if "prompt_embeds" in changed:
            text = noise.given(changed["prompt_embeds"], tuple(request.text.shape), device, bridge, "prompt_embeds")
            self._request = request._replace(text=text)
            self._forwards = self._sampler.begin(self._request)
        self._stopped = self._besides.stopped()
