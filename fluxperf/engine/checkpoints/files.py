"""Safetensors files on disk: a single file, or shards with an index. Reads headers; errors name the file."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from fluxperf.engine.checkpoints.beginnings import not_whole, told_as_weights, told_by_start
from fluxperf.engine.checkpoints.reader import Descriptors, Reader, Stretch
from fluxperf.errors import CheckpointError

#: Element types that a FLUX.1 checkpoint may have, as the header names them.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


class TensorFiles:
    """The tensors of one checkpoint, whichever files hold them.

    Args:
        owners: file of each tensor, by the tensor's name in the files.
    """

    def __init__(self, owners: dict[str, Path]) -> None:
        self._owners = owners
        #: Name in the file, for each tensor that has another name here.
        self._stored: Mapping[str, str] = {}
        #: Factors that a tensor's values must be multiplied by: one for the tensor, or one for each row.
        self._scales: Mapping[str, npt.NDArray[np.float32]] = {}
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
            raise CheckpointError(
                f"{index}: expected a 'weight_map' from tensor names to files, found none. Download the index again."
            )
        owners = {str(tensor): index.parent / str(file) for tensor, file in names.items()}
        outside = sorted({str(file) for file in names.values() if Path(str(file)).name != str(file)})
        if outside:
            raise CheckpointError(
                f"{index}: expected names of files in the same folder, got {outside[0]!r}. fluxperf reads no files "
                "from other folders."
            )
        missing = sorted({path.name for path in owners.values() if not is_file(path)})
        if missing:
            raise CheckpointError(
                f"{index}: expected {len(set(owners.values()))} shards in the same folder, {len(missing)} missing: "
                f"{', '.join(missing)}. Download them again, or remove the index if one file holds everything."
            )
        files = cls(owners)
        for tensor, path in owners.items():
            if tensor not in files._names(path):
                raise CheckpointError(
                    f"{index}: expected tensor {tensor!r} in {path.name}, which does not hold it. Index and shards "
                    "belong to different checkpoints; download them again."
                )
        return files

    @property
    def names(self) -> frozenset[str]:
        """Names of the tensors."""
        return frozenset(self._owners)

    def renamed(self, names: Mapping[str, str]) -> TensorFiles:
        """The same files with new names for some tensors, and without all other tensors.

        Args:
            names: the name in the files of each new name.
        """
        files = TensorFiles({new: self._owners[name] for new, name in names.items()})
        files._open, files._held, files._headers = self._open, self._held, self._headers
        files._stored = {new: self.stored(name) for new, name in names.items()}
        files._scales = {new: self._scales[name] for new, name in names.items() if name in self._scales}
        return files

    def scaled(self, scales: Mapping[str, npt.NDArray[np.float32]], without: Collection[str]) -> TensorFiles:
        """The same files, with scales for some tensors and without some other tensors.

        Args:
            scales: by tensor name, one factor [1] for the whole tensor, or one for each row [N].
            without: names that are left out.
        """
        files = self.renamed({name: name for name in self._owners if name not in without})
        files._scales = dict(scales)
        return files

    def stored(self, name: str) -> str:
        """The name that a tensor has in its file."""
        return self._stored.get(name, name)

    def dtype(self, name: str) -> str:
        """Element type of a tensor, as the header names it."""
        return str(self._handle(self._owners[name]).get_slice(self.stored(name)).get_dtype())

    def scales(self, name: str) -> npt.NDArray[np.float32] | None:
        """Factors of a tensor's values: [1] or [N]; ``None`` if it has none."""
        return self._scales.get(name)

    def numbers(self, name: str) -> npt.NDArray[np.float32]:
        """All values of a small tensor, flattened.

        Raises:
            CheckpointError: see `stretch` and `Reader`.
        """
        stretch = self.stretch(name)
        found = np.empty(stretch.size, np.float32)
        Reader([stretch], found.dtype, Descriptors())(0, found.view(np.uint8))
        return found

    def text(self, name: str) -> str:
        """Bytes of a small tensor, decoded as text."""
        found = self._handle(self._owners[name]).get_tensor(self.stored(name))
        return bytes(found.tobytes()).decode("utf-8", "replace")

    def shape(self, name: str) -> tuple[int, ...]:
        """Extents of a tensor, from the header alone."""
        return tuple(self._handle(self._owners[name]).get_slice(self.stored(name)).get_shape())

    def stretch(self, name: str, start: int = 0, stop: int | None = None, scaled: bool = True) -> Stretch:
        """Where rows ``start`` to ``stop`` of a tensor are stored, with their scales.

        Args:
            name: of the tensor.
            start: first row.
            stop: the row after the last one; all remaining rows if ``None``.
            scaled: whether the result includes the scales.

        Raises:
            CheckpointError: a checkpoint may not have this element type, or the bytes are not in the file.
        """
        scales = self._scales.get(name) if scaled else None
        path, shape, kind, name = self._owners[name], self.shape(name), self.dtype(name), self.stored(name)
        if kind not in DTYPES:
            raise CheckpointError(
                f"{path}: tensor {name!r} has dtype {kind}; expected one of {', '.join(DTYPES)}. Use the original "
                "checkpoint, or one in e4m3."
            )
        begin, row = self._begin(path, name), math.prod(shape[1:])
        rows = (shape[0] if stop is None else stop) - start if shape else 1
        mine = scales if scales is None or len(scales) == 1 else scales[start : start + rows]
        return Stretch(name, path, begin + start * row * DTYPES[kind].itemsize, rows * row, DTYPES[kind], mine)

    def _begin(self, path: Path, name: str) -> int:
        """Offset in the file at which a tensor begins. The safetensors library does not expose it."""
        try:
            if path not in self._headers:
                self._headers[path] = _header(path)
            data, entries = self._headers[path]
            return data + int(entries[name]["data_offsets"][0])
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise CheckpointError(
                f"{path}: expected the offset of tensor {name!r} in the header, but {error!r}. The file is damaged or "
                "still being written; download it again."
            ) from error

    def _names(self, path: Path) -> frozenset[str]:
        if path not in self._held:
            self._held[path] = frozenset(self._handle(path).keys())
        return self._held[path]

    def _handle(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = _opened(path)
        return self._open[path]


def weights_in(folder: Path, stem: str, variant: str | None = None) -> tuple[Path, Path]:
    """The paths of a folder's weights: the single file, and the index of shards. Either may be missing.

    File names of a variant contain its word. Where a folder has no file with that word, the plain files are meant, as
    in diffusers.
    """
    plain = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if variant is None:
        return plain
    named = folder / f"{stem}.{variant}.safetensors", folder / f"{stem}.safetensors.index.{variant}.json"
    return named if any(path.is_file() for path in named) else plain


#: Prefix of a model's folder in the hub's cache, followed by the model's name with "--" for "/"; and the folder of its
#: commits.
CACHED, COMMITS = "models--", "snapshots"


def model_name(path: Path) -> str:
    """Name of a model for records and metadata: its file or folder; model and commit if it is in the hub's cache."""
    for place in (path, *path.parents):
        if place.parent.name == COMMITS and (cached := place.parent.parent.name).startswith(CACHED):
            inside = path.relative_to(place)
            name = f"{cached.removeprefix(CACHED).replace('--', '/')}@{place.name[:12]}"
            return f"{name}/{inside}" if inside.parts else name
    return path.name


def is_file(path: Path) -> bool:
    """Whether a file exists; false for a name that no file can have, such as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Object in a JSON file.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: expected a JSON object, but the file is missing. Download it again.") from error
    except (OSError, ValueError, RecursionError) as error:
        told = told_by_start(path)
        what = f"got {told}" if told else f"but {error}. Download it again"
        raise CheckpointError(f"{path}: expected a JSON object, {what}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}. Download it again.")
    return value


def _header(path: Path) -> tuple[int, Mapping[str, Any]]:
    """Offset at which the data of a safetensors file begins, and its header.

    The file begins with the length of the header (8 bytes), then the header as JSON.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return 8 + length, json.loads(file.read(length))


def _opened(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open  # imported only where files are read

    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: expected a complete safetensors file, {_why(path, error)}.") from error


def _why(path: Path, error: Exception) -> str:
    """Why a file cannot be opened, in words."""
    if path.is_dir():
        return "got a folder. Give a file inside it"
    if told := told_as_weights(path):
        return f"got {told}"
    try:
        problem = not_whole(path)
    except OSError:
        problem = ""
    if problem:
        return f"but it {problem}. Download it again"
    return f"but it cannot be opened ({error}). Check that the file may be read, or download it again"
