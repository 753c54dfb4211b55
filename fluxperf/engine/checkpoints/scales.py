"""Scales that a file keeps beside weights of 8 bits, under the names that programs give them."""

from __future__ import annotations

import json
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
_8_BITS = ("F8_E4M3", "F8_E5M2")


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
    packed = next((f"{base}.weight" for base in sorted(weights) if files.dtype(f"{base}.weight") == "U8"), "")
    if packed:
        raise CheckpointError(
            f"{path}: tensor {files.stored(packed)!r} is U8: numbers of 4 bits, two to a byte, as bitsandbytes' nf4 "
            "and fp4 have them. Expected weights in bfloat16, float16 or e4m3."
        )
    found: dict[str, str] = {}
    without = {name for name in names if name == _MARK}
    for name in sorted(names):
        base, suffix = _parted(name)
        if base not in weights:
            continue
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
    return files.scaled({name: one for name, one in scales.items() if (one != 1).any()}, without)


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
