"""Noise: the initial latents of a generation, given or drawn from seeds."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.errors import ArgumentError, UnknownNameError
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.packing import packed

#: Where PyTorch draws a seed's noise: on the device, or on the CPU, which costs a copy to the device.
NoiseFrom = Literal["device", "cpu"]

#: Seeds are limited to what PyTorch, NumPy and all readers of metadata support.
_SEEDS = 1 << 32


def seeds_of(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """The seed of every picture: a given list, a number and its successors, or random numbers.

    Raises:
        ArgumentError: the number of seeds is not that of pictures, or one is not a whole number from 0 to 2^63 - 1.
    """
    if seed is None:
        seed = secrets.randbelow(_SEEDS)
    given: Any = seed
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        several = [_seed(given) + index for index in range(count)]
    else:
        several = list(given)
    if len(several) != count:
        raise ArgumentError(
            f"seed: expected one number, or one per picture ({count}), got {len(several)}. Give a single number to "
            "number the pictures from it."
        )
    return [_seed(one) for one in several]


def _seed(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 1 << 63:
        raise ArgumentError(f"seed: expected whole numbers from 0 to 2^63 - 1, got {value!r}.")
    return int(value)


def seed_of(generator: Any) -> int | None:
    """Seed of a PyTorch generator; ``None`` if it has drawn before. Its state then depends on more than the seed."""
    fresh = type(generator)(device=generator.device).manual_seed(generator.initial_seed())
    same = bool((generator.get_state() == fresh.get_state()).all())
    return int(generator.initial_seed()) if same else None


def check_place(where: str) -> None:
    """Raises for an unknown place to draw noise.

    Raises:
        UnknownNameError: no such place.
    """
    if where not in get_args(NoiseFrom):
        raise UnknownNameError("noise_from", where, get_args(NoiseFrom))


def generators_of(seeds: Sequence[int], where: NoiseFrom, bridge: Bridge) -> list[Any]:
    """A PyTorch generator for each seed.

    Raises:
        UnknownNameError: no such place.
    """
    check_place(where)
    place = bridge.place if where == "device" else "cpu"
    return [bridge.torch.Generator(place).manual_seed(seed) for seed in seeds]


def drawn(generators: Any, shape: tuple[int, int, int, int], dtype: str, bridge: Bridge) -> Any:
    """Packed noise [B, (h/2) (w/2), 4 C] in float32 on the device, as diffusers' ``randn_tensor`` draws it.

    Args:
        generators: one PyTorch generator for the whole batch, or a list with one per picture.
        shape: B, C, h, w.
        dtype: in which the values are drawn: that of the text encoders, as in diffusers.
        bridge: PyTorch on the device.

    Raises:
        ArgumentError: the number of generators is not that of pictures.
    """
    torch = bridge.torch
    if isinstance(generators, list | tuple) and len(generators) != shape[0]:
        raise ArgumentError(
            f"generator: expected one, or one per picture ({shape[0]}), got {len(generators)}. Give a list of that "
            "length."
        )
    several = list(generators) if isinstance(generators, list | tuple) else [generators]
    extents = shape if len(several) == 1 else (1, *shape[1:])
    with bridge.work():
        parts = [torch.randn(extents, generator=one, device=one.device, dtype=getattr(torch, dtype)) for one in several]
        tokens = packed(torch.cat(parts)).float()
        if tokens.device.type == bridge.place.type:
            return bridge.array(tokens)
        return bridge.device.door.to_device(tokens.numpy(), "noise")


def drawn_without_torch(seeds: Sequence[int], tokens: int, channels: int, device: Device) -> Any:
    """Packed noise [B, I, C] in float32 on the device, from NumPy's PCG64. PyTorch's differs for the same seed."""
    numbers = [np.random.default_rng(seed).standard_normal((tokens, channels), np.float32) for seed in seeds]
    return device.door.to_device(np.stack(numbers), "noise")


def check_finite(numbers: Any, name: str) -> None:
    """Raises if a caller's array on the host has values that are not finite.

    Raises:
        ArgumentError: the array holds NaN or infinity.
    """
    on_host = isinstance(numbers, np.ndarray) or getattr(getattr(numbers, "device", None), "type", "") == "cpu"
    if on_host and not bool((abs(numbers) < float("inf")).all()):
        raise ArgumentError(
            f"{name}: expected finite values, got NaN or infinity among them. Check where they come from."
        )


def given(latents: Any, shape: tuple[int, ...], device: Device, bridge: Bridge | None, name: str = "latents") -> Any:
    """Packed latents that the caller gives, in float32 on the device.

    Args:
        latents: a PyTorch tensor or a NumPy array [B, I, C], packed as in diffusers.
        shape: required shape.
        device: where they go.
        bridge: PyTorch on the device, if it is loaded.
        name: of the argument.

    Raises:
        ArgumentError: the shape is wrong, it is not an array, or values on the host are not finite.
    """
    extents = tuple(getattr(latents, "shape", ()))
    if extents != shape:
        raise ArgumentError(
            f"{name}: expected packed {name} {list(shape)}, got {list(extents)}. Check height, width and packing."
        )
    check_finite(latents, name)
    if isinstance(latents, np.ndarray):
        return device.door.to_device(np.ascontiguousarray(latents, np.float32), name)
    if bridge is None or not isinstance(latents, bridge.torch.Tensor):
        raise ArgumentError(f"{name}: expected a NumPy array or a tensor, got {type(latents).__name__}.")
    with bridge.work():
        wide = latents.detach().float()
        if wide.device.type == bridge.place.type:
            return bridge.array(wide)
        return device.door.to_device(np.ascontiguousarray(wide.cpu().numpy()), name)
