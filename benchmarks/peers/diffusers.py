"""diffusers' FLUX.1 transformer on the same GPU: eager, compiled as its authors recommend, and compiled in e4m3.

Weights are random values with the distribution of fluxperf's synthetic ones, drawn on the card; only times are
compared. The loop is that of diffusers' pipeline: bfloat16 latents, the scheduler's Euler step in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxTransformer2DModel

from fluxperf.engine.config import FluxConfig, config_named
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.gpu import cupy
from fluxperf.engine.device.stamps import Lapse, Stamp
from fluxperf.engine.model.schedule import sigmas
from fluxperf.workloads import GUIDANCE, Workload

#: Forms of this peer, by their name in `fluxperf run --peer`.
FORMS = {
    "diffusers": "eager",
    "diffusers-compiled": "fused QKV, cuDNN attention, compile_repeated_blocks",
    "diffusers-fp8": "e4m3 products with a scale per row and output channel (torch._scaled_mm), fused QKV, "
    "cuDNN attention, compile_repeated_blocks",
}

#: Largest e4m3 value, and the smallest scale, which prevents a division by 0 for a row of zeros.
_E4M3_MAX, _LEAST_SCALE = 448.0, 1e-12

#: Alignment that `torch._scaled_mm` requires of rows, inputs and outputs.
_ALIGNMENT = 16


class _CurrentStream:
    """PyTorch's current stream in the CUDA stream protocol, which older releases of PyTorch do not have."""

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version of the protocol, and the stream's address."""
        return 0, torch.cuda.current_stream().cuda_stream


class TorchClock:
    """fluxperf's stamps on PyTorch's current stream, so that the peer and the rung use the same clock."""

    def __init__(self) -> None:
        self._device = CudaDevice(torch.cuda.current_device())
        self._stream_of = cupy().cuda.Stream.from_external

    def stamp(self) -> Stamp:
        """A stamp at the current point of PyTorch's stream."""
        before, theirs = self._device.stream, self._stream_of(_CurrentStream())
        theirs.use()
        try:  # not a `with` block: it would restore CuPy's null stream instead of the previous one
            return self._device.stamp()
        finally:
            before.use()

    def elapsed(self, start: Stamp, end: Stamp) -> Lapse:
        """Seconds, cycles and mean clock between two stamps."""
        return self._device.elapsed(start, end)

    def synchronize(self) -> None:
        """Waits for the GPU."""
        torch.cuda.synchronize()


class Peer:
    """One form of diffusers, ready to run a workload.

    Args:
        form: a key of `FORMS`.
        workload: what to run.
    """

    def __init__(self, form: str, workload: Workload) -> None:
        self.name, self.form, self.clock = form, FORMS[form], TorchClock()
        config = config_named(workload.model)
        self._model = _model(config)
        if form == "diffusers-compiled":
            self._model.fuse_qkv_projections()
        if form == "diffusers-fp8":
            quantize_blocks(self._model)
        if form != "diffusers":
            self._model.set_attention_backend("_native_cudnn")
            self._model.compile_repeated_blocks(fullgraph=True)
        tokens = workload.rows * workload.columns
        self._sigmas = sigmas(workload.steps, tokens, shifted=config.guidance)
        self._latents = _normal(workload.batch, tokens, config.in_channels)
        ids = torch.zeros(workload.rows, workload.columns, 3, device="cuda")
        ids[..., 1] = torch.arange(workload.rows, device="cuda")[:, None]
        ids[..., 2] = torch.arange(workload.columns, device="cuda")[None]
        self._inputs = {
            "encoder_hidden_states": _normal(workload.batch, workload.text_tokens, config.text_dim),
            "pooled_projections": _normal(workload.batch, config.pooled_dim),
            "img_ids": ids.reshape(-1, 3),
            "txt_ids": torch.zeros(workload.text_tokens, 3, device="cuda"),
            "guidance": torch.full((workload.batch,), GUIDANCE, device="cuda") if config.guidance else None,
        }
        self._times = torch.tensor(self._sigmas[:-1], device="cuda", dtype=torch.bfloat16)

    @torch.inference_mode()
    def denoise(self, on_step: Callable[[int], Any] | None = None) -> Any:
        """Final latents."""
        latents = self._latents
        for step, (sigma, following) in enumerate(zip(self._sigmas, self._sigmas[1:], strict=False)):
            velocity = self.forward(latents, step)
            latents = (latents.float() + (following - sigma) * velocity).to(latents.dtype)
            if on_step is not None:
                on_step(step)
        return latents

    @torch.inference_mode()
    def forward(self, latents: Any | None = None, step: int = 0) -> Any:
        """Velocity at a step."""
        latents = self._latents if latents is None else latents
        timestep = self._times[step].expand(latents.shape[0])
        return self._model(hidden_states=latents, timestep=timestep, return_dict=False, **self._inputs)[0]


class E4m3Linear(torch.nn.Module):
    """``x W^T + b`` in e4m3, with one scale per row of x, computed at run time, and one per output channel.

    *Numerics*: scales are float32, ``amax / 448``. Accumulation is that of the tensor cores (``use_fast_accum``), the
    result is bfloat16.

    Args:
        linear: weight [N, K] and bias [N]; N and K are multiples of 16.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        weight, scale = quantized(linear.weight.detach())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.reshape(1, -1))
        self.register_buffer("bias", linear.bias.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[.., K] -> [.., N]."""
        rows = x.reshape(-1, x.shape[-1])
        count = rows.shape[0]
        if count % _ALIGNMENT:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, -count % _ALIGNMENT))
        numbers, scale = quantized(rows)
        result = torch._scaled_mm(
            numbers,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return result[:count].reshape(*x.shape[:-1], -1)


def quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of x [M, K] in e4m3, and their scales [M, 1] in float32."""
    wide = x.float()
    scale = (wide.abs().amax(dim=-1, keepdim=True) / _E4M3_MAX).clamp(min=_LEAST_SCALE)
    return (wide / scale).clamp(-_E4M3_MAX, _E4M3_MAX).to(torch.float8_e4m3fn), scale


@torch.no_grad()
def quantize_blocks(model: Any) -> None:
    """Merges the QKV projections of all blocks, and converts every projection of tokens to e4m3, one after the other.

    Modulations (one row), embedders and the final layer stay as they are. Replaced weights are released at once, so the
    memory in use never exceeds that of the bfloat16 model by more than one projection.
    """
    for block in [*model.transformer_blocks, *model.single_transformer_blocks]:
        block.attn.fuse_projections()
        for name in ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"):
            if hasattr(block.attn, name):
                delattr(block.attn, name)
        linears = [name for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)]
        for name in linears:
            if not name.startswith("norm"):
                block.set_submodule(name, E4m3Linear(block.get_submodule(name)))


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def built(config: FluxConfig) -> FluxTransformer2DModel:
    """The model of a configuration with diffusers' initial weights, on PyTorch's default device."""
    return FluxTransformer2DModel(
        num_layers=config.double_blocks,
        num_single_layers=config.single_blocks,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.in_channels,
        joint_attention_dim=config.text_dim,
        pooled_projection_dim=config.pooled_dim,
        guidance_embeds=config.guidance,
        axes_dims_rope=config.axes,
    ).eval()


def _model(config: FluxConfig) -> Any:
    with torch.device("meta"):
        model = built(config).to(torch.bfloat16)
    model = model.to_empty(device="cuda").requires_grad_(False)
    generator = torch.Generator("cuda").manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            spread = (0.3 if ".norm" in name or name.startswith("norm_out") else 1.0) / parameter.shape[1] ** 0.5
            parameter.normal_(0, spread, generator=generator)
        elif "norm_" in name and name.endswith("weight"):
            parameter.normal_(1, 0.1, generator=generator)
        else:
            parameter.normal_(0, 0.02, generator=generator)
    return model
