"""diffusers and our rungs on one device with the very same weights: on a GPU even the same memory.

Our weights are drawn on the device in bfloat16. diffusers' parameters are rows of them, by the recipes of the loader
read backwards, so a bfloat16 model of 24 GB is there once. The reference is diffusers in float32, with each
projection's weights widened while it runs: it needs no second copy either.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.peers.diffusers import built
from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device.base import Device
from fluxperf.engine.model.weights import parameters
from tests.model.diffusers_model import forward
from tests.model.rung_runs import Case, Moment, Rung, inputs


class Rows(NamedTuple):
    """Rows ``start`` to ``stop`` of a canonical tensor."""

    path: str
    start: int
    stop: int


def sources(config: FluxConfig, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[Rows]]:
    """For every parameter of diffusers the rows of canonical tensors that it is made of, in order.

    Args:
        config: sizes of the model.
        shapes: of diffusers' parameters, by name.

    Raises:
        AssertionError: rows of a parameter, or of a canonical tensor, are used twice or not at all.
    """
    found: dict[str, list[tuple[int, Rows]]] = defaultdict(list)
    canonical = parameters(config)
    for path, pieces in layouts.diffusers(config).items():
        row = 0
        for piece in pieces:
            stop = shapes[piece.name][0] if piece.stop is None else piece.stop
            found[piece.name].append((piece.start, Rows(path, row, row + stop - piece.start)))
            row += stop - piece.start
        assert row == canonical.pop(path)[0], path
    assert not canonical, f"canonical tensors that diffusers has not: {sorted(canonical)}"
    for name, parts in found.items():
        parts.sort()
        ends = [start + rows.stop - rows.start for start, rows in parts]
        assert [start for start, _ in parts] == [0, *ends[:-1]], name
        assert ends[-1] == shapes[name][0], name
    return {name: [rows for _, rows in parts] for name, parts in found.items()}


def on_meta(config: FluxConfig) -> FluxTransformer2DModel:
    """diffusers' model in bfloat16 without memory."""
    with torch.device("meta"):
        return built(config).to(torch.bfloat16)


def assigned(config: FluxConfig, tensor: Callable[[str], torch.Tensor]) -> FluxTransformer2DModel:
    """diffusers' model of canonical tensors: views of them wherever a parameter's rows lie together.

    Args:
        config: sizes of the model.
        tensor: gives the canonical tensor of a path.
    """
    model = on_meta(config)
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    state = {}
    for name, parts in sources(config, shapes).items():
        rows = [tensor(path)[start:stop] for path, start, stop in parts]
        state[name] = rows[0] if len(rows) == 1 else torch.cat(rows)
    model.load_state_dict(state, strict=True, assign=True)
    assert not [name for name, x in (*model.named_parameters(), *model.named_buffers()) if x.is_meta]
    return model.requires_grad_(False)


def as_torch(device: Device, array: Any) -> torch.Tensor:
    """A device's array as PyTorch sees it: the same memory on a GPU, a copy of a host device's.

    bfloat16 goes as 16-bit numbers, because DLPack has no NumPy type for it.
    """
    narrow = str(array.dtype) == "bfloat16"
    if device.kind == "host":
        array = device.door.to_host(array, "weights")
    if narrow:
        return torch.from_dlpack(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(array)


@contextmanager
def widened(model: FluxTransformer2DModel) -> Iterator[None]:
    """A bfloat16 model whose projections and norms compute in float32, one at a time: as ``model.float()`` would."""
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


class SharedWeights(SyntheticWeights):
    """Synthetic weights that are drawn once for each dtype: all rungs of a device have the same arrays."""

    def __init__(self, config: FluxConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        self._arrays: dict[tuple[str, str], Any] = {}

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str) -> Any:
        """The tensor, drawn when it is asked for first."""
        if (path, dtype) not in self._arrays:
            self._arrays[path, dtype] = super().put(device, path, shape, dtype)
        return self._arrays[path, dtype]


class Pair:
    """diffusers and rungs with the same weights on one device. Results are remembered, rungs too.

    Args:
        config: the model.
        device: of the rungs; diffusers runs on PyTorch's device of the same kind.
    """

    def __init__(self, config: FluxConfig, device: Device) -> None:
        self.config, self.device = config, device
        self._source, self._place = SharedWeights(config), "cuda" if device.kind == "cuda" else "cpu"
        shapes = parameters(config)
        self.model = assigned(
            config, cache(lambda path: as_torch(device, self._source.put(device, path, shapes[path], "bfloat16")))
        )
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
        """Velocity of diffusers in a dtype, in float64: bfloat16 as it runs by itself, or float32 without shortcuts."""
        key = (f"diffusers {dtype}", case, moment)
        if key not in self._known:
            kind, given = getattr(torch, dtype), inputs(self.config, case)
            exact = dtype == "float32"
            with exact_float32() if exact else nullcontext(), widened(self.model) if exact else nullcontext():
                latents = torch.from_numpy(given.latents).to(self._place, kind)
                time = torch.full((case.batch,), moment.sigma, dtype=kind, device=self._place)
                self._known[key] = forward(self.model, given, case, latents, time, moment.guidance)
        return self._known[key]
