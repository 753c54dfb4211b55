"""Loading rate of weights from a file to the device, compared with the storage's own rate for that file.

    python -m benchmarks.loading --folder DIR -o reports/records/h100-loading.json

Writes a checkpoint of FLUX.1-schnell's size in the original single-file layout (random bfloat16 values), and reads it
cold (dropped from the page cache) and warm, each time first with plain reads and then through fluxperf. ``--device host
--model tiny-57`` runs on any machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.layouts import original
from fluxperf.engine.checkpoints.sources import place
from fluxperf.engine.config import FluxConfig, config_named
from fluxperf.engine.device import open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.transfers import CHUNK_BYTES, READERS
from fluxperf.engine.model.weights import parameters
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.phases import phase_named, table
from fluxperf.files import write_whole
from fluxperf.harness.measure.environment import commit, machine

RUNG = "tensorcore"
#: Rows of the modulation projections, in multiples of the model's width. Their recipe stacks them whole.
_MODULATIONS = {"img_mod": 6, "txt_mod": 6, "modulation": 3, "adaLN_modulation": 2}
_BLOCK = 1 << 26


def shapes(config: FluxConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the original file."""
    found: dict[str, tuple[int, ...]] = {}
    canonical = parameters(config)
    for path, pieces in original(config).items():
        for piece in pieces:
            rows = canonical[path][0] if piece.stop is None else max(piece.stop, found.get(piece.name, (0,))[0])
            if path.startswith("modulation"):
                rows = next(parts for word, parts in _MODULATIONS.items() if f".{word}." in piece.name) * config.dim
            found[piece.name] = (rows, *canonical[path][1:])
    return found


def write(path: Path, config: FluxConfig) -> None:
    """Writes a checkpoint of random finite values below 2, and synchronizes it to the storage.

    Raises:
        SystemExit: the disk has not enough space.
    """
    header, end = {}, 0
    for name, shape in shapes(config).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    size = 8 + len(text) + end
    if path.is_file() and path.stat().st_size == size:
        print(f"{path.name} exists already")
        return
    free = shutil.disk_usage(path.parent).free
    if free < 1.05 * size:
        raise SystemExit(f"{path.parent}: expected {size / 1e9:.1f} GB of free space, got {free / 1e9:.1f} GB.")
    rng, start = np.random.default_rng(0), time.perf_counter()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, end, _BLOCK):
            words = rng.integers(0, 1 << 64, (min(_BLOCK, end - begin) + 7) // 8, np.uint64)
            words &= np.uint64(0xBFFF_BFFF_BFFF_BFFF)  # the exponent's highest bit
            file.write(words.view(np.uint8)[: end - begin].data)
        file.flush()
        os.fsync(file.fileno())
    print(f"{path.name}: {size / 1e9:.2f} GB written in {time.perf_counter() - start:.1f} s")


def drop(path: Path) -> None:
    """Drops a file from the page cache."""
    number = os.open(path, os.O_RDONLY)
    os.fsync(number)
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(number)


def read(path: Path, chunk: int, readers: int) -> int:
    """Reads a whole file with the same reads as loading, and discards it; returns its bytes."""
    size = path.stat().st_size

    def reader(first: int) -> int:
        memory, total = memoryview(bytearray(chunk)), 0
        number = os.open(path, os.O_RDONLY)
        for offset in range(first * chunk, size, readers * chunk):
            total += os.preadv(number, [memory], offset)
        os.close(number)
        return total

    with ThreadPoolExecutor(readers) as pool:
        return sum(pool.map(reader, range(readers)))


def load(path: Path, device: Device) -> int:
    """Opens a checkpoint and places its weights on a device; returns the bytes of its tensors."""
    checkpoint, phase = Checkpoint(path), phase_named(RUNG)
    weights = place(checkpoint, bind(phase.name, table(RUNG), device, phase.settings), phase.activations, phase.e4m3)
    device.synchronize()
    del weights
    return checkpoint.stored_bytes


def timed(name: str, work: Callable[[], int]) -> dict[str, Any]:
    """Bytes, seconds and rate of a function call; also printed."""
    start = time.perf_counter()
    nbytes = work()
    seconds = time.perf_counter() - start
    print(f"{name:28} {nbytes / 1e9:7.2f} GB in {seconds:7.2f} s {nbytes / seconds / 1e9:7.2f} GB/s", flush=True)
    return {"what": name, "bytes": nbytes, "seconds": seconds, "gb_s": nbytes / seconds / 1e9}


def measure(path: Path, device: Device, repeat: int) -> list[dict[str, Any]]:
    """Rows of plain reads and of loading, cold and warm, in turns."""
    door = device.door
    rows = []
    for _ in range(repeat):
        for cache in ("cold", "warm"):
            for what, work in (
                ("read", lambda: read(path, door.chunk_bytes, door.readers)),
                ("load", lambda: load(path, device)),
            ):
                if cache == "cold":
                    drop(path)
                rows.append(timed(f"{what}, {cache}", work))
    return rows


def main() -> None:
    """Writes the checkpoint, measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="Folder for the checkpoint: 24 GB.")
    parser.add_argument("--model", default="schnell")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeat", type=int, default=2, help="Rounds of cold and warm.")
    parser.add_argument("--chunk-bytes", type=int, default=CHUNK_BYTES)
    parser.add_argument("--readers", type=int, default=READERS)
    parser.add_argument("--keep", action="store_true", help="Keep the checkpoint for another run.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    device = open_device(arguments.device)
    device.door.chunk_bytes, device.door.readers = arguments.chunk_bytes, arguments.readers
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / f"{arguments.model}.safetensors"
    try:
        write(path, config_named(arguments.model))
        rows = measure(path, device, arguments.repeat)
    finally:
        if not arguments.keep:
            path.unlink(missing_ok=True)
    revision, dirty = commit(Path(__file__).resolve().parent.parent)
    best = {row["what"]: max(other["gb_s"] for other in rows if other["what"] == row["what"]) for row in rows}
    result = {
        "commit": revision,
        "dirty": dirty,
        "machine": msgspec.to_builtins(machine(device.describe())),
        "device": device.kind,
        "model": arguments.model,
        "rung": RUNG,
        "chunk_bytes": arguments.chunk_bytes,
        "readers": arguments.readers,
        "of_storage": {cache: best[f"load, {cache}"] / best[f"read, {cache}"] for cache in ("cold", "warm")},
        "runs": rows,
    }
    print(", ".join(f"{cache}: {share:.0%} of the plain rate" for cache, share in result["of_storage"].items()))
    write_whole(arguments.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
