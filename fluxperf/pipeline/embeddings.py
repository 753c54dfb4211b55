"""Prompt embeddings: of one prompt, in a file, and in a cache."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fluxperf.engine.config import FluxConfig
from fluxperf.errors import ArgumentError, CheckpointError, NumbersError, reason
from fluxperf.files import write_whole
from fluxperf.pipeline.latents import check_holds, metadata_of

#: Names of the tensors in a file, as diffusers names the arguments.
TEXT, POOLED = "prompt_embeds", "pooled_prompt_embeds"


class Embedded(NamedTuple):
    """One prompt as the transformer's input: text [T, C] and pooled text [P], float32.

    Both are tensors on the device, or NumPy arrays if they come from a file.
    """

    text: Any
    pooled: Any


class Key(NamedTuple):
    """Identity of embeddings: the texts for CLIP and for T5, and the length of T5's sequence."""

    prompt: str
    prompt_2: str
    tokens: int


class Words(NamedTuple):
    """One prompt: the text for CLIP and the text for T5; "" if unknown."""

    prompt: str
    prompt_2: str


class Stored(NamedTuple):
    """Content of an embeddings file: the rows, their prompts, and a description of the encoders ("" if it has none)."""

    rows: list[Embedded]
    prompts: list[Words]
    encoders: str


class PromptCache:
    """Embeddings of the most recently used prompts.

    Args:
        most: number of prompts to keep; 0 keeps none. One prompt of 512 tokens takes 8.4 MB.

    Raises:
        ArgumentError: the number is negative.
    """

    def __init__(self, most: int) -> None:
        if most < 0:
            raise ArgumentError(f"cache_prompts: expected at least 0 prompts, got {most}.")
        self._most = most
        self._kept: OrderedDict[Key, Embedded] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Embedded | None:
        """Embeddings of a prompt; ``None`` if they are not in the cache."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Key, value: Embedded) -> None:
        """Stores embeddings, and drops those that were not used for the longest time."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)


def save_embeddings(path: Path, prompts: Sequence[Words], embedded: Sequence[Embedded], encoders: str) -> None:
    """Writes embeddings of prompts of one length as safetensors: text [N, T, C], pooled text [N, P], float32.

    Args:
        path: of the file.
        prompts: the prompts, which are stored in the file's metadata, as JSON.
        embedded: as NumPy arrays.
        encoders: description of the text encoders, which is stored in the metadata.

    Raises:
        RecordError: the file cannot be written.
        NumbersError: a value is not finite; nothing is written.
    """
    tensors = {TEXT: np.stack([one.text for one in embedded]), POOLED: np.stack([one.pooled for one in embedded])}
    for name, numbers in tensors.items():
        if not np.isfinite(numbers).all():
            raise NumbersError(
                f"{name}: expected finite values from the text encoders, got NaN or infinity. Nothing is written. Try "
                "--rung batched, which encodes in float32."
            )
    metadata = {
        "format": "fluxperf prompt embeddings",
        "prompts": json.dumps([one.prompt for one in prompts], ensure_ascii=False),
        "prompts_2": json.dumps([one.prompt_2 for one in prompts], ensure_ascii=False),
        "text_encoders": encoders,
    }
    write_whole(path, save(tensors, metadata))


def load_embeddings(path: Path, config: FluxConfig) -> Stored:
    """Embeddings from a safetensors file, with the prompts and encoders that its metadata names ("" where it has none).

    Tensors ``prompt_embeds`` [N, T, C] and ``pooled_prompt_embeds`` [N, P], of any float dtype; N may be left out.

    Args:
        path: of the file.
        config: of the model that will use them.

    Raises:
        CheckpointError: the file cannot be read or lacks a tensor, or has wrong shapes or values that are not finite.
    """
    check_holds(path, (TEXT, POOLED), f"{TEXT} and {POOLED}, as written by fluxperf generate --embeddings-out")
    try:
        data = path.read_bytes()
        found = load(data)
        metadata = metadata_of(data)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected a safetensors file with {TEXT} and {POOLED}, but it cannot be opened "
            f"({reason(error)}). Write one with fluxperf generate --embeddings-out FILE."
        ) from error
    text, pooled = (_float32(found[name], path, name) for name in (TEXT, POOLED))
    text, pooled = text.reshape(-1, *text.shape[-2:]), pooled.reshape(-1, pooled.shape[-1])
    wanted = (config.text_dim, config.pooled_dim)
    if (text.shape[-1], pooled.shape[-1]) != wanted or len(text) != len(pooled) or not text.size:
        raise CheckpointError(
            f"{path}: expected {TEXT} [N, T, {wanted[0]}] and {POOLED} [N, {wanted[1]}] for this model, got "
            f"{list(text.shape)} and {list(pooled.shape)}. They come from the text encoders of another model; write "
            "them again with this one's."
        )
    rows = [Embedded(*both) for both in zip(text, pooled, strict=True)]
    firsts, seconds = (_prompts(metadata.get(name, ""), len(rows)) for name in ("prompts", "prompts_2"))
    return Stored(rows, [Words(*both) for both in zip(firsts, seconds, strict=True)], metadata.get("text_encoders", ""))


def _prompts(text: str, count: int) -> list[str]:
    """Prompts in metadata: a JSON list, or one per line in files of earlier versions; "" where they cannot be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text.split("\n")
    if not isinstance(found, list) or len(found) != count or not all(isinstance(one, str) for one in found):
        return [""] * count
    return found


def _float32(numbers: npt.NDArray[Any], path: Path, name: str) -> npt.NDArray[np.float32]:
    floating = np.issubdtype(numbers.dtype, np.floating) or numbers.dtype == ml_dtypes.bfloat16
    if not floating or numbers.ndim not in ((2, 3) if name == TEXT else (1, 2)):
        raise CheckpointError(
            f"{path}: {name}: expected floating-point values, got {numbers.dtype} {numbers.shape}. "
            "Write it again, in bfloat16 or float32."
        )
    numbers = numbers.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise CheckpointError(f"{path}: {name} holds NaN or infinity. Write it again, in bfloat16 or float32.")
    return numbers
