"""Every entry point of `kernels/`: its file and the layout of its parameters, as `nvrtc.launch.Kernel` describes them.

A test compiles all files and compares: names in both directions, and size and place of every parameter.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fluxperf.engine.device import cuda, graphs
from fluxperf.engine.nvrtc.launch import launch


class Entry(NamedTuple):
    """Where an entry point is, and what it takes."""

    file: str
    layout: str


# Parameters passed by value: extents (4i) and strides (4q) of leading axes, batch and token stride (2q), a box to copy,
# a stream of a product in e4m3.
_BOX, _SCALED = "2P6q6i", "6P4q2i"
_MAP, _MAP_TWO = "P P 4i 4q i i", "P P P 4i 4q 4q i i"
_COPIES = "b16 b4 b2"

_FAMILIES = (
    ("layer_norm", "P P 4i 4q i i f",
     "f32_w1_block f32_w4_block f32_w4_p8 f32_w4_p24 bf16_w1_block bf16_w8_block bf16_w8_p4 bf16_w8_p12 bf16_w8_p16"),
    ("norm_modulate", "P P P P 2q q q i i f",
     "f32_w1_block f32_w4_block f32_w4_p8 f32_w4_p24 bf16_w1_block bf16_w8_block bf16_w8_t1 bf16_w8_t3 bf16_w8_t4"),
    ("modulate", "P P P P 2q q q i i i", "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("gated_residual", "P P P P P 2q q 2q 2q i i i", "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("add_broadcast", _MAP_TWO, "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("add_broadcast", _MAP_TWO + " i i", "f32_any bf16_any"),
    ("scale", _MAP + " f", "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("gelu", _MAP, "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("silu", _MAP, "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("cast", _MAP, "f32_bf16_w1 f32_bf16_w4 bf16_f32_w1 bf16_f32_w4"),
    ("euler_step", _MAP_TWO + " f", "f32_w1 f32_w4 bf16_w1 bf16_w4"),
    ("rms_norm", "P P P 4i 4q i i i f", "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("apply_rope", "P P P P 2q q q q i i i", "f32_w2 f32_w4 bf16_w2 bf16_w8"),
    ("concat_tokens", f"{_BOX} {_BOX} i", _COPIES),
    ("split_tokens", f"{_BOX} {_BOX} i", _COPIES),
    ("join_features", f"{_BOX} {_BOX} i", _COPIES),
    ("transpose_heads", _BOX, _COPIES),
    ("softmax", "P P 4i 4q i",
     "f32_f32_w1 f32_f32_w4_held f32_bf16_w1 f32_bf16_w4_held "
     "bf16_f32_w1 bf16_f32_w4_held bf16_bf16_w1 bf16_bf16_w4_held"),
    ("timestep_embedding", "P 64f i", "f32"),
    ("rope_table", "P P d 3i i i", "f32"),
    ("qkv_heads", "4P2q2i 4P2q2i 5P2q4if i",
     "f32_w2 f32_w4_g4 f32_w4_g8 f32_w4_g16 f32_w4_g32 bf16_w2 bf16_w8_g4 bf16_w8_g8 bf16_w8_g16 bf16_w8_g32"),
    ("quantize_rows", "P P P 4i 4q i", "f32_w1 f32_w4 bf16_w1 bf16_w8"),
    ("norm_modulate_fp8", "P P P P P 2q q q i i f",
     "bf16_w1_block bf16_w8_block bf16_w8_t1 bf16_w8_t3 bf16_w8_t4"),
    ("value_peaks", f"{_SCALED} {_SCALED} P i i i", "bf16"),
    ("qkv_heads_fp8", f"{_SCALED} {_SCALED} 7P2q5if i", "bf16_g4 bf16_g8 bf16_g16 bf16_g32"),
    ("gelu_fp8", "P P P P P P 2q 2q 2q i i", "bf16_w1_block bf16_w8_block bf16_w8_t1 bf16_w8_t3"),
    ("join_features_fp8", "P P P 2q 2q i i i", "b1 b16"),
    ("gated_residual_fp8", "P P P P P P P 2q q 2q 2q 2q i i i", "bf16_w1 bf16_w8"),
    ("spin", cuda.SPIN, "ns"),
    *graphs.FAMILIES,
)  # fmt: skip

ENTRIES: dict[str, Entry] = {
    f"{op}_{variant}": Entry(f"{op}.cu", layout) for op, layout, variants in _FAMILIES for variant in variants.split()
}


def start(device: Any, entry: str, grid: tuple[int, int], threads: int, *values: Any) -> None:
    """Launches an entry point on the device's current stream; an empty grid launches nothing."""
    if grid[0] and grid[1]:
        file, layout = ENTRIES[entry]
        launch(device, device.kernels.get(file, entry, layout), grid, threads, *values)
