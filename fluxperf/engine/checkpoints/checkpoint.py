"""A FLUX.1 checkpoint on disk: found, recognized, checked whole, then read tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.files import TensorFiles, check_no_cache, model_name, read_json, weights_in
from fluxperf.engine.checkpoints.layouts import Piece
from fluxperf.engine.checkpoints.reader import Descriptors, Reader
from fluxperf.engine.checkpoints.scales import scaled
from fluxperf.engine.checkpoints.strangers import told_by_names
from fluxperf.engine.config import CONFIGS, FluxConfig
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.model.weights import parameters
from fluxperf.errors import CheckpointError

_CLASS = "FluxTransformer2DModel"
#: Channels of models that take a picture beside the noise.
_WITH_PICTURE = {384: "FLUX.1 Fill, which takes a picture", 128: "FLUX.1 Depth or Canny, which takes a picture"}

#: Beginnings that programs add to the names of the transformer's tensors; and of names of other parts in the same file.
_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "transformer.")
BESIDE = ("text_encoders.", "vae.", "first_stage_model.", "cond_stage_model.", "conditioner.")
_STEM = "diffusion_pytorch_model"
#: ``config.json`` key of each size; the names are diffusers'.
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
#: Settings that FLUX.1 does not vary; ``None`` is as many as ``in_channels``.
_FIXED = {"patch_size": 1, "out_channels": None}
_SHOWN = 4


class Checkpoint:
    """Weights of one model on disk; a `WeightSource`.

    Args:
        path: a diffusers model folder (with ``transformer/`` in it, or that folder itself), one safetensors file of it
            beside its ``config.json``, or the original single file.
        variant: word in the names of a folder's files, such as ``fp16``, where there are any with it.

    Raises:
        CheckpointError: nothing usable is there; every missing tensor and wrong shape is in one message.
    """

    def __init__(self, path: Path, variant: str | None = None) -> None:
        self.path = path
        #: Called by reading threads with the bytes that each has read.
        self.on_bytes: Callable[[int], None] = lambda nbytes: None
        self._descriptors = Descriptors()
        found, settings = _find(path, variant)
        self._files = scaled(_plainly_named(found, path), path)
        names = self._files.names
        if any(name.startswith("double_blocks.") for name in names):
            self.config = _inferred(self._files, path)
            self._recipes = layouts.original(self.config)
        elif any(name.startswith("transformer_blocks.") for name in names) and settings is not None:
            self.config = _configured(settings, len(names))
            self._recipes = layouts.diffusers(self.config)
        else:
            raise CheckpointError(_unrecognized(path, names, settings))
        self.description = f"{model_name(path.absolute())} ({self.config.name})"
        self._check()

    @property
    def stored_bytes(self) -> int:
        """Bytes of its tensors in the files."""
        return sum(self._files.stretch(*piece).nbytes for pieces in self._recipes.values() for piece in pieces)

    def scales(self, path: str) -> npt.NDArray[np.float32] | None:
        """See `WeightSource`: where all pieces are in e4m3, and one of them has scales."""
        pieces = self._recipes[path]
        if any(self._files.dtype(piece.name) != "F8_E4M3" for piece in pieces):
            return None
        if all(self._files.scales(piece.name) is None for piece in pieces):
            return None
        return np.concatenate([self._rows(piece) for piece in pieces])

    def _rows(self, piece: Piece) -> npt.NDArray[np.float32]:
        """Scale of each row of a piece."""
        rows = (self._files.shape(piece.name)[0] if piece.stop is None else piece.stop) - piece.start
        scales = self._files.stretch(*piece).scales
        return np.broadcast_to(np.float32(1) if scales is None else scales, (rows,))

    def put(self, device: Device, path: str, shape: tuple[int, ...], dtype: str, scaled: bool = True) -> Any:
        """Streams a canonical tensor from the files, its pieces one after the other, converted to ``dtype``.

        In a region ``device.door.streaming()`` it may return earlier than the numbers are there.

        Raises:
            CheckpointError: a number is not finite in ``dtype``, an element type is unknown, or a file cannot be read.
        """
        stretches = [self._files.stretch(*piece, scaled) for piece in self._recipes[path]]
        target = device.empty(shape, dtype)
        reader = Reader(stretches, host_dtype(dtype), self._descriptors, self.on_bytes)
        device.door.stream(target, reader, "weights")
        return target

    def _check(self) -> None:
        """Every tensor is there, in the right shape, and no other one is; all complaints together."""
        problems: list[str] = []
        used: dict[str, int] = {}
        for piece in (piece for pieces in self._recipes.values() for piece in pieces):
            used[piece.name] = max(used.get(piece.name, 0), piece.stop or 0)
        whole = {name: rows for name, rows in used.items() if rows}
        for path, shape in parameters(self.config).items():
            pieces = self._recipes[path]
            missing = [piece.name for piece in pieces if piece.name not in self._files.names]
            problems += [f"tensor {name!r} is missing" for name in missing]
            if not missing:
                problems += _shape_problems(self._files, pieces, shape, whole)
        problems += [f"tensor {name!r} is none of its tensors" for name in sorted(self._files.names - used.keys())]
        if not problems:
            self.stored_bytes  # noqa: B018 - complains about an element type, or a place in a file
        problems = list(dict.fromkeys(problems))  # two tensors may be made of one that is missing
        if problems:
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise CheckpointError(
                f"{self.path}: expected the weights of a {self.config.name} model "
                f"({self.config.double_blocks} + {self.config.single_blocks} blocks of width {self.config.dim}), but "
                f"{'; '.join(problems[:_SHOWN])}{more}. Check that config and weights belong together."
            )


def _shape_problems(
    files: TensorFiles, pieces: list[Piece], shape: tuple[int, ...], whole: Mapping[str, int]
) -> list[str]:
    """A sentence if the pieces do not stack to a shape; ``whole`` has the rows of tensors that are taken in parts."""
    have = [files.shape(piece.name) for piece in pieces]
    rows = 0
    for piece, extents in zip(pieces, have, strict=True):
        alone = len(pieces) == 1 and piece.stop is None
        rows_wanted = whole.get(piece.name, *extents[:1])
        fits = extents == shape if alone else extents[1:] == shape[1:] and extents[:1] == (rows_wanted,)
        if len(extents) != len(shape) or not fits:
            expected = _expected(piece, pieces, shape, whole)
            return [f"tensor {piece.name!r} has shape {list(extents)}, expected {expected}"]
        rows += (piece.stop or extents[0]) - piece.start
    if rows != shape[0]:
        return [f"{', '.join(piece.name for piece in pieces[:3])} have {rows} rows in all, expected {shape[0]}"]
    return []


def _expected(piece: Piece, pieces: list[Piece], shape: tuple[int, ...], whole: Mapping[str, int]) -> str:
    rows = str(whole.get(piece.name, shape[0] if len(pieces) == 1 else "some rows"))
    return "[" + ", ".join([rows, *(str(extent) for extent in shape[1:])]) + "]"


def _find(path: Path, variant: str | None) -> tuple[TensorFiles, Mapping[str, Any] | None]:
    """Files of a checkpoint, and the ``config.json`` beside them, if any."""
    if path.is_dir():
        check_no_cache(path)
        folder = path / "transformer" if (path / "transformer").is_dir() else path
        single, index = weights_in(folder, _STEM, variant)
        if not index.is_file() and not single.is_file():
            raise CheckpointError(
                f"{folder}: expected {single.name} or {index.name} of a diffusers model, found "
                f"{', '.join(sorted(item.name for item in folder.iterdir())[:6]) or 'an empty folder'}."
            )
        files = TensorFiles.sharded(index) if index.is_file() else TensorFiles.single(single)
        return files, read_json(folder / "config.json")
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a diffusers folder or a safetensors file, found nothing there.")
    settings = path.parent / "config.json"
    return TensorFiles.single(path), read_json(settings) if settings.is_file() else None


def _plainly_named(files: TensorFiles, path: Path) -> TensorFiles:
    """The transformer's tensors by the names of the original or of diffusers, whatever a program made of those.

    Programs put a prefix before them, add text encoders and VAE with prefixes of their own, or call the learned scale
    of a norm ``weight`` as PyTorch does. Tensors that are none of these keep their names, and are complained about.

    Raises:
        CheckpointError: two tensors of the file would have one name.
    """
    signs = ("double_blocks.0.", "transformer_blocks.0.")
    prefixes = ("", *_PREFIXES)
    prefix = next(
        (one for one in prefixes if any(name.startswith(f"{one}{s}") for name in files.names for s in signs)), ""
    )
    names: dict[str, str] = {}
    for name in sorted(files.names):
        if prefix and name.startswith(BESIDE):
            continue
        plain = name.removeprefix(prefix)
        if plain.startswith(("double_blocks.", "single_blocks.")) and plain.endswith("_norm.weight"):
            plain = f"{plain.removesuffix('weight')}scale"
        if plain in names:
            raise CheckpointError(
                f"{path}: expected each tensor once, got {names[plain]!r} and {name!r}, which are both {plain!r}. "
                "Two models were written into one file; give one that holds one."
            )
        names[plain] = name
    return files.renamed(names)


def _configured(settings: Mapping[str, Any], tensors: int) -> FluxConfig:
    """Sizes from diffusers' ``config.json``; of no more blocks than there are tensors, since each is gone through."""
    kind = settings.get("_class_name", _CLASS)
    if kind != _CLASS:
        raise CheckpointError(f"config.json: expected a {_CLASS} (FLUX.1), got a {kind}, which is another model.")
    for key, value in _FIXED.items():
        expected = settings.get("in_channels") if value is None else value
        if settings.get(key) not in (None, expected):
            raise CheckpointError(
                f"config.json: {key}: expected {expected} as every FLUX.1 has it, got {settings[key]!r}: another model."
            )
    missing = [key for key in _KEYS if key not in settings]
    if missing:
        raise CheckpointError(f"config.json: expected {', '.join(_KEYS)}; missing: {', '.join(missing)}.")
    for key, ours in _KEYS.items():
        flag, value = ours == "guidance", settings[key]
        if not (isinstance(value, bool) if flag else _is_size(value)):
            wanted = "true or false" if flag else "a whole number of at least 1"
            raise CheckpointError(f"config.json: {key}: expected {wanted}, got {value!r}. Download it again.")
    for key in ("num_layers", "num_single_layers"):
        if settings[key] > tensors:
            raise CheckpointError(
                f"config.json: {key}: expected no more blocks than the {tensors} tensors of the weights, got "
                f"{settings[key]}. Check that config and weights belong together."
            )
    axes = settings.get("axes_dims_rope", FluxConfig.axes)
    if not isinstance(axes, list | tuple) or len(axes) != len(FluxConfig.axes) or not all(map(_is_size, axes)):
        raise CheckpointError(
            f"config.json: axes_dims_rope: expected {len(FluxConfig.axes)} whole numbers of at least 1, got {axes!r}. "
            "Download it again."
        )
    return _named({**{ours: settings[key] for key, ours in _KEYS.items()}, "axes": tuple(axes)})


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 1


def _inferred(files: TensorFiles, path: Path) -> FluxConfig:
    """Sizes from the shapes of an original single file, which has no config."""

    def extent(name: str, axis: int) -> int:
        if name not in files.names:
            raise CheckpointError(f"{path}: expected an original FLUX.1 file, but tensor {name!r} is missing.")
        shape = files.shape(name)
        if axis >= len(shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {list(shape)}, expected at least {axis + 1} axes. "
                "It is no original FLUX.1 file, or a damaged one; download it again."
            )
        return shape[axis]

    head_dim = extent("double_blocks.0.img_attn.norm.query_norm.scale", 0)
    taken, given = extent("img_in.weight", 1), extent("final_layer.linear.weight", 0)
    if taken != given and taken in _WITH_PICTURE:
        raise CheckpointError(
            f"{path}: expected a transformer that takes as many channels as it gives, got {taken} and {given}: "
            f"{_WITH_PICTURE[taken]}. fluxperf runs FLUX.1 schnell and dev."
        )
    axes = {config.head_dim: config.axes for config in CONFIGS.values()}
    if head_dim not in axes:
        raise CheckpointError(
            f"{path}: expected a head dimension of {' or '.join(map(str, sorted(axes)))}, got {head_dim}. "
            "Convert the file to a diffusers folder, whose config.json names the RoPE axes."
        )
    return _named(
        {
            "double_blocks": _count(files.names, "double_blocks"),
            "single_blocks": _count(files.names, "single_blocks"),
            "heads": extent("img_in.weight", 0) // head_dim,
            "head_dim": head_dim,
            "axes": axes[head_dim],
            "in_channels": extent("img_in.weight", 1),
            "text_dim": extent("txt_in.weight", 1),
            "pooled_dim": extent("vector_in.in_layer.weight", 1),
            "guidance": any(name.startswith("guidance_in.") for name in files.names),
        }
    )


def _count(names: Iterable[str], prefix: str) -> int:
    return len({match[1] for name in names if (match := re.match(rf"{prefix}\.(\d+)\.", name))})


def _named(sizes: Mapping[str, Any]) -> FluxConfig:
    """The known configuration of those sizes, or one named "custom"."""
    custom = FluxConfig("custom", **sizes)
    for config in CONFIGS.values():
        if config == FluxConfig(config.name, **sizes):
            return config
    return custom


def _unrecognized(path: Path, names: frozenset[str], settings: Mapping[str, Any] | None) -> str:
    if any(name.startswith("transformer_blocks.") for name in names) and settings is None:
        return f"{path}: expected config.json beside a diffusers file, found none. Give the model's folder instead."
    told = told_by_names(names)
    return (
        f"{path}: expected the tensors of FLUX.1 (transformer_blocks.* or double_blocks.*), got "
        f"{', '.join(sorted(names)[:_SHOWN]) or 'none'}. "
        + (f"It is {told}." if told else "Is it the transformer, not the VAE or a text encoder?")
    )
