"""A FLUX.1 checkpoint on disk. It is found, recognized and checked as a whole, then read tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.files import TensorFiles, model_name, read_json, weights_in
from fluxperf.engine.checkpoints.folders import check_no_cache, check_pipeline, kind_of, without
from fluxperf.engine.checkpoints.layouts import Piece
from fluxperf.engine.checkpoints.reader import Descriptors, Reader
from fluxperf.engine.checkpoints.scales import scaled
from fluxperf.engine.checkpoints.sizes import configured, inferred
from fluxperf.engine.checkpoints.strangers import told_as_part, told_by_class, told_by_names
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import host_dtype
from fluxperf.engine.model.weights import parameters
from fluxperf.errors import CheckpointError

#: Tensor names of the first block in either layout, with any prefix that a program added; and the first parts of the
#: names that other models in the same file have.
_SIGN = re.compile(r"((?:.*?\.)?)(?:double_blocks|transformer_blocks)\.0\.")
BESIDE = ("text_encoders.", "vae.", "first_stage_model.", "cond_stage_model.", "conditioner.")
#: Index of a shard and number of shards, in its file name.
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
_STEM = "diffusion_pytorch_model"
_SHOWN = 4


class Checkpoint:
    """Weights of one model on disk; a `WeightSource`.

    Args:
        path: one of three: a diffusers model folder (with ``transformer/`` in it, or that folder itself); one
            safetensors file of such a folder (its ``config.json`` is read if it is in the same folder); or the original
            single file.
        variant: word in the file names of a folder, such as ``fp16``, where the folder has files with it.

    Raises:
        CheckpointError: there are no usable weights; one message lists the missing tensors and wrong shapes.
    """

    def __init__(self, path: Path, variant: str | None = None) -> None:
        self.path = path
        #: Reading threads call it with the number of bytes that they have just read.
        self.on_bytes: Callable[[int], None] = lambda nbytes: None
        self._descriptors = Descriptors()
        found, settings = _find(path, variant)
        self._files = scaled(_plainly_named(found, path), path)
        names = self._files.names
        if any(name.startswith("double_blocks.") for name in names):
            self.config = inferred(self._files, path)
            self._recipes = layouts.original(self.config)
        elif any(name.startswith("transformer_blocks.") for name in names):
            self.config = inferred(self._files, path) if settings is None else configured(settings, len(names))
            self._recipes = layouts.diffusers(self.config)
        else:
            raise CheckpointError(_unrecognized(path, names))
        self.description = f"{model_name(path.absolute())} ({self.config.name})"
        self._check()

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tensors in the files."""
        return sum(self._files.stretch(*piece).nbytes for pieces in self._recipes.values() for piece in pieces)

    def scales(self, path: str) -> npt.NDArray[np.float32] | None:
        """See `WeightSource`. Only where all pieces of the projection are in e4m3 and at least one has scales."""
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
        """Copies a canonical tensor from the files to the device, piece by piece, converted to ``dtype``.

        In a region ``device.door.streaming()`` it may return before the values have arrived.

        Raises:
            CheckpointError: a value is not finite in ``dtype``, an element type is unknown, or a file cannot be read.
        """
        stretches = [self._files.stretch(*piece, scaled) for piece in self._recipes[path]]
        target = device.empty(shape, dtype)
        reader = Reader(stretches, host_dtype(dtype), self._descriptors, self.on_bytes)
        device.door.stream(target, reader, "weights")
        return target

    def _check(self) -> None:
        """Checks that every tensor is there, in the right shape, and no other one. Reports all problems at once."""
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
        problems += [
            f"tensor {name!r} does not belong to this model" for name in sorted(self._files.names - used.keys())
        ]
        if not problems:
            self.stored_bytes  # noqa: B018 - raises for a wrong element type or offset
        problems = list(dict.fromkeys(problems))  # a missing tensor may be part of two canonical ones
        if problems:
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            raise CheckpointError(
                f"{self.path}: expected the weights of a {self.config.name} model ({self.config.double_blocks} + "
                f"{self.config.single_blocks} blocks of width {self.config.dim}), but "
                f"{'; '.join(problems[:_SHOWN])}{more}. Check that config.json and weights belong together."
            )


def _shape_problems(
    files: TensorFiles, pieces: list[Piece], shape: tuple[int, ...], whole: Mapping[str, int]
) -> list[str]:
    """A message if the pieces do not stack to a shape.

    Args:
        files: where the pieces are.
        pieces: of one canonical tensor.
        shape: expected of the stacked pieces.
        whole: number of rows of each file tensor that is split into several pieces.
    """
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
    """Files of a checkpoint, and the content of the ``config.json`` next to them, if there is one."""
    if path.is_dir():
        check_no_cache(path)
        check_pipeline(path)
        folder = path / "transformer" if (path / "transformer").is_dir() else path
        single, index = weights_in(folder, _STEM, variant)
        if not index.is_file() and not single.is_file():
            if told := told_by_class(kind := kind_of(folder)):
                raise CheckpointError(f"{folder}: expected a FLUX.1 transformer, got {kind}: {told}.")
            raise CheckpointError(
                f"{folder}: expected a diffusers model, found no {single.name}{without(folder, single)}."
            )
        files = TensorFiles.sharded(index) if index.is_file() else TensorFiles.single(single)
        return files, read_json(folder / "config.json")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected a diffusers folder or a safetensors file, but there is nothing at "
            "this path. Check the path."
        )
    if (shard := _SHARD.search(path.name)) and int(shard[2]) > 1:
        raise CheckpointError(
            f"{path}: expected a complete checkpoint, got one of {int(shard[2])} shards. Give {path.parent}, the "
            "folder with all shards and their index."
        )
    settings = path.parent / "config.json"
    return TensorFiles.single(path), read_json(settings) if settings.is_file() else None


def _plainly_named(files: TensorFiles, path: Path) -> TensorFiles:
    """The transformer's tensors, under the names of the original or of diffusers.

    Some programs put a prefix before the names, add text encoders and a VAE with prefixes of their own, or call the
    learned scale of a norm ``weight`` as PyTorch does. Tensors with unknown names keep them, and are reported later.

    Raises:
        CheckpointError: two tensors of the file would get the same name.
    """
    check_kind(files.names, path)
    prefix = _prefix((name for name in files.names if not name.startswith(BESIDE)), path)
    names: dict[str, str] = {}
    for name in sorted(files.names):
        if prefix and name.startswith(BESIDE):
            continue
        plain = name.removeprefix(prefix)
        if plain.startswith(("double_blocks.", "single_blocks.")) and plain.endswith("_norm.weight"):
            plain = f"{plain.removesuffix('weight')}scale"
        if plain in names:
            raise CheckpointError(
                f"{path}: expected each tensor once, got {names[plain]!r} and {name!r}, which both stand for "
                f"{plain!r}. Two models were written into one file; give a file with one model."
            )
        names[plain] = name
    return files.renamed(names)


def check_kind(names: Iterable[str], path: Path) -> None:
    """Raises if a file has tensors that belong neither to FLUX.1's transformer nor to a part that may share its file.

    Raises:
        CheckpointError: the file holds another kind of model; the message names it.
    """
    if told := told_by_names([name for name in names if not name.startswith(BESIDE)]):
        raise CheckpointError(f"{path}: expected the transformer of FLUX.1, got {told}.")


def _prefix(names: Iterable[str], path: Path) -> str:
    """The prefix that a program put before the names of the transformer's tensors.

    Raises:
        CheckpointError: there are two prefixes, so the file holds two models.
    """
    found = sorted({sign[1] for name in names if (sign := _SIGN.match(name))})
    if len(found) > 1:
        raise CheckpointError(
            f"{path}: expected one transformer, got block tensors with the prefixes "
            f"{' and '.join(map(repr, found[:_SHOWN]))}. The file holds two models; give a file with one."
        )
    return found[0] if found else ""


def _unrecognized(path: Path, names: frozenset[str]) -> str:
    told = told_as_part(names)
    return (
        f"{path}: expected the tensors of FLUX.1 (transformer_blocks.* or double_blocks.*), got "
        f"{', '.join(sorted(names)[:_SHOWN]) or 'none'}. "
        + (f"It is {told}." if told else "Is it the transformer of FLUX.1, and not another part or another model?")
    )
