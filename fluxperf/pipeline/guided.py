"""Steps with negative prompts, or with callbacks that read and change latents.

Both follow diffusers. Such steps are launched op by op, because a graph cannot run other code between its ops.
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

#: Arguments of a call that need such steps.
GUIDED = (
    "negative_prompt", "negative_prompt_2", "true_cfg_scale", "negative_prompt_embeds", "negative_pooled_prompt_embeds",
    "callback_on_step_end", "callback_on_step_end_tensor_inputs",
)  # fmt: skip

#: Tensors that a callback may request.
CALLBACK_TENSORS = ("latents", "prompt_embeds")


@dataclass(frozen=True)
class Besides:
    """A call's options besides its prompts.

    With negative prompts ``prompts`` (CLIP's), ``prompts_2`` (T5's) or ``embedded``, the velocity is ``negative + scale
    (positive - negative)``. ``callback(step, timestep, tensors)`` is called after each step with the tensors in
    ``names``, and returns those that it changes. Then ``stopped`` is called: if it returns true, no further step is
    taken.
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
        """Whether every step has a second forward, for the negative prompts."""
        return bool(self.prompts or self.embedded)

    @property
    def plain(self) -> bool:
        """Whether no option is set."""
        return not self.negative and self.callback is None

    def metadata(self, number: int) -> dict[str, str]:
        """Metadata of these options, for the prompt with that index."""
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
        prompt: one negative prompt, or ``count``.
        prompt_2: T5's negative prompts, if they differ.
        embedded: embeddings that replace both.
        scale: ``true_cfg_scale``. Up to 1 negative prompts have no effect, as in diffusers.
        count: number of prompts.

    Raises:
        ConfigError: an option has an unsupported value.
    """
    scale = 1.0 if scale is None else scale
    if isinstance(scale, bool) or not isinstance(scale, Real) or not math.isfinite(float(scale)):
        raise ConfigError(f"true_cfg_scale {scale!r}: expected a finite number; 1 turns negative prompts off.")
    if prompt is not None and embedded:
        raise ConfigError("expected either negative_prompt or negative_prompt_embeds, got both. Leave one out.")
    if prompt_2 is not None and prompt is None:
        raise ConfigError("negative_prompt_2: expected a negative_prompt too, got none. Give both, or leave it out.")
    if len(embedded) not in (0, count):
        raise ConfigError(
            f"negative_prompt_embeds: expected {count}, one per prompt, got {len(embedded)}. Repeat or remove rows."
        )
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
    """Names of the tensors that a callback requests, checked.

    Raises:
        ConfigError: the argument is not a list of names.
        UnknownNameError: there is no such tensor.
    """
    if names is None:
        return ("latents",)
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(
            f"callback_on_step_end_tensor_inputs: expected a list of names, got {names!r}. Put the name into a list."
        )
    for name in names:
        if name not in CALLBACK_TENSORS:
            raise UnknownNameError("callback_on_step_end_tensor_inputs", str(name), CALLBACK_TENSORS)
    return tuple(names)


class GuidedSteps:
    """Euler steps of a generation with the options in `Besides`.

    Args:
        sampler: of the rung.
        bridge: PyTorch on the device.
        latents: noise [B, I, C] in float32.
        request: inputs for the prompts.
        against: inputs for the negative prompts; ``None`` without any.
        besides: the options.
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
        """Submits the next step, then calls the callback. Does nothing once the callback has stopped the generation."""
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
        """Latents [B, I, C] float32 after the steps so far."""
        return self._latents

    def rewind(self) -> None:
        """Restarts from the noise."""
        self._latents, self._taken, self._stopped = self._noise, 0, False

    def _combined(self, positive: Any, negative: Any) -> Any:
        """``negative + scale (positive - negative)``, computed in float32 and stored in the velocities' dtype."""
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
            raise ConfigError(
                f"callback_on_step_end: expected a dict of tensors, got {type(changed).__name__}. Return {{}} to "
                "change nothing."
            )
        device, shape = bridge.device, tuple(self._latents.shape)
        if "latents" in changed:
            self._latents = noise.given(changed["latents"], shape, device, bridge)
        if "prompt_embeds" in changed:
            text = noise.given(changed["prompt_embeds"], tuple(request.text.shape), device, bridge, "prompt_embeds")
            self._request = request._replace(text=text)
            self._forwards = self._sampler.begin(self._request)
        self._stopped = self._besides.stopped()
