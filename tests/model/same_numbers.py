"""diffusers and fluxperf's rungs on one device with the same weights; on a GPU they even share the memory.

diffusers' parameters are rows of fluxperf's (`benchmarks.same_weights`), so a bfloat16 model of 24 GB is in memory
once. The reference is diffusers in float32, with each projection's weights converted while it runs, so it needs no
second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.same_weights import of_source
from fluxperf.engine.checkpoints.sources import SharedWeights, SyntheticWeights
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device.base import Device
from tests.model.diffusers_model import forward
from tests.model.rung_runs import Case, Moment, Rung, inputs


@contextmanager
def widened(model: FluxTransformer2DModel) -> Iterator[None]:
    """A bfloat16 model whose projections and norms compute in float32, one at a time, like ``model.float()``."""
    narrow: dict[torch.nn.Parameter, torch.Tensor] = {}

    def widen(module: torch.nn.Module, _: Any) -> None:
        for parameter in module.parameters(recurse=False):
            narrow[parameter] = parameter.data
            parameter.data = parameter.data.float()

    def restore(module: torch.nn.Module, *_: Any) -> None:
        for parameter in module.parameters(recurse=False):
            parameter.data = narrow.pop(parameter)

    hooks = []
    for module in model.modules():
        if next(module.parameters(recurse=False), None) is not None:
            hooks += [
                module.register_forward_pre_hook(widen),
                module.register_forward_hook(restore, always_call=True),
            ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    assert not narrow


@contextmanager
def exact_float32() -> Iterator[None]:
    """Products of float32 without TF32, and attention as two products and a softmax."""
    products = torch.backends.cuda.matmul
    before, products.fp32_precision = products.fp32_precision, "ieee"
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        products.fp32_precision = before


class Pair:
    """diffusers and rungs with the same weights on one device. Results and rungs are cached.

    Args:
        config: the model.
        device: of the rungs; diffusers runs on PyTorch's device of the same kind.
    """

    def __init__(self, config: FluxConfig, device: Device) -> None:
        self.config, self.device = config, device
        self._source = SharedWeights(SyntheticWeights(config))
        self._place = "cuda" if device.kind == "cuda" else "cpu"
        self.model = of_source(self._source, device)
        self._rungs: dict[str, Rung] = {}
        self._known: dict[Any, np.ndarray] = {}

    def ours(self, rung: str, case: Case, moment: Moment) -> np.ndarray:
        """Velocity of a rung in float64."""
        key = (rung, case, moment)
        if key not in self._known:
            if rung not in self._rungs:
                self._rungs[rung] = Rung(rung, self._source, device=self.device)
            self._known[key] = self._rungs[rung].velocity(inputs(self.config, case), case, moment)
        return self._known[key]

    def theirs(self, dtype: str, case: Case, moment: Moment) -> np.ndarray:
        """Velocity of diffusers in float64: computed in bfloat16 as usual, or in exact float32."""
        key = (f"diffusers {dtype}", case, moment)
        if key not in self._known:
            kind, given = getattr(torch, dtype), inputs(self.config, case)
            exact = dtype == "float32"
            with exact_float32() if exact else nullcontext(), widened(self.model) if exact else nullcontext():
                latents = torch.from_numpy(given.latents).to(self._place, kind)
                time = torch.full((case.batch,), moment.sigma, dtype=kind, device=self._place)
                self._known[key] = forward(self.model, given, case, latents, time, moment.guidance)
        return self._known[key]
