"""Writes all weights of a model folder into one file, as ComfyUI does, with the tensor names of such files.

    python -m benchmarks.flux_folder DIR --model schnell
    python -m benchmarks.flux_file DIR all-in-one.safetensors --emptied
    fluxperf generate "a red fox" --model DIR --transformer all-in-one.safetensors --rung fp8 -o fox.png

Projections of the transformer's blocks and of T5 are stored in e4m3 with one scale each (``scale_weight``); everything
else is unchanged. ``--plain`` leaves everything unchanged. Transformer and VAE have their original names. At full size
the file has 17 GB. ``--emptied`` deletes from the folder the weights that the file holds, to save disk space.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import safe_open

from benchmarks.loading import shapes
from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.layouts import Piece
from fluxperf.engine.config import FluxConfig

_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1}
_E4M3_MAX = 448.0
#: Components of a VAE's tensor names in diffusers and in the original.
_VAE = (
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.(?:down|up)samplers\.0\.", lambda match: ".downsample." if "down" in match[0] else ".upsample."),
    (r"\.(down|up)_blocks\.(\d+)\.resnets\.", r".\1.\2.block."),
    (r"\.(down|up)_blocks\.(\d+)\.", r".\1.\2."),
    (r"\.mid_block\.resnets\.(\d)\.", lambda match: f".mid.block_{int(match[1]) + 1}."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
)


class Entry(NamedTuple):
    """A tensor of the file: name, shape, element type, and the source of its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    numbers: Callable[[], torch.Tensor]


class Tensors(Protocol):
    """Tensors by name; values are produced on request."""

    names: list[str]

    def shape(self, name: str) -> tuple[int, ...]:
        """Its extents."""

    def dtype(self, name: str) -> str:
        """Its element type, as a header names it."""

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows ``start`` to ``stop``."""


class Weights:
    """Tensors of a folder's safetensors files, read on request."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.glob("*.safetensors"))
        self._owners = {name: file for file in map(_opened, self.files) for name in file.keys()}  # noqa: SIM118
        self.names = sorted(self._owners)

    def shape(self, name: str) -> tuple[int, ...]:
        """Its extents."""
        return tuple(self._owners[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Its element type, as the header names it."""
        return str(self._owners[name].get_slice(name).get_dtype())

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows ``start`` to ``stop``."""
        found = self._owners[name].get_slice(name)
        return found[start:stop] if found.get_shape() else self._owners[name].get_tensor(name)


def _opened(path: Path) -> Any:
    return safe_open(path, framework="pt")


def transformer(config: FluxConfig, weights: Tensors) -> Iterator[Entry]:
    """The transformer's tensors under the original's names, stacked or split according to both layouts."""
    wanted, theirs = shapes(config), layouts.diffusers(config)
    sources: dict[str, list[tuple[int, Piece]]] = {name: [] for name in wanted}
    for path, pieces in layouts.original(config).items():
        stacked, at = [_bounded(piece, weights.shape(piece.name)) for piece in theirs[path]], 0
        for piece in pieces:
            name, start, stop = _bounded(piece, wanted[piece.name])
            for row, part in _between(stacked, at, at + stop - start):
                sources[name].append((start + row, part))
            at += stop - start
    for name, parts in sources.items():
        dtype = weights.dtype(parts[0][1].name)
        yield Entry(f"model.diffusion_model.{name}", wanted[name], dtype, partial(_joined, weights, parts))


def _bounded(piece: Piece, shape: tuple[int, ...]) -> Piece:
    return piece._replace(stop=shape[0] if piece.stop is None else piece.stop)


def _between(stacked: list[Piece], first: int, last: int) -> Iterator[tuple[int, Piece]]:
    """Pieces that contain rows ``first`` to ``last`` of a stack, each with its offset among those rows."""
    at = 0
    for name, start, stop in stacked:
        low, high = max(first, at), min(last, at + stop - start)
        if low < high:
            yield low - first, Piece(name, start + low - at, start + high - at)
        at += stop - start


def _joined(weights: Tensors, parts: list[tuple[int, Piece]]) -> torch.Tensor:
    return torch.cat([weights.rows(*part) for _, part in sorted(parts)])


def text_encoder(weights: Tensors, prefix: str) -> Iterator[Entry]:
    """Tensors of CLIP or T5 with ComfyUI's prefix."""
    for name in weights.names:
        yield Entry(prefix + name, weights.shape(name), weights.dtype(name), partial(weights.rows, name))


def vae(weights: Tensors) -> Iterator[Entry]:
    """Tensors of the VAE under the original's names."""
    ups = {int(found[1]) for name in weights.names if (found := re.match(r"decoder\.up_blocks\.(\d+)\.", name))}
    for name in weights.names:
        original = re.sub(r"\.up_blocks\.(\d+)\.", lambda match: f".up_blocks.{max(ups) - int(match[1])}.", name)
        for pattern, new in _VAE:
            original = re.sub(pattern, new, original)
        shape = weights.shape(name)
        shape = (*shape, 1, 1) if ".mid.attn_1." in original and len(shape) == 2 else shape
        yield Entry(f"vae.{original}", shape, weights.dtype(name), partial(weights.rows, name))


def parts(folder: Path) -> dict[str, list[Entry]]:
    """The file's tensors by the subfolder that they come from."""
    return entries(
        Checkpoint(folder).config, folder, Weights(folder / "transformer"), Weights(folder / "text_encoder_2")
    )


def entries(config: FluxConfig, folder: Path, flux: Tensors, t5: Tensors) -> dict[str, list[Entry]]:
    """The file's tensors by subfolder; those of the small parts come from a folder."""
    return {
        "transformer": list(transformer(config, flux)),
        "text_encoder_2": list(text_encoder(t5, "text_encoders.t5xxl.transformer.")),
        "text_encoder": list(text_encoder(Weights(folder / "text_encoder"), "text_encoders.clip_l.transformer.")),
        "vae": list(vae(Weights(folder / "vae"))),
    }


def quantized(entry: Entry) -> bool:
    """Whether such files store a tensor in e4m3: projections of blocks."""
    return len(entry.shape) == 2 and ("_blocks." in entry.name or (".layer." in entry.name and "t5xxl" in entry.name))


def size_of(parts: dict[str, list[Entry]]) -> int:
    """Bytes of a file's values with projections in e4m3, without the scales."""
    several = (entry for some in parts.values() for entry in some)
    return sum(math.prod(entry.shape) * _BYTES[_kind(entry, plain=False)] for entry in several)


def _kind(entry: Entry, plain: bool) -> str:
    return "F8_E4M3" if quantized(entry) and not plain else entry.dtype


def write(path: Path, folder: Path, plain: bool = False, emptied: bool = False) -> None:
    """Writes the file for a folder.

    Args:
        path: of the file.
        folder: in diffusers' layout.
        plain: leave all values unchanged.
        emptied: delete the folder's weights of each part after they are in the file.
    """

    def done(part: str) -> None:
        for weights in (folder / part).glob("*.safetensors*") if emptied else ():
            weights.unlink()

    write_entries(path, parts(folder), plain, done)


def write_entries(
    path: Path, left: dict[str, list[Entry]], plain: bool = False, done: Callable[[str], None] = lambda part: None
) -> None:
    """Writes the file from its tensors by part.

    ``left`` is emptied part by part to free memory; ``done`` is called with each part that is written.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in (entry for some in left.values() for entry in some):
        small, kind = quantized(entry) and not plain, _kind(entry, plain)
        begin, end = end, end + math.prod(entry.shape) * _BYTES[kind]
        header[entry.name] = {"dtype": kind, "shape": entry.shape, "data_offsets": [begin, end]}
        if small:
            scale = f"{entry.name.removesuffix('weight')}scale_weight"
            header[scale] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
            end += 4
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for part in list(left):
            for entry in left.pop(part):
                for numbers in _stored(entry, plain):
                    stream.write(numbers.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
            done(part)


def _stored(entry: Entry, plain: bool) -> Iterator[torch.Tensor]:
    """A tensor's values in the file, followed by their scale if they have one."""
    numbers = entry.numbers()
    if plain or not quantized(entry):
        yield numbers
        return
    numbers = numbers.to("cuda" if torch.cuda.is_available() else "cpu").float()
    scale = numbers.abs().max().reshape(1) / _E4M3_MAX
    yield (numbers / scale).to(torch.float8_e4m3fn)
    yield scale


def main() -> None:
    """Writes a file, and prints how long that took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="in diffusers' layout")
    parser.add_argument("file", type=Path, help="to be written")
    parser.add_argument("--plain", action="store_true", help="leave all values unchanged")
    parser.add_argument("--emptied", action="store_true", help="delete the folder's own weights")
    arguments = parser.parse_args()
    start = time.perf_counter()
    write(arguments.file, arguments.folder, arguments.plain, arguments.emptied)
    size = arguments.file.stat().st_size
    print(f"{arguments.file}: {size / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
