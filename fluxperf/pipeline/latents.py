"""Files of final latents, so that they can be decoded on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fluxperf.engine.checkpoints.files import TensorFiles
from fluxperf.engine.checkpoints.strangers import told_as_part, told_by_names
from fluxperf.errors import CheckpointError, NumbersError, reason
from fluxperf.files import write_whole

_TENSOR = "latents"


def save_latents(path: Path, latents: npt.NDArray[Any], metadata: Mapping[str, str]) -> None:
    """Writes packed latents [1, I, C] of one picture in float32 as safetensors, with the metadata of the picture.

    Raises:
        RecordError: the file cannot be written.
        NumbersError: a value is not finite; nothing is written.
    """
    check_latents(latents)
    write_whole(path, save({_TENSOR: np.ascontiguousarray(latents, np.float32)}, dict(metadata)))


def check_latents(latents: npt.NDArray[Any]) -> None:
    """Raises if latents are not finite.

    Raises:
        NumbersError: a value is not finite.
    """
    if not np.isfinite(latents).all():
        raise NumbersError(
            "final latents: expected finite values from the transformer, got NaN or infinity. Either the given "
            "embeddings or latents are damaged, or values exceed the range of a dtype: try a float32 rung (--rung "
            "batched)."
        )


def load_latents(path: Path) -> tuple[npt.NDArray[np.float32], int, int, dict[str, str]]:
    """Packed latents [1, I, C] from a file, image tokens along height and width, and the metadata of the picture.

    Raises:
        CheckpointError: the file cannot be read, or was not written by `save_latents`.
    """
    check_holds(path, (_TENSOR,), "latents written by fluxperf generate --latents-out")
    try:
        data = path.read_bytes()
        found = load(data)
        metadata = metadata_of(data)
        width, height = (int(size) // 16 for size in metadata.get("size", "").split(" x "))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected latents written by fluxperf generate --latents-out, with a size, but: {reason(error)}."
        ) from error
    latents = found.get(_TENSOR)
    if latents is None or latents.dtype != np.float32 or latents.ndim != 3 or latents.shape[:2] != (1, width * height):
        shape = "none" if latents is None else f"{latents.dtype} {list(latents.shape)}"
        raise CheckpointError(
            f"{path}: expected float32 latents [1, {width * height}, C] for {metadata['size']} pixels, got {shape}. "
            "Generate them again."
        )
    if not np.isfinite(latents).all():
        raise CheckpointError(f"{path}: latents hold NaN or infinity. Generate them again.")
    return latents, height, width, metadata


def check_holds(path: Path, tensors: Sequence[str], words: str) -> None:
    """Checks by first bytes and header that a file is of the expected kind.

    Args:
        path: of the file, of any size.
        tensors: names of the tensors that it should hold.
        words: description of the expected kind.

    Raises:
        CheckpointError: it is something else; the message says what.
    """
    try:
        held = TensorFiles.single(path).names
    except CheckpointError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise CheckpointError(f"{path}: expected {words}: {said}") from error
    if missing := [name for name in tensors if name not in held]:
        told = told_by_names(held) or told_as_part(held)
        got = f", got {told}" if told else f" ({', '.join(missing)}), found {', '.join(sorted(held)[:4]) or 'none'}"
        raise CheckpointError(f"{path}: expected {words}{got}.")


def metadata_of(data: bytes) -> dict[str, str]:
    """Metadata from the header of a safetensors file; the library's loader of bytes does not return it.

    Raises:
        ValueError: the bytes are not a safetensors file.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}
