"""T5 in 8 bits: converts the projections of a loaded encoder to e4m3, with one scale per output channel."""

from __future__ import annotations

from typing import Any

from fluxperf.pipeline.libraries import library

#: Largest e4m3 value, and the smallest scale.
_E4M3_MAX, _LEAST_SCALE = 448.0, 1e-12


def quantize(model: Any) -> None:
    """Converts the projections of T5's blocks to e4m3, with one scale per output channel; the embedding is not changed.

    The products still use the activations' dtype: weights are converted when they are used, one module at a time. This
    halves the memory that T5 takes, and saves no time.
    """
    torch = library("torch")
    linear = _e4m3_linear(torch)
    for name in [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]:
        model.set_submodule(name, linear(model.get_submodule(name)))


def _e4m3_linear(torch: Any) -> Any:
    class E4m3Linear(torch.nn.Module):  # type: ignore[misc]
        """``x W^T`` with W [N, K] in e4m3 and a scale [N, 1] in float32.

        T5 chooses a dtype by the ``weight`` of its last projection. This class has no such attribute, so T5 skips that
        choice.
        """

        weight = None

        def __init__(self, replaced: Any) -> None:
            super().__init__()
            wide = replaced.weight.detach().float()
            scale = (wide.abs().amax(dim=1, keepdim=True) / _E4M3_MAX).clamp(min=_LEAST_SCALE)
            self.register_buffer("stored", (wide / scale).to(torch.float8_e4m3fn))
            self.register_buffer("scale", scale)
            self.register_buffer("bias", None if replaced.bias is None else replaced.bias.detach())

        def forward(self, x: Any) -> Any:
            """[.., K] -> [.., N]."""
            weight = (self.stored.float() * self.scale).to(x.dtype)
            return torch.nn.functional.linear(x, weight, self.bias)

    return E4m3Linear
