"""The peer: diffusers' FLUX.1 on PyTorch CPU, with checkpoint files of the same weights in every layout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.models import embeddings
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from safetensors.torch import save_file

from benchmarks.peers.diffusers import built
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.ops.frequencies import timestep_frequencies
from tests.model.diffusers_model import forward
from tests.model.rung_runs import Case, inputs
from tests.model.weight_files import STEM, Sizes, diffusers_shapes, original_layout, random_state

#: Scheduler settings of the model cards, ``scheduler/scheduler_config.json``.
SCHEDULERS: dict[bool, dict[str, Any]] = {
    False: {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False},
    True: {
        "num_train_timesteps": 1000,
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
    },
}


def sizes_of(config: FluxConfig) -> Sizes:
    """The sizes that names and shapes depend on."""
    return Sizes(
        config.double_blocks,
        config.single_blocks,
        config.heads,
        config.head_dim,
        config.in_channels,
        config.text_dim,
        config.pooled_dim,
        config.guidance,
    )


def scheduler(steps: int, image_tokens: int, guidance: bool) -> FlowMatchEulerDiscreteScheduler:
    """diffusers' scheduler, set as ``FluxPipeline`` sets it."""
    made = FlowMatchEulerDiscreteScheduler(**SCHEDULERS[guidance])
    made.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=calculate_shift(image_tokens))
    return made


class Peer:
    """One model in three dtypes, and its weights on disk.

    ``layouts`` holds a path for each: ``folder`` (one float32 file), ``shards`` (an index and at least three),
    ``original`` (the single file, bfloat16) and ``original32`` (the same in float32).
    """

    def __init__(self, config: FluxConfig, folder: Path, seed: int) -> None:
        self.config, self.sizes = config, sizes_of(config)
        self.state = random_state(diffusers_shapes(self.sizes), seed)
        self._models = {torch.float32: self._built()}
        self._models[torch.float64] = self._built().double()
        self._models[torch.bfloat16] = self._built().bfloat16()
        self._known: dict[Any, np.ndarray] = {}
        self.layouts = self._saved(folder)

    def _built(self) -> FluxTransformer2DModel:
        model = built(self.config)
        model.load_state_dict({name: torch.from_numpy(x) for name, x in self.state.items()}, strict=True)
        return model

    def _saved(self, folder: Path) -> dict[str, Path]:
        paths = {"folder": folder / "folder", "shards": folder / "shards"}
        self._models[torch.float32].save_pretrained(paths["folder"])
        self._models[torch.float32].save_pretrained(paths["shards"], max_shard_size="500KB")
        tensors = {name: torch.from_numpy(x) for name, x in original_layout(self.state, self.sizes).items()}
        for name, dtype in (("original", torch.bfloat16), ("original32", torch.float32)):
            paths[name] = folder / f"{name}.safetensors"
            save_file({key: x.to(dtype) for key, x in tensors.items()}, paths[name])
        assert len(list(paths["shards"].glob("*.safetensors"))) >= 3
        assert (paths["folder"] / STEM).is_file()
        return paths

    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, as diffusers has them."""
        return {name: tuple(x.shape) for name, x in self._models[torch.float32].state_dict().items()}

    def velocity(self, dtype: str, case: Case, sigma: float, guidance: float) -> np.ndarray:
        """Velocity of one forward in a dtype; cached."""
        key = ("velocity", dtype, case, sigma, guidance)
        if key not in self._known:
            given, kind = inputs(self.config, case), getattr(torch, dtype)
            latents, time = torch.from_numpy(given.latents).to(kind), torch.full((case.batch,), sigma, dtype=kind)
            with known_frequencies():
                self._known[key] = forward(self._models[kind], given, case, latents, time, guidance)
        return self._known[key]

    def denoised(self, dtype: str, case: Case, steps: int, guidance: float) -> np.ndarray:
        """Final latents of ``FluxPipeline``'s loop, which keeps latents in the model's dtype; cached."""
        key = ("latents", dtype, case, steps, guidance)
        if key not in self._known:
            with known_frequencies():
                self._known[key] = self._loop(dtype, case, steps, guidance)
        return self._known[key]

    def _loop(self, dtype: str, case: Case, steps: int, guidance: float) -> np.ndarray:
        given, kind = inputs(self.config, case), getattr(torch, dtype)
        made = scheduler(steps, case.image_tokens, self.config.guidance)
        latents = torch.from_numpy(given.latents).to(kind)
        for t in made.timesteps:
            time = t.expand(case.batch).to(kind) / 1000
            velocity = forward(self._models[kind], given, case, latents, time, guidance)
            latents = made.step(torch.from_numpy(velocity).to(kind), t, latents, return_dict=False)[0]
        assert latents.dtype == kind
        return latents.double().numpy()

    def forget(self) -> None:
        """Drops cached results."""
        self._known.clear()


@contextmanager
def known_frequencies() -> Iterator[None]:
    """diffusers with one table of frequencies for its timestep features, whatever processor this is.

    PyTorch's ``exp`` is MKL's on x86, which rounds a few of them differently with each instruction set. One unit in the
    last place changes the features by up to 1e-3, a hundred times what these tests allow.
    """
    exp = torch.exp

    def same_everywhere(x: torch.Tensor) -> torch.Tensor:
        known = torch.from_numpy(timestep_frequencies(x.numel()).copy())
        alike = x.dtype == known.dtype and x.shape == known.shape and torch.allclose(x, known.log())
        return known if alike else exp(x)

    with mock.patch.object(torch, "exp", same_everywhere):
        yield


def _timestep_embedding64(timesteps: torch.Tensor, embedding_dim: int, **_: Any) -> torch.Tensor:
    half = embedding_dim // 2
    # Frequencies stay diffusers' own: they are the float32 values that the models were trained with.
    frequencies = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32) / half).double()
    angles = timesteps[:, None].double() * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


@contextmanager
def without_float32_islands() -> Iterator[None]:
    """diffusers with its float32 parts in float64: timestep features, RoPE tables, and the rotation of Q and K.

    The last two call ``.float()`` in its source, so that method is replaced by ``.double()`` here.
    """
    with (
        mock.patch.object(embeddings, "get_timestep_embedding", _timestep_embedding64),
        mock.patch.object(torch.Tensor, "float", torch.Tensor.double),
    ):
        yield
