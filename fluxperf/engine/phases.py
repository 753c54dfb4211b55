"""The phase table: what each rung of the ladder changes, and only that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from fluxperf.engine.ops.table import Settings
from fluxperf.errors import UnknownNameError


@dataclass(frozen=True)
class Phase:
    """One rung.

    ``rows`` names the implementations of the ops that change. A key ``"section.op"`` applies to one section only, and
    the value ``None`` removes such an exception again. ``activations`` is the dtype, ``e4m3`` the sections whose
    projections are quantized at load, ``executor`` the strategy for forwards, ``overlaps`` whether independent work may
    run on two streams, ``image_only`` whether the last single block computes the image tokens alone, ``copies`` whether
    a forward may copy between host and device.
    """

    name: str
    mission: str
    change: str
    rows: Mapping[str, str | None]
    activations: str = "float32"
    e4m3: tuple[str, ...] = ()
    executor: str = "eager"
    overlaps: bool = False
    image_only: bool = False
    copies: bool = False

    @property
    def settings(self) -> Settings:
        """The phase's settings for every op."""
        return Settings(self.activations, self.overlaps, self.image_only)


PHASES: tuple[Phase, ...] = (
    Phase(
        "baseline",
        "starting point",
        "numpy round trips for the fallback ops, batched matmul as a loop over heads, float32",
        {
            "layer_norm": "roundtrip",
            "modulate": "roundtrip",
            "gated_residual": "roundtrip",
            "scale": "roundtrip",
            "apply_rope": "roundtrip",
            "concat_tokens": "roundtrip",
            "split_tokens": "roundtrip",
            "split_modulation": "roundtrip",
            "join_features": "roundtrip",
            "timestep_embedding": "roundtrip",
            "rope_table": "roundtrip",
            "euler_step": "roundtrip",
            "batched_matmul": "looped",
            "linear": "transposing",
            "add_broadcast": "primitives",
            "rms_norm": "primitives",
            "softmax": "primitives",
            "gelu": "primitives",
            "silu": "primitives",
            "transpose_heads": "primitives",
            "cast": "primitives",
            "silu_linear": "composed",
            "linear_gelu": "composed",
            "norm_modulate": "composed",
            "qkv_heads": "composed",
            "attention": "composed",
            "linear_gated_residual": "composed",
            "joined_halves": "composed",
            "embed.add_broadcast": "roundtrip",
            "single.concat_tokens": "kept_on_host",
            "single.linear_gelu": "host_reshape",
            "final.linear": "host_reshape",
        },
        copies=True,
    ),
    Phase(
        "broadcast",
        "Phase 1",
        "the fallback ops stay on the GPU, one launch each: no copies in the forward",
        {
            "layer_norm": "primitives",
            "modulate": "primitives",
            "gated_residual": "primitives",
            "scale": "primitives",
            "apply_rope": "primitives",
            "concat_tokens": "primitives",
            "split_tokens": "primitives",
            "split_modulation": "views",
            "join_features": "primitives",
            "timestep_embedding": "primitives",
            "rope_table": "primitives",
            "euler_step": "primitives",
            "embed.add_broadcast": None,
            "single.concat_tokens": None,
            "single.linear_gelu": None,
            "final.linear": None,
        },
    ),
    Phase(
        "batched",
        "Phase 2",
        "batched matmul is one strided-batched call; weights are read as laid out at load",
        {"batched_matmul": "strided", "linear": "laid_out"},
    ),
    Phase(
        "tensorcore",
        "Phase 2",
        "bfloat16 operands, float32 accumulation",
        {},
        activations="bfloat16",
    ),
    Phase(
        "fused",
        "Phase 3",
        "norm_modulate, qkv_heads, linear_gelu, linear_gated_residual and silu_linear are fused; flash attention; "
        "streams and joined features are views of one buffer; modulations of a step in one product; independent work "
        "of a block overlaps on two streams",
        {
            "norm_modulate": "fused",
            "qkv_heads": "fused",
            "linear_gelu": "fused",
            "linear_gated_residual": "fused",
            "silu_linear": "fused",
            "attention": "flash",
            "concat_tokens": "views",
            "split_tokens": "views",
            "joined_halves": "views",
            "join_features": "views",
        },
        activations="bfloat16",
        executor="stacked",
        overlaps=True,
    ),
    Phase(
        "captured",
        "beyond",
        "what does not depend on the image leaves the step: modulations of all steps in one product, text embedding; "
        "the forward is replayed as a CUDA graph; qkv_heads computes the product that it finishes; the last single "
        "block computes the image tokens alone",
        {"double.linear": "deferred", "single.linear": "deferred"},
        activations="bfloat16",
        executor="captured",
        overlaps=True,
        image_only=True,
    ),
    Phase(
        "fp8",
        "beyond",
        "matrix products and attention of all blocks in e4m3, quantized by the kernels that produce their operands",
        {
            "quantize_rows": "fp8",
            **{
                f"{section}.{op}": "fp8"
                for section in ("double", "single")
                for op in ("norm_modulate", "qkv_heads", "attention", "linear_gelu", "linear_gated_residual")
            },
            "single.joined_halves": "fp8",
            "single.join_features": "fp8",
        },
        activations="bfloat16",
        e4m3=("double", "single"),
        executor="captured",
        overlaps=True,
        image_only=True,
    ),
)


class MissionPhase(NamedTuple):
    """One optimization of the mission: the rungs that it starts from and ends at, and the expected speedup."""

    name: str
    before: str
    after: str
    expected: tuple[float, float]


MISSION: tuple[MissionPhase, ...] = (
    MissionPhase("Phase 1: GPU-native broadcast ops", "baseline", "broadcast", (10, 20)),
    MissionPhase("Phase 2: batched matmul", "broadcast", "tensorcore", (2, 3)),
    MissionPhase("Phase 3: fused ops", "tensorcore", "fused", (1.5, 2)),
)


def phase_named(name: str) -> Phase:
    """Phase with that name.

    Raises:
        UnknownNameError: there is none; lists the known ones.
    """
    for phase in PHASES:
        if phase.name == name:
            return phase
    raise UnknownNameError("rung", name, (phase.name for phase in PHASES))


def table(name: str) -> dict[str, str]:
    """The complete table of a rung: its own rows on top of those of all rungs before it."""
    rows: dict[str, str] = {}
    for phase in PHASES:
        for row, implementation in phase.rows.items():
            if implementation is None:
                rows.pop(row, None)
            else:
                rows[row] = implementation
        if phase.name == name:
            return rows
    raise UnknownNameError("rung", name, (phase.name for phase in PHASES))
