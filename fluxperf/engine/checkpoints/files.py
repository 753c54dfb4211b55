"""Safetensors files on disk: one, or shards with an index; what their headers say, complaints with the file's name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from fluxperf.engine.checkpoints.reader import Stretch
from fluxperf.engine.checkpoints.strangers import told_by_start
from fluxperf.errors import CheckpointError

#: Element types that a FLUX.1 checkpoint may have, by their names in the header.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class TensorFiles:
    """The tensors of one checkpoint, whatever files they lie in.

    Args:
        owners: file of each tensor, by the tensor's name in the files.
    """

    def __init__(self, owners: dict[str, Path]) -> None:
        self._owners = owners
        #: Name in the file of each tensor that has another name here.
        self._stored: Mapping[str, str] = {}
        self._open: dict[Path, Any] = {}
        self._held: dict[Path, frozenset[str]] = {}
        self._headers: dict[Path, tuple[int, Mapping[str, Any]]] = {}

    @classmethod
    def single(cls, path: Path) -> TensorFiles:
        """All tensors of one file.

        Raises:
            CheckpointError: it cannot be opened as safetensors.
        """
        handle = _opened(path)
        files = cls(dict.fromkeys(handle.keys(), path))
        files._open[path] = handle
        return files

    @classmethod
    def sharded(cls, index: Path) -> TensorFiles:
        """All tensors that an index names.

        Raises:
            CheckpointError: the index cannot be read, or names a shard that is not there or does not open.
        """
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise CheckpointError(f"{index}: expected a 'weight_map' of tensor names to files, found none.")
        owners = {str(tensor): index.parent / str(file) for tensor, file in names.items()}
        outside = sorted({str(file) for file in names.values() if Path(str(file)).name != str(file)})
        if outside:
            raise CheckpointError(
                f"{index}: expected names of files beside it, got {outside[0]!r}. Nothing is read from other folders."
            )
        missing = sorted({path.name for path in owners.values() if not path.is_file()})
        if missing:
            raise CheckpointError(
                f"{index}: expected {len(set(owners.values()))} shards beside it, {len(missing)} missing: "
                f"{', '.join(missing)}. Download them again, or remove the index if one file holds everything."
            )
        files = cls(owners)
        for tensor, path in owners.items():
            if tensor not in files._names(path):
                raise CheckpointError(
                    f"{index}: expected tensor {tensor!r} in {path.name}, which does not hold it. "
                    "Index and shards are of different checkpoints; download them again."
                )
        return files

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self._owners)

    def renamed(self, names: Mapping[str, str]) -> TensorFiles:
        """The same files with other names for some tensors, and without the rest.

        Args:
            names: the name in the files of each new name.
        """
        files = TensorFiles({new: self._owners[stored] for new, stored in names.items()})
        files._open, files._held, files._headers, files._stored = self._open, self._held, self._headers, dict(names)
        return files

    def stored(self, name: str) -> str:
        """The name that a tensor has in its file."""
        return self._stored.get(name, name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Extents of a tensor, from the header alone."""
        return tuple(self._handle(self._owners[name]).get_slice(self.stored(name)).get_shape())

    def stretch(self, name: str, start: int = 0, stop: int | None = None) -> Stretch:
        """Where rows ``start`` to ``stop`` of a tensor lie (all of it where ``stop`` is ``None``).

        Raises:
            CheckpointError: its element type is none that a checkpoint may have, or its bytes are not in the file.
        """
        path, shape, name = self._owners[name], self.shape(name), self.stored(name)
        kind = self._handle(path).get_slice(name).get_dtype()
        if kind not in DTYPES:
            raise CheckpointError(
                f"{path}: tensor {name!r} has dtype {kind}; expected one of {', '.join(DTYPES)}. "
                "Use the original, unquantized checkpoint: fluxperf quantizes at load."
            )
        begin, row = self._begin(path, name), math.prod(shape[1:])
        rows = (shape[0] if stop is None else stop) - start if shape else 1
        return Stretch(name, path, begin + start * row * DTYPES[kind].itemsize, rows * row, DTYPES[kind])

    def _begin(self, path: Path, name: str) -> int:
        """Byte of a file at which a tensor begins. The library that checked the file does not tell."""
        try:
            if path not in self._headers:
                self._headers[path] = _header(path)
            data, entries = self._headers[path]
            return data + int(entries[name]["data_offsets"][0])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: expected the place of tensor {name!r} in the header, but {error!r}. "
                "The file is damaged or being written; download it again."
            ) from error

    def _names(self, path: Path) -> frozenset[str]:
        if path not in self._held:
            self._held[path] = frozenset(self._handle(path).keys())
        return self._held[path]

    def _handle(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = _opened(path)
        return self._open[path]


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected a JSON object, but {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}.")
    return value


def _header(path: Path) -> tuple[int, Mapping[str, Any]]:
    """Byte at which the data of a safetensors file begin, and its header: after 8 bytes (its length), as JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length, json.loads(file.read(length))


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        told = told_by_start(path)
        raise CheckpointError(
            f"{path}: expected a complete safetensors file, "
            + (f"got {told}." if told else f"but it does not open ({error}). It may be truncated; download it again.")
        ) from error
