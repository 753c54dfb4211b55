"""diffusers' transformer on fluxperf's weights and inputs, eager, in bfloat16 and with its products in e4m3.

There are two ways to run it. ``pipeline`` follows diffusers' own pipeline: timesteps (and guidance) are rounded to
bfloat16 after the multiplication by 1000, and latents are kept in bfloat16 between steps. ``exact`` follows fluxperf:
both stay in float32, so that only the error of the transformer remains. It is the harder one to compare with.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import diffusers
import torch

from benchmarks.peers.diffusers import E4m3Linear, quantize_blocks
from benchmarks.quality.runs import Inputs, Numbers, Run
from benchmarks.same_weights import of_source
from fluxperf.engine.checkpoints.sources import WeightSource
from fluxperf.engine.device.base import Device


class Form(NamedTuple):
    """One form of the peer: products in e4m3 or bfloat16, timesteps and latents in float32 or bfloat16."""

    e4m3: bool
    exact: bool
    what: str


_PRODUCTS = "products of all blocks in e4m3, a scale per row and output channel (torch._scaled_mm)"
FORMS = {
    "diffusers": Form(False, False, "bfloat16"),
    "diffusers-exact": Form(False, True, "bfloat16; timesteps and latents in float32"),
    "diffusers-fp8": Form(True, False, _PRODUCTS),
    "diffusers-fp8-exact": Form(True, True, f"{_PRODUCTS}; timesteps and latents in float32"),
}


def obstacle(e4m3: bool, device: Device) -> str | None:
    """Why PyTorch cannot run forms in e4m3, or others, on this device; ``None`` if it can."""
    if device.kind == "cuda" and not torch.cuda.is_available():
        return "this is a PyTorch build for the CPU"
    if not e4m3:
        return None
    place = _place(device)
    try:
        E4m3Linear(torch.nn.Linear(16, 16, device=place, dtype=torch.bfloat16))(
            torch.zeros(1, 16, device=place, dtype=torch.bfloat16)
        )
    except (RuntimeError, NotImplementedError) as error:
        return f"torch._scaled_mm does not run here: {str(error).splitlines()[0]}"
    return None


@contextmanager
def opened(e4m3: bool, source: WeightSource, device: Device) -> Iterator[Any]:
    """diffusers' model on a source's weights; its own memory is released at the end of the region.

    Args:
        e4m3: with products of blocks in e4m3.
        source: the weights; it keeps them.
        device: where they are.
    """
    diffusers.logging.set_verbosity_error()
    model = of_source(source, device)
    device.synchronize()
    if e4m3:
        quantize_blocks(model)
    try:
        yield model
    finally:
        model.to("meta")  # references that remain elsewhere hold no memory
        gc.collect()
        if device.kind == "cuda":
            torch.cuda.empty_cache()


class Theirs(Run):
    """A form of the peer.

    Args:
        model: diffusers'.
        exact: run it in fluxperf's loop.
        device: where its weights are.
    """

    def __init__(self, model: Any, exact: bool, device: Device) -> None:
        self._model, self._exact, self._place = model, exact, _place(device)

    @torch.inference_mode()
    def velocities(self, inputs: Inputs, latents: Sequence[Numbers]) -> list[Numbers]:
        """See `Run`."""
        given = self._given(inputs)
        return [_down(self._forward(given, inputs, self._up(x), step)) for step, x in enumerate(latents)]

    @torch.inference_mode()
    def denoised(self, inputs: Inputs) -> list[Numbers]:
        """See `Run`.

        The Euler step is that of diffusers' scheduler, in float32; the result is rounded unless ``exact``.
        """
        given, found = self._given(inputs), []
        kind = torch.float32 if self._exact else torch.bfloat16
        latents = self._up(inputs.latents).to(kind)
        for step, (sigma, following) in enumerate(zip(inputs.sigmas, inputs.sigmas[1:], strict=False)):
            velocity = self._forward(given, inputs, latents, step).to(kind)
            latents = (latents.float() + (following - sigma) * velocity).to(kind)
            found.append(_down(latents))
        return found

    def _given(self, inputs: Inputs) -> dict[str, Any]:
        """Inputs that are the same in every forward."""
        ids = torch.zeros(inputs.rows, inputs.columns, 3, device=self._place)
        ids[..., 1] += torch.arange(inputs.rows, device=self._place)[:, None]
        ids[..., 2] += torch.arange(inputs.columns, device=self._place)[None]
        batch, tokens = inputs.text.shape[:2]
        return {
            "encoder_hidden_states": self._up(inputs.text).bfloat16(),
            "pooled_projections": self._up(inputs.pooled).bfloat16(),
            "img_ids": ids.reshape(-1, 3),
            "txt_ids": torch.zeros(tokens, 3, device=self._place),
            "guidance": None if inputs.guidance is None else torch.full((batch,), inputs.guidance, device=self._place),
        }

    def _forward(self, given: dict[str, Any], inputs: Inputs, latents: torch.Tensor, step: int) -> torch.Tensor:
        batch, level = latents.shape[0], 1000 * inputs.sigmas[step]
        time = torch.full((batch,), level, device=self._place, dtype=torch.bfloat16) / 1000
        scales = [torch.full((batch,), level, device=self._place)]
        if inputs.guidance is not None:
            scales.append(torch.full((batch,), 1000 * inputs.guidance, device=self._place))

        def unrounded(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (*scales, args[-1]) if self._exact else args

        hook = self._model.time_text_embed.register_forward_pre_hook(unrounded)
        try:
            return self._model(hidden_states=latents.bfloat16(), timestep=time, return_dict=False, **given)[0]
        finally:
            hook.remove()

    def _up(self, numbers: Numbers) -> torch.Tensor:
        return torch.tensor(numbers, device=self._place, dtype=torch.float32)


def _down(x: torch.Tensor) -> Numbers:
    numbers: Numbers = x.double().cpu().numpy()
    return numbers


def _place(device: Device) -> str:
    return "cuda" if device.kind == "cuda" else "cpu"
