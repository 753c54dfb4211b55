"""Scales that a file stores next to 8-bit weights, under the names that different programs use."""

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

#: Suffixes of a projection's name: scales of its weight, scales of its input, and a note on the weight's format.
_FACTORS = (".scale_weight", ".weight_scale")
_INPUTS = (".scale_input", ".input_scale")
_NOTE = ".comfy_quant"
#: A tensor without elements, which marks a file that has scales.
_MARK = "scaled_fp8"
_FORMATS = ("float8_e4m3fn", "float8_e5m2")
#: 8-bit element types, and the bits of their largest finite value.
_8_BITS = {"F8_E4M3": 0x7E, "F8_E5M2": 0x7B}
#: Patterns of the names of a block's tensors. No projection of a block has a single column, unless it is packed.
_BLOCK = re.compile(r"blocks?\.\d")
#: Element types that only the program that wrote them can interpret, and a description of each.
_WHOLE = {
    "I8": "8-bit integers (int8)",
    "I16": "integers, which are packed or scaled",
    "I32": "integers, which are packed or scaled",
    "I64": "integers, which are packed or scaled",
    "F4": "4-bit floats",
    "F6_E2M3": "6-bit floats",
    "F6_E3M2": "6-bit floats",
}
#: The largest value of a block's weight is above this bound if the weight was divided by a scale, and below it if not.
#: After it, the number of values that are checked at a time.
_LARGE, _CHUNK = 64.0, 1 << 20


def scaled(files: TensorFiles, path: Path) -> TensorFiles:
    """Files whose weights carry the scales stored next to them. Tensors that only described the scales are left out.

    Input scales are left out too. They serve products with one fixed scale for all activations; the rung `fp8` computes
    its own. A scale without a weight stays, and is reported like any unknown tensor.

    Raises:
        CheckpointError: a weight has two scales, an impossible scale, or another format; the message names it.
    """
    names = files.names
    if told := told_quantized(names):
        raise CheckpointError(f"{path}: got {told}.")
    weights = {name.removesuffix(".weight") for name in names if name.endswith(".weight")}
    for base in sorted(weights):
        if told := _told_packed(files, f"{base}.weight"):
            raise CheckpointError(
                f"{path}: tensor {files.stored(f'{base}.weight')!r} has {told}. Expected weights in bfloat16, float16 "
                "or e4m3; give those: fluxperf quantizes at load (--rung fp8)."
            )
    found: dict[str, str] = {}
    without = {name for name in names if name == _MARK}
    for name in sorted(names):
        base, suffix = _parted(name)
        if not suffix:
            continue
        if base not in weights:
            raise CheckpointError(
                f"{path}: tensor {files.stored(name)!r} is a scale or a format note for {base + '.weight'!r}, which "
                "is not in the file. The file is incomplete or was assembled wrongly; download it again."
            )
        without.add(name)
        if suffix == _NOTE:
            _check_format(files, name, path)
        elif suffix in _FACTORS:
            if base in found:
                raise CheckpointError(
                    f"{path}: expected one scale for {base + '.weight'!r}, got {found[base]!r} and {name!r}. Give the "
                    "file as the program wrote it that quantized it."
                )
            found[base] = name
    scales = {f"{base}.weight": _factors(files, f"{base}.weight", name, path) for base, name in found.items()}
    if found or _MARK in names:
        _check_unscaled(files, [f"{base}.weight" for base in sorted(weights - found.keys())], path)
    return files.scaled({name: one for name, one in scales.items() if (one != 1).any()}, without)


def _told_packed(files: TensorFiles, name: str) -> str:
    """Describes a weight whose stored form cannot be read; "" if it can."""
    kind, shape = files.dtype(name), files.shape(name)
    if kind == "U8" or (_BLOCK.search(name) and len(shape) == 2 and shape[1] == 1 < shape[0]):
        return (
            f"dtype {kind} and shape {list(shape)}: 4-bit values, two to a byte, as bitsandbytes' nf4 and fp4 store "
            "them"
        )
    return f"dtype {kind}: {_WHOLE[kind]}" if kind in _WHOLE else ""


def _check_unscaled(files: TensorFiles, weights: list[str], path: Path) -> None:
    """Refuses an 8-bit weight without its scale in a file where others have one.

    Unscaled weights are recognized by their small values: weights that were divided by a scale reach far higher.
    """
    for name in weights:
        if not _BLOCK.search(name) or files.dtype(name) not in _8_BITS or (largest := _largest(files, name)) < _LARGE:
            continue
        raise CheckpointError(
            f"{path}: expected a scale for {files.stored(name)!r}, as other tensors of the file have one: its values "
            f"reach {largest:g}. The file is incomplete or was assembled wrongly; download it again."
        )


def _largest(files: TensorFiles, name: str) -> float:
    """Largest finite magnitude of an 8-bit tensor. Magnitudes have the same order as their bits."""
    stretch = files.stretch(name)
    if not stretch.size:
        return 0.0
    bits = np.memmap(stretch.path, np.uint8, "r", stretch.offset, (stretch.size,))
    largest = max(int((bits[at : at + _CHUNK] & 0x7F).max()) for at in range(0, stretch.size, _CHUNK))
    return float(np.array(min(largest, _8_BITS[files.dtype(name)]), np.uint8).view(stretch.dtype))


def _parted(name: str) -> tuple[str, str]:
    """A projection's name and the suffix after it; two empty strings for any other tensor."""
    for suffix in (*_FACTORS, *_INPUTS, _NOTE):
        if name.endswith(suffix):
            return name.removesuffix(suffix), suffix
    return "", ""


def _factors(files: TensorFiles, weight: str, name: str, path: Path) -> npt.NDArray[np.float32]:
    """Scales of a weight: [1] for the tensor, or [N] for its rows."""
    shape, rows = files.shape(name), files.shape(weight)[:1]
    if shape not in ((), (1,), (1, 1), rows, (*rows, 1)):
        raise CheckpointError(
            f"{path}: tensor {files.stored(name)!r} has shape {list(shape)}; expected one scale for all of "
            f"{weight!r}, or one for each of its {rows[0] if rows else 0} rows. Block-wise scales are not "
            "supported: use a file in bfloat16, or in e4m3 with one scale per tensor."
        )
    factors = files.numbers(name)
    if not (factors > 0).all():
        raise CheckpointError(
            f"{path}: tensor {files.stored(name)!r} has a scale of {factors.min():g}; expected scales above 0. The "
            "file is damaged; download it again."
        )
    if files.dtype(weight) not in _8_BITS and (factors != 1).any():
        raise CheckpointError(
            f"{path}: tensor {files.stored(weight)!r} is {files.dtype(weight)} and has a scale of {factors[0]:g}; "
            "expected scales only for 8-bit weights, as it is unknown whether the scale was applied already. Give a "
            "file in bfloat16 without scales, or in e4m3 with them."
        )
    return factors


def _check_format(files: TensorFiles, name: str, path: Path) -> None:
    """Refuses a weight whose format note names an unsupported format."""
    try:
        note: Any = json.loads(files.text(name))
        kind = note.get("format") if isinstance(note, dict) else note
    except (ValueError, RecursionError):
        kind = files.text(name)[:40]
    if kind not in _FORMATS:
        raise CheckpointError(
            f"{path}: tensor {files.stored(name)!r} says that the weight is in {kind!r}; expected one of "
            f"{', '.join(_FORMATS)}. Use a file in one of these formats, or in bfloat16."
        )
