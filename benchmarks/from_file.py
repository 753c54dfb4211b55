"""From one e4m3 file to a picture at full size: the file is written with random values, and read cold and warm.

    python -m benchmarks.from_file --folder DIR --rung fp8 --rung captured -o e4m3-file.json

The file holds transformer, T5, CLIP and VAE as ComfyUI writes them, with projections of blocks in e4m3 with one scale
each. It has 17 GB; nothing else of that size is written. For each rung it measures: seconds and rate until the pipeline
is ready, with the file dropped from the page cache and with it cached, and the first picture of both; the difference
between weights on the device and in the file; then warm pictures as records, in JSON Lines next to the JSON file.
``--model tiny --device host`` runs on any machine.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from safetensors import safe_open

from benchmarks import flux_file
from benchmarks.end_to_end import SEED, circumstances, psnr, seconds_of, told
from benchmarks.flux_folder import FULL, TINY, Drawn, Sizes, drawn, write
from benchmarks.loading import drop
from fluxperf import Pipeline
from fluxperf.engine.config import FluxConfig, config_named
from fluxperf.files import write_whole
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import append_record
from fluxperf.pipeline.measuring import PROMPT, measure_pictures
from fluxperf.workloads import Workload, workload_named

_LIBRARIES = ("torch", "transformers", "safetensors")
#: A tensor of the file, and where its weight is in the model: attribute names and block indices.
_CHECKED = (
    ("double_blocks.0.img_attn.proj", ("double", 0, "img", "out")),
    ("double_blocks.{last_double}.txt_mlp.2", ("double", -1, "txt", "mlp_down")),
    ("single_blocks.{last_single}.linear2", ("single", -1, "out")),
)
_PREFIX = "model.diffusion_model."


class Numbers:
    """Values of a part, drawn from the names of its tensors on every request.

    Args:
        part: shapes and distributions.
    """

    def __init__(self, part: Drawn) -> None:
        self._part, self.names = part, sorted(part.shapes)
        self._place = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def shape(self, name: str) -> tuple[int, ...]:
        """Its extents."""
        return self._part.shapes[name]

    def dtype(self, name: str) -> str:
        """bfloat16 for all tensors."""
        return "BF16"

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Rows ``start`` to ``stop``, on the device where they were drawn."""
        shape = self.shape(name)
        mean, deviation = self._part.spread(name, shape)
        generator = torch.Generator(self._place).manual_seed(zlib.crc32(name.encode()))
        numbers = torch.randn(shape, generator=generator, device=self._place, dtype=torch.bfloat16)
        return (numbers * deviation + mean)[start:stop]


def prepare(folder: Path, path: Path, config: FluxConfig, sizes: Sizes) -> dict[str, Any]:
    """Writes the folder, without weights of the large parts, and the file; returns bytes and seconds of the file.

    Raises:
        SystemExit: the folder exists already, or the disk has not enough space.
    """
    if folder.exists():
        raise SystemExit(f"{folder}: expected no such folder yet, found one. Remove it, or give another --folder.")
    write(folder, config, sizes, large=False)
    flux, t5 = drawn(config, sizes)
    left = flux_file.entries(config, folder, Numbers(flux), Numbers(t5))
    need = flux_file.size_of(left)
    if (free := shutil.disk_usage(folder).free) < 1.05 * need:
        raise SystemExit(f"{folder}: expected {1.05 * need / 1e9:.1f} GB of free space, got {free / 1e9:.1f} GB.")
    start = time.perf_counter()
    flux_file.write_entries(path, left, done=lambda part: print(f"  {part} is written", flush=True))
    seconds, size = time.perf_counter() - start, path.stat().st_size
    print(f"{path.name}: {size / 1e9:.2f} GB in {seconds:.1f} s", flush=True)
    for weights in folder.glob("*/*.safetensors"):
        weights.unlink()  # these weights are read from the file
    return {"file_bytes": size, "file_write_s": seconds}


def opened(folder: Path, path: Path, rung: str, device: str, cache: str) -> tuple[Pipeline, dict[str, Any]]:
    """A pipeline with the file's weights, and the loading time by part."""
    if cache == "cold":
        drop(path)
    start = time.perf_counter()
    pipeline = Pipeline.from_pretrained(folder, transformer=path, rung=rung, device=device)
    seconds = time.perf_counter() - start
    rows = {part: {"bytes": row.bytes, "seconds": row.time_s} for part, row in pipeline.parts.loads.items()}
    rows["ready"]["seconds"] = seconds
    for row in rows.values():
        row["gb_s"] = row["bytes"] / row["seconds"] / 1e9
    words = (f"{part} {row['seconds']:.2f} s at {row['gb_s']:.2f} GB/s" for part, row in rows.items())
    print(f"{rung}, {cache}: {', '.join(words)}", flush=True)
    return pipeline, {"cache": cache, **rows}


def apart(pipeline: Pipeline, path: Path) -> dict[str, float]:
    """Largest difference between weights on the device and in the file, relative to the largest weight."""
    found, config = {}, pipeline.config
    with safe_open(path, framework="pt") as stored:
        for pattern, place in _CHECKED:
            name = pattern.format(last_double=config.double_blocks - 1, last_single=config.single_blocks - 1)
            weight = stored.get_tensor(f"{_PREFIX}{name}.weight").float().numpy()
            weight = weight * stored.get_tensor(f"{_PREFIX}{name}.scale_weight").numpy()
            at: Any = pipeline.parts.transformer._weights
            for step in place:
                at = list(at)[step] if isinstance(step, int) else getattr(at, step)
            found[name] = float(np.abs(_numbers(pipeline, at.weight) - weight).max() / np.abs(weight).max())
    return found


def _numbers(pipeline: Pipeline, weight: Any) -> Any:
    """A weight on the device in float32; values in e4m3 are multiplied by their scales."""
    door = pipeline.parts.device.door
    if not hasattr(weight, "scale"):
        return door.to_host(weight, "check").astype(np.float32)
    data = door.to_host(weight.data, "check")
    data = data.view(ml_dtypes.float8_e4m3fn) if data.dtype.itemsize == 1 else data
    return data.astype(np.float32) * door.to_host(weight.scale, "check")


def measured(folder: Path, path: Path, rung: str, workload: Workload, how: argparse.Namespace) -> tuple[Any, Any]:
    """All measurements of one rung, and its picture."""
    sizes = {"height": workload.height, "width": workload.width, "num_inference_steps": workload.steps}
    sizes["max_sequence_length"] = workload.text_tokens
    loads, images = [], []
    for cache in ("cold", "warm"):
        pipeline, row = opened(folder, path, rung, how.device, cache)
        row["first_picture_s"] = seconds_of(
            lambda: images.append(pipeline(PROMPT, seed=SEED, **sizes).images[0])  # noqa: B023 - called at once
        )
        row["from_file_to_picture_s"] = row["ready"]["seconds"] + row["first_picture_s"]
        print(f"  first picture {row['first_picture_s']:.2f} s", flush=True)
        loads.append(row)
        if cache == "cold":
            pipeline.close()
    weights = apart(pipeline, path)
    print(f"  largest difference of weights: {max(weights.values()):.1e}", flush=True)
    record, _ = measure_pictures(pipeline, workload, Sampling(how.repeat), SEED)
    append_record(how.output.with_suffix(".jsonl"), record)
    told("warm", {name: x[0] for name, x in record.times_s.items() if not name.startswith("warmup")})
    pipeline.close()
    same = bool(np.array_equal(np.asarray(images[0]), np.asarray(images[1])))
    return {"rung": rung, "loads": loads, "weights_apart": weights, "same_picture_twice": same}, images[0]


def main() -> None:
    """Writes the file, measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="Folder for the model folder and the file: 17 GB.")
    parser.add_argument("--model", default="schnell")
    parser.add_argument("--workload", default="schnell-1024", help="Sizes and steps.")
    parser.add_argument("--rung", action="append", help="Repeat for several; fp8 if not given.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    how = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, message=".* takes .* tokens")
    workload, tiny = workload_named(how.workload), how.model.startswith("tiny")
    folder, path = how.folder / how.model, how.folder / f"{how.model}-e4m3.safetensors"
    how.output.parent.mkdir(parents=True, exist_ok=True)
    written = prepare(folder, path, config_named(how.model), TINY if tiny else FULL)
    rows: list[dict[str, Any]] = []
    pictures: list[Any] = []
    for rung in how.rung or ["fp8"]:
        row, picture = measured(folder, path, rung, workload, how)
        rows.append(row)
        pictures.append(picture)
        picture.save(how.output.with_name(f"{how.output.stem}-{rung}.png"))
        result = {
            **circumstances(workload, how.model, how.device, _LIBRARIES),
            **written,
            "rungs": rows,
            "psnr_db": [psnr(pictures[0], other) for other in pictures[1:]],
        }
        write_whole(how.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
