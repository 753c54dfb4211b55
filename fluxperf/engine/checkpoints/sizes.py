"""Sizes of a checkpoint's model, from its ``config.json`` or from the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluxperf.engine.checkpoints.files import TensorFiles
from fluxperf.engine.checkpoints.strangers import told_by_channels, told_by_class, told_method
from fluxperf.engine.config import CONFIGS, FluxConfig
from fluxperf.errors import CheckpointError

_CLASS = "FluxTransformer2DModel"

#: ``config.json`` key of each size, as diffusers names it.
_KEYS = {
    "num_layers": "double_blocks",
    "num_single_layers": "single_blocks",
    "num_attention_heads": "heads",
    "attention_head_dim": "head_dim",
    "in_channels": "in_channels",
    "joint_attention_dim": "text_dim",
    "pooled_projection_dim": "pooled_dim",
    "guidance_embeds": "guidance",
}
#: Settings with one value for all FLUX.1 models; ``None`` means the same value as ``in_channels``.
_FIXED = {"patch_size": 1, "out_channels": None}


class _Names(NamedTuple):
    """Tensors of a layout whose shapes give the sizes, and the name prefixes of its parts."""

    norm: str
    image: str
    text: str
    pooled: str
    out: str
    guidance: str
    double: str
    single: str


_ORIGINAL = _Names(
    "double_blocks.0.img_attn.norm.query_norm.scale",
    "img_in.weight",
    "txt_in.weight",
    "vector_in.in_layer.weight",
    "final_layer.linear.weight",
    "guidance_in.",
    "double_blocks",
    "single_blocks",
)
_DIFFUSERS = _Names(
    "transformer_blocks.0.attn.norm_q.weight",
    "x_embedder.weight",
    "context_embedder.weight",
    "time_text_embed.text_embedder.linear_1.weight",
    "proj_out.weight",
    "time_text_embed.guidance_embedder.",
    "transformer_blocks",
    "single_transformer_blocks",
)


def configured(settings: Mapping[str, Any], tensors: int) -> FluxConfig:
    """Sizes from diffusers' ``config.json``.

    Args:
        settings: content of the file.
        tensors: number of tensors. A model with more blocks than tensors is refused, because every block is visited.

    Raises:
        CheckpointError: a key is missing or has a wrong value, or the model is another one; the message names it.
    """
    kind = settings.get("_class_name", _CLASS)
    if kind != _CLASS:
        told = told_by_class(str(kind)) or "another model"
        raise CheckpointError(f"config.json: expected {_CLASS} (FLUX.1), got {kind}: {told}.")
    if quantized := settings.get("quantization_config"):
        raise CheckpointError(f"config.json: expected unquantized weights, {told_method(quantized)}.")
    taken, given = settings.get("in_channels"), settings.get("out_channels")
    if given not in (None, taken) and (told := told_by_channels(taken)):
        raise CheckpointError(
            f"config.json: expected in_channels and out_channels to be equal, got {taken} and {given}: {told}."
        )
    for key, value in _FIXED.items():
        expected = settings.get("in_channels") if value is None else value
        if settings.get(key) not in (None, expected):
            raise CheckpointError(
                f"config.json: {key}: expected {expected}, as in every FLUX.1 model, got {settings[key]!r}. This is "
                "another model; give FLUX.1 schnell or dev."
            )
    missing = [key for key in _KEYS if key not in settings]
    if missing:
        raise CheckpointError(
            f"config.json: expected the keys {', '.join(_KEYS)}; missing: {', '.join(missing)}. Download it again."
        )
    for key, ours in _KEYS.items():
        flag, value = ours == "guidance", settings[key]
        if not (isinstance(value, bool) if flag else _is_size(value)):
            wanted = "true or false" if flag else "a whole number of at least 1"
            raise CheckpointError(f"config.json: {key}: expected {wanted}, got {value!r}. Download it again.")
    for key in ("num_layers", "num_single_layers"):
        if settings[key] > tensors:
            raise CheckpointError(
                f"config.json: {key}: expected at most as many blocks as the weights have tensors ({tensors}), got "
                f"{settings[key]}. Check that config.json and weights belong together."
            )
    axes = settings.get("axes_dims_rope", FluxConfig.axes)
    if not isinstance(axes, list | tuple) or len(axes) != len(FluxConfig.axes) or not all(map(_is_size, axes)):
        raise CheckpointError(
            f"config.json: axes_dims_rope: expected {len(FluxConfig.axes)} integers of at least 1, got {axes!r}. "
            "Download it again."
        )
    return _named({**{ours: settings[key] for key, ours in _KEYS.items()}, "axes": tuple(axes)})


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def inferred(files: TensorFiles, path: Path) -> FluxConfig:
    """Sizes from the tensor shapes of a single file of either layout, which has no ``config.json``.

    Raises:
        CheckpointError: a tensor that determines a size is missing, or the sizes fit no supported model.
    """
    original = any(name.startswith(f"{_ORIGINAL.double}.") for name in files.names)
    names = _ORIGINAL if original else _DIFFUSERS

    def extent(name: str, axis: int) -> int:
        if name not in files.names:
            raise CheckpointError(
                f"{path}: expected a complete FLUX.1 transformer, but tensor {name!r} is missing from the "
                f"{len(files.names)} tensors of the file. The file is incomplete or holds another model; give the "
                "complete file."
            )
        shape = files.shape(name)
        if axis >= len(shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {list(shape)}, expected at least {axis + 1} axes. The file is not "
                "FLUX.1, or is damaged; download it again."
            )
        return shape[axis]

    head_dim = extent(names.norm, 0)
    taken, given = extent(names.image, 1), extent(names.out, 0)
    if taken != given and (told := told_by_channels(taken)):
        raise CheckpointError(
            f"{path}: expected a transformer with as many output as input channels, got {taken} inputs and {given} "
            f"outputs: {told}."
        )
    axes = {config.head_dim: config.axes for config in CONFIGS.values()}
    if head_dim not in axes:
        raise CheckpointError(
            f"{path}: expected a head dimension of {' or '.join(map(str, sorted(axes)))}, got {head_dim}. "
            "Convert the file to a diffusers folder, whose config.json names the RoPE axes."
        )
    return _named(
        {
            "double_blocks": _count(files.names, names.double),
            "single_blocks": _count(files.names, names.single),
            "heads": extent(names.image, 0) // head_dim,
            "head_dim": head_dim,
            "axes": axes[head_dim],
            "in_channels": taken,
            "text_dim": extent(names.text, 1),
            "pooled_dim": extent(names.pooled, 1),
            "guidance": any(name.startswith(names.guidance) for name in files.names),
        }
    )


def _count(names: Iterable[str], prefix: str) -> int:
    return len({match[1] for name in names if (match := re.match(rf"{prefix}\.(\d+)\.", name))})


def _named(sizes: Mapping[str, Any]) -> FluxConfig:
    """The published configuration with these sizes, or one named "custom"."""
    custom = FluxConfig("custom", **sizes)
    for config in CONFIGS.values():
        if config == FluxConfig(config.name, **sizes):
            return config
    return custom
