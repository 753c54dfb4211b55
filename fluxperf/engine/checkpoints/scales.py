"""Scales that a file keeps beside weights of 8 bits, under the names that programs give them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fluxperf.engine.checkpoints.files import TensorFiles
from fluxperf.engine.checkpoints.strangers import told_quantized
from fluxperf.errors import CheckpointError

#: What is added to a projection's name: for factors of its weight, those of its input, and a note on its format.
_FACTORS = (".scale_weight", ".weight_scale")
_INPUTS = (".scale_input", ".input_scale")
_NOTE = ".comfy_quant"
#: A tensor without numbers that says that there are scales.
_MARK = "scaled_fp8"
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
#: Element types of 8 bits, and the bits of their largest finite numbers.
_8_BITS = {"F8_E4M3": 0x7E, "F8_E5M2": 0x7B}
#: Names of a block's tensors. None of its projections has one column, unless its numbers are packed.
_BLOCK = re.compile(r"blocks?\.\d")
#: Element types of weights whose meaning is that of a program, and what they are.
_WHOLE = {
    "I8": "whole numbers of 8 bits (int8)",
    "I16": "whole numbers, which are packed or scaled",
    "I32": "whole numbers, which are packed or scaled",
    "I64": "whole numbers, which are packed or scaled",
    "F4": "numbers of 4 bits",
    "F6_E2M3": "numbers of 6 bits",
    "F6_E3M2": "numbers of 6 bits",
}
#: A weight of a block that was divided by a scale has numbers above this, and one that was not has none. Behind it, how
#: many numbers are looked at together.
_LARGE, _CHUNK = 64.0, 1 << 20


def scaled(files: TensorFiles, path: Path) -> TensorFiles:
    """Files whose weights are multiplied by the scales beside them, and which have no other tensors for that.

    Scales of inputs are left out: they are for products whose activations have one scale that was found beforehand, and
    the rung `fp8` finds its own. A scale without a weight stays, and is complained about as any strange tensor.

    Raises:
        CheckpointError: a weight has two scales, one that cannot be, or another format; names it.
    """
    names = files.names
    if told := told_quantized(names):
        raise CheckpointError(f"{path}: got {told}.")
    weights = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    for base in sorted(weights):
        if told := _told_packed(files, f"{base}.weight"):
            raise CheckpointError(
                f"{path}: tensor {files.stored(f'{base}.weight')!r} has {told}. Expected weights in bfloat16, float16 "
                "or e4m3; fluxperf quantizes at load (--rung fp8)."
            )
    found: dict[str, str] = {}
    without = {name for name in names if name == _MARK}
    for name in sorted(names):
        base, suffix = _parted(name)
        if not suffix:
            continue
        if base not in weights:
            raise CheckpointError(
                f"{path}: tensor {files.stored(name)!r} is a scale or a note for {base + '.weight'!r}, which is not "
                "there. The file is a part of one, or was put together wrongly; download it again."
            )
        without.add(name)
        if suffix == _NOTE:
            _check_format(files, name, path)
        elif suffix in _FACTORS:
            if base in found:
                raise CheckpointError(
                    f"{path}: expected one scale for {base + '.weight'!r}, got {found[base]!r} and {name!r}. "
                    "Give the file as the program wrote it that made it."
                )
            found[base] = name
    scales = {f"{base}.weight": _factors(files, f"{base}.weight", name, path) for base, name in found.items()}
    if found or _MARK in names:
        _check_unscaled(files, [f"{base}.weight" for base in sorted(weights - found.keys())], path)
    return files.scaled({name: one for name, one in scales.items() if (one != 1).any()}, without)


def _told_packed(files: TensorFiles, name: str) -> str:
    """Whatever a weight has in place of numbers that can be read, in words; "" for nothing of that kind."""
    kind, shape = files.dtype(name), files.shape(name)
    if kind == "U8" or (_BLOCK.search(name) and len(shape) == 2 and shape[1] == 1 < shape[0]):
        return (
            f"dtype {kind} and shape {list(shape)}: numbers of 4 bits, two to a byte, as bitsandbytes' nf4 and fp4 "
            "have them"
        )
    return f"dtype {kind}: {_WHOLE[kind]}" if kind in _WHOLE else ""


def _check_unscaled(files: TensorFiles, weights: list[str], path: Path) -> None:
    """Refuses a weight of 8 bits that has lost its scale: numbers as they are end far below those that were scaled."""
    for name in weights:
        if not _BLOCK.search(name) or files.dtype(name) not in _8_BITS or (largest := _largest(files, name)) < _LARGE:
            continue
        raise CheckpointError(
            f"{path}: expected a scale beside {files.stored(name)!r}, as other tensors of the file have one: its "
            f"numbers reach {largest:g}. The file is a part of one, or was put together wrongly; download it again."
        )


def _largest(files: TensorFiles, name: str) -> float:
    """The largest finite number of 8 bits of a tensor, without its sign: the order of bits is that of numbers."""
    stretch = files.stretch(name)
    if not stretch.size:
        return 0.0
    bits = np.memmap(stretch.path, np.uint8, "r", stretch.offset, (stretch.size,))
    largest = max(int((bits[at : at + _CHUNK] & 0x7F).max()) for at in range(0, stretch.size, _CHUNK))
    return float(np.array(min(largest, _8_BITS[files.dtype(name)]), np.uint8).view(stretch.dtype))


def _parted(name: str) -> tuple[str, str]:
    """A projection's name and what is added to it; two empty texts for any other tensor."""
    for suffix in (*_FACTORS, *_INPUTS, _NOTE):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return "", ""


def _factors(files: TensorFiles, weight: str, name: str, path: Path) -> npt.NDArray[np.float32]:
    """Scales of a weight: [1], or [N] for its rows."""
    shape, rows = files.shape(name), files.shape(weight)[:1]
    if shape not in ((), (1,), (1, 1), rows, (*rows, 1)):
        raise CheckpointError(
            f"{path}: tensor {files.stored(name)!r} has shape {list(shape)}; expected one scale for all of {weight!r}, "
            f"or one for each of its {rows[0] if rows else 0} rows. Scales of blocks are not read: use a file in "
            "bfloat16, or in e4m3 with a scale per tensor."
        )
    factors = files.numbers(name)
    if not (factors > 0).all():
        raise CheckpointError(
            f"{path}: tensor {files.stored(name)!r} has a scale of {factors.min():g}; expected numbers above 0. "
            "The file is damaged; download it again."
        )
    if files.dtype(weight) not in _8_BITS and (factors != 1).any():
        raise CheckpointError(
            f"{path}: tensor {files.stored(weight)!r} is {files.dtype(weight)} and has a scale of {factors[0]:g} "
            "beside it; expected scales for weights of 8 bits alone. It is not known whether it was multiplied already."
        )
    return factors


def _check_format(files: TensorFiles, name: str, path: Path) -> None:
    """Refuses weights whose note names another format than those that are read."""
    try:
        note: Any = json.loads(files.text(name))
        kind = note.get("format") if isinstance(note, dict) else note
    except (ValueError, RecursionError):
        kind = files.text(name)[:40]
    if kind not in _FORMATS:
        raise CheckpointError(
            f"{path}: tensor {files.stored(name)!r} says that the weight is in {kind!r}; expected one of "
            f"{', '.join(_FORMATS)}. Use a file in one of those, or in bfloat16."
        )
