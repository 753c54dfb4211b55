"""Bandwidth of every memory-bound kernel at the shapes of schnell-1024, beside a device copy on the same card.

    python -m benchmarks.kernels -o reports/records/kernels.json

Bytes are those that the op must move: each tensor read or written once. Launches are back to back between two events,
queued behind a long write, and rotate among several sets of tensors, so that no set stays in the L2 cache.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.ops.bind import bind
from fluxperf.engine.ops.table import Settings
from fluxperf.engine.phases import table
from fluxperf.harness.measure.environment import commit
from fluxperf.harness.measure.sampler import Call, Series, batch

#: Sets to rotate among, launches between two events, batches that are kept, and batches before them.
SETS, LAUNCHES, REPEATS, WARMUP = 8, 40, 9, 2

TEXT, IMAGE, HEADS, DIM = 512, 4096, 24, 128
WIDTH = HEADS * DIM


def measured(device: CudaDevice, calls: list[Callable[[], Any]]) -> Series:
    """Batches of launches that rotate among the calls."""
    rotating = itertools.cycle(calls)
    (series,) = batch([Call(device, lambda: next(rotating)())], LAUNCHES, REPEATS, WARMUP)
    return series


def kernels(device: CudaDevice, dtype: str) -> dict[str, tuple[int, list[Callable[[], Any]]]]:
    """Bytes and calls of each kernel, by name."""
    bound = bind("kernels", table("fused" if dtype == "bfloat16" else "batched"), device, Settings(dtype))
    fused = bind("kernels", table("fused"), device, Settings(dtype)).ops["double"]
    plain = bound.ops["double"]
    simple = bind("kernels", table("batched"), device, Settings(dtype)).ops["double"]
    tokens = TEXT + IMAGE
    item = 2 if dtype == "bfloat16" else 4

    def draw(*shape: int, kind: str = dtype) -> Any:
        return device.draw_normal((len(shape), *shape), shape, kind, 1.0)

    sets = [
        {
            "x": draw(1, tokens, WIDTH), "y": draw(1, tokens, WIDTH), "row": draw(1, WIDTH),
            "img": draw(1, IMAGE, 3 * WIDTH), "txt": draw(1, TEXT, 3 * WIDTH),
        }
        for _ in range(SETS)
    ]  # fmt: skip
    bias, norm = draw(3 * WIDTH), draw(DIM)
    cos, sin = plain.rope_table(TEXT, 64, 64, (16, 56, 56), 10_000.0)
    size, big = tokens * WIDTH * item, 3 * tokens * WIDTH * item
    heads = (tokens, HEADS, DIM)

    def calls(function: Callable[[dict[str, Any]], Any]) -> list[Callable[[], Any]]:
        return [lambda one=one: function(one) for one in sets]

    return {
        "layer_norm": (2 * size, calls(lambda s: simple.layer_norm(s["x"]))),
        "modulate": (2 * size, calls(lambda s: simple.modulate(s["x"], s["row"], s["row"]))),
        "gated_residual": (3 * size, calls(lambda s: simple.gated_residual(s["x"], s["row"], s["y"]))),
        "add_broadcast": (2 * 3 * IMAGE * WIDTH * item, calls(lambda s: simple.add_broadcast(s["img"], bias))),
        "gelu": (2 * size, calls(lambda s: simple.gelu(s["x"]))),
        "silu": (2 * size, calls(lambda s: simple.silu(s["x"]))),
        "scale": (2 * size, calls(lambda s: simple.scale(s["x"], 0.5))),
        "rms_norm": (2 * size, calls(lambda s: simple.rms_norm(s["x"].reshape(1, *heads), norm))),
        "apply_rope": (2 * size, calls(lambda s: simple.apply_rope(s["x"].reshape(1, *heads), cos, sin))),
        "transpose_heads": (2 * size, calls(lambda s: simple.transpose_heads(s["x"].reshape(1, *heads)))),
        "concat_tokens": (2 * size, calls(lambda s: simple.concat_tokens(s["x"][:, :TEXT], s["y"][:, TEXT:]))),
        "norm_modulate (fused)": (2 * size, calls(lambda s: fused.norm_modulate(s["x"], s["row"], s["row"]))),
        "qkv_heads (fused)": (
            2 * big,
            calls(
                lambda s: fused.qkv_heads(
                    (s["txt"], s["img"]), (bias, bias), (norm, norm), (norm, norm), cos, sin, HEADS
                )
            ),
        ),
        "gated_residual with bias (fused)": (3 * size, calls(lambda s: _epilogue(device, s))),
    }  # fmt: skip


def _epilogue(device: CudaDevice, one: dict[str, Any]) -> Any:
    from fluxperf.engine.ops.cuda.epilogues import bias_gated_residual

    return bias_gated_residual(device, one["x"], one["row"], one["y"], one["row"].reshape(-1))


def copy_bandwidth(device: CudaDevice) -> float:
    """Bytes per second of a device copy, read and written, of tensors as large as the joint sequence's."""
    pairs = [(device.empty((1 << 25,), "float32"), device.empty((1 << 25,), "float32")) for _ in range(4)]
    calls = [
        lambda pair=pair: pair[1].data.copy_from_device_async(pair[0].data, pair[0].nbytes, device.stream)
        for pair in pairs
    ]
    return 2 * pairs[0][0].nbytes / median(measured(device, calls).times_s)


def main() -> None:
    """Measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    device = CudaDevice()
    ceiling = copy_bandwidth(device)
    rows = []
    for dtype in ("bfloat16", "float32"):
        for name, (nbytes, calls) in kernels(device, dtype).items():
            series = measured(device, calls)
            seconds = median(series.times_s)
            rate = nbytes / seconds
            rows.append(
                {
                    "kernel": name,
                    "dtype": dtype,
                    "us": seconds * 1e6,
                    "gb_s": rate / 1e9,
                    "of_copy": rate / ceiling,
                    "samples_us": [sample * 1e6 for sample in series.times_s],
                    "exposed": series.exposed,
                }
            )
            print(f"{dtype:9} {name:34} {seconds * 1e6:8.1f} us {rate / 1e9:7.0f} GB/s {rate / ceiling:6.1%}")
    revision, dirty = commit(Path(__file__).resolve().parent.parent)
    head = {
        "commit": revision,
        "dirty": dirty,
        "machine": device.describe(),
        "copy_gb_s": ceiling / 1e9,
        "sets": SETS,
        "launches": LAUNCHES,
        "repeats": REPEATS,
        "warmup": WARMUP,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**head, "kernels": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
