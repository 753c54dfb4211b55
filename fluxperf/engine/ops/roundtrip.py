"""The baseline: ops that go through NumPy on the host, following the published implementation that is 140x slower.

That implementation (PyGPUkit's FLUX.1, ``diffusion/models/flux`` at v0.2.20) ran linears, activations, RMS norms and
softmax on the GPU, and everything with a broadcast in NumPy. It copied some results back to the device at once, and
kept others on the host for the next op. That decides the number of copies, so each docstring here lists its copies:
"down" is device to host, "up" is host to device. A value that rests on the host is a plain NumPy array; it is copied to
the device when an op needs it there or when it leaves its block.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fluxperf.engine.ops.catalog import implements
from fluxperf.engine.ops.frequencies import timestep_frequencies
from fluxperf.errors import ArgumentError


def _down(device: Any, value: Any, label: str) -> Any:
    """A host array: copied from the device, unless the value rests on the host already."""
    return value if isinstance(value, np.ndarray) else device.door.to_host(value, label)


def _per_token(vector: Any) -> Any:
    """[B, D] as [B, 1, D]."""
    return vector[:, None, :]


@implements("layer_norm", "roundtrip")
def layer_norm(device: Any, x: Any, eps: float = 1e-6) -> Any:
    """Down, normalized, up. A value that rests on the host goes up first: the published op took only device arrays."""
    if isinstance(x, np.ndarray):
        x = device.door.to_device(x, "layer_norm.x")
    numbers = device.door.to_host(x, "layer_norm.x")
    mean = numbers.mean(-1, keepdims=True)
    normed = (numbers - mean) / np.sqrt(numbers.var(-1, keepdims=True) + eps)
    return device.door.to_device(normed.astype(numbers.dtype), "layer_norm.result")


@implements("modulate", "roundtrip")
def modulate(device: Any, x: Any, scale: Any, shift: Any) -> Any:
    """Down: x, and scale and shift unless they rest on the host. Up: the result."""
    numbers = _down(device, x, "modulate.x")
    scale, shift = _down(device, scale, "modulate.scale"), _down(device, shift, "modulate.shift")
    return device.door.to_device(numbers * (1 + _per_token(scale)) + _per_token(shift), "modulate.result")


@implements("gated_residual", "roundtrip", rests_on_host=True)
def gated_residual(device: Any, x: Any, gate: Any, y: Any) -> Any:
    """Down: x (unless it rests on the host), gate and y. The result rests on the host."""
    numbers = _down(device, x, "gated_residual.x")
    gate, y = _down(device, gate, "gated_residual.gate"), _down(device, y, "gated_residual.y")
    return numbers + _per_token(gate) * y


@implements("add_broadcast", "roundtrip", rests_on_host=True)
def add_broadcast(device: Any, x: Any, y: Any) -> Any:
    """Down: both, unless they rest on the host. The sum rests on the host."""
    return _down(device, x, "add_broadcast.x") + _down(device, y, "add_broadcast.y")


@implements("scale", "roundtrip")
def scale(device: Any, x: Any, factor: float) -> Any:
    """Down, multiplied, up. The copy of attention scores is the largest of all."""
    numbers = device.door.to_host(x, "scale.x")
    return device.door.to_device(numbers * numbers.dtype.type(factor), "scale.result")


@implements("apply_rope", "roundtrip")
def apply_rope(device: Any, x: Any, cos: Any, sin: Any) -> Any:
    """Down: x, cos and sin. Up: the result."""
    numbers = device.door.to_host(x, "apply_rope.x")
    cos, sin = device.door.to_host(cos, "apply_rope.cos"), device.door.to_host(sin, "apply_rope.sin")
    rotated = np.empty_like(numbers)
    rotated[..., 0::2] = -numbers[..., 1::2]
    rotated[..., 1::2] = numbers[..., 0::2]
    return device.door.to_device(numbers * cos[:, None] + rotated * sin[:, None], "apply_rope.result")


@implements("concat_tokens", "roundtrip")
def concat_tokens(device: Any, first: Any, second: Any) -> Any:
    """Down: both. Up: the result."""
    return device.door.to_device(kept_on_host(device, first, second), "concat_tokens.result")


@implements("concat_tokens", "kept_on_host", rests_on_host=True)
def kept_on_host(device: Any, first: Any, second: Any) -> Any:
    """Down: both. The result rests on the host (single blocks keep it as their residual)."""
    parts = [device.door.to_host(first, "concat_tokens.first"), device.door.to_host(second, "concat_tokens.second")]
    return np.concatenate(parts, axis=1)


@implements("split_tokens", "roundtrip")
def split_tokens(device: Any, x: Any, tokens: int) -> tuple[Any, Any]:
    """Down: x, unless it rests on the host. Up: both parts."""
    numbers = _down(device, x, "split_tokens.x")
    first = device.door.to_device(np.ascontiguousarray(numbers[:, :tokens]), "split_tokens.first")
    return first, device.door.to_device(np.ascontiguousarray(numbers[:, tokens:]), "split_tokens.second")


@implements("split_modulation", "roundtrip", rests_on_host=True)
def split_modulation(device: Any, modulation: Any, parts: int) -> tuple[Any, ...]:
    """Down: all, once.

    The first shift and scale rest on the host, where `modulate` uses them. Up: the other vectors.
    """
    vectors = np.split(device.door.to_host(modulation, "split_modulation.x"), parts, axis=-1)
    upper = (device.door.to_device(np.ascontiguousarray(vector), "split_modulation.vector") for vector in vectors[2:])
    return (vectors[0], vectors[1], *upper)


@implements("join_features", "roundtrip")
def join_features(device: Any, first: Any, second: Any) -> Any:
    """Down: both. Up: the result."""
    parts = [device.door.to_host(first, "join_features.first"), device.door.to_host(second, "join_features.second")]
    return device.door.to_device(np.concatenate(parts, axis=-1), "join_features.result")


@implements("linear_gelu", "host_reshape", composed=True)
def linear_gelu(ops: Any, x: Any, weight: Any, bias: Any, out: Any = None) -> Any:
    """The input goes down and up only to be reshaped to a matrix of tokens; the product runs on the device."""
    if out is not None:
        raise ArgumentError("linear_gelu 'host_reshape': expected no out=, got one. Bind joined_halves to 'composed'.")
    door = ops.device.door
    x = door.to_device(door.to_host(x, "linear_gelu.x"), "linear_gelu.x")
    return ops.gelu(ops.linear(x, weight, bias))


@implements("linear", "host_reshape", composed=True, rests_on_host=True)
def linear(ops: Any, x: Any, weight: Any, bias: Any = None) -> Any:
    """The product runs on the device. Down: its result, only to be reshaped; it rests on the host."""
    return ops.device.door.to_host(ops.linear(x, weight, bias), "linear.result")


@implements("timestep_embedding", "roundtrip")
def timestep_embedding(device: Any, values: tuple[float, ...], features: int = 256) -> Any:
    """Computed on the host in float32. Up: the features."""
    angles = np.asarray(values, np.float32)[:, None] * np.float32(1000) * timestep_frequencies(features // 2)
    return device.door.to_device(np.concatenate([np.cos(angles), np.sin(angles)], axis=-1), "timestep_embedding.result")


@implements("rope_table", "roundtrip")
def rope_table(
    device: Any, text_tokens: int, rows: int, columns: int, axes: tuple[int, ...], theta: float
) -> tuple[Any, Any]:
    """Computed on the host in float64, rounded to float32. Up: cos and sin."""
    image = np.indices((1, rows, columns)).reshape(3, -1).T
    places = np.concatenate([np.zeros((text_tokens, 3), np.int64), image])
    angles = np.concatenate(
        [places[:, axis, None] / theta ** (np.arange(0, width, 2) / width) for axis, width in enumerate(axes)], axis=-1
    ).repeat(2, axis=-1)
    cos = device.door.to_device(np.cos(angles).astype(np.float32), "rope_table.cos")
    return cos, device.door.to_device(np.sin(angles).astype(np.float32), "rope_table.sin")


@implements("euler_step", "roundtrip")
def euler_step(device: Any, latents: Any, velocity: Any, delta: float) -> Any:
    """Down: latents and velocity. Up: the result."""
    numbers = device.door.to_host(latents, "euler_step.latents")
    change = device.door.to_host(velocity, "euler_step.velocity")
    return device.door.to_device(numbers + numbers.dtype.type(delta) * change, "euler_step.result")
