"""The two published layouts of FLUX.1 checkpoints, as recipes that build the canonical tensors.

A recipe is a list of pieces, each a tensor of the file or some rows of one, stacked along axis 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fluxperf.engine.config import FluxConfig


class Piece(NamedTuple):
    """Rows ``start`` to ``stop`` of a file's tensor; all remaining rows if ``stop`` is ``None``."""

    name: str
    start: int = 0
    stop: int | None = None


Recipes = dict[str, list[Piece]]


def diffusers(config: FluxConfig) -> Recipes:
    """Layout of diffusers' ``FluxTransformer2DModel``: separate projections; the final modulation is (scale, shift)."""
    dim = config.dim
    recipes: Recipes = {}
    _whole(recipes, "img_in", "x_embedder")
    _whole(recipes, "txt_in", "context_embedder")
    for path, name in (("time_in", "timestep"), ("pooled_in", "text"), ("guidance_in", "guidance")):
        if name != "guidance" or config.guidance:
            _whole(recipes, f"{path}.first", f"time_text_embed.{name}_embedder.linear_1")
            _whole(recipes, f"{path}.second", f"time_text_embed.{name}_embedder.linear_2")
    modulations: list[Piece] = []
    for index in range(config.double_blocks):
        block = f"transformer_blocks.{index}"
        modulations += [Piece(f"{block}.norm1.linear"), Piece(f"{block}.norm1_context.linear")]
        for stream, names in (
            ("img", ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k", "ff")),
            (
                "txt",
                ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k", "ff_context"),
            ),
        ):
            path = f"double.{index}.{stream}"
            q, k, v, out, q_norm, k_norm, mlp = names
            _stacked(recipes, f"{path}.qkv", [Piece(f"{block}.attn.{name}") for name in (q, k, v)])
            recipes[f"{path}.q_norm"] = [Piece(f"{block}.attn.{q_norm}.weight")]
            recipes[f"{path}.k_norm"] = [Piece(f"{block}.attn.{k_norm}.weight")]
            _whole(recipes, f"{path}.out", f"{block}.attn.{out}")
            _whole(recipes, f"{path}.mlp_up", f"{block}.{mlp}.net.0.proj")
            _whole(recipes, f"{path}.mlp_down", f"{block}.{mlp}.net.2")
    for index in range(config.single_blocks):
        block, path = f"single_transformer_blocks.{index}", f"single.{index}"
        modulations.append(Piece(f"{block}.norm.linear"))
        _stacked(recipes, f"{path}.qkv", [Piece(f"{block}.attn.{name}") for name in ("to_q", "to_k", "to_v")])
        recipes[f"{path}.q_norm"] = [Piece(f"{block}.attn.norm_q.weight")]
        recipes[f"{path}.k_norm"] = [Piece(f"{block}.attn.norm_k.weight")]
        _whole(recipes, f"{path}.mlp_up", f"{block}.proj_mlp")
        _whole(recipes, f"{path}.out", f"{block}.proj_out")
    modulations += [Piece("norm_out.linear", dim, 2 * dim), Piece("norm_out.linear", 0, dim)]
    _stacked(recipes, "modulation", modulations)
    _whole(recipes, "final_out", "proj_out")
    return recipes


def original(config: FluxConfig) -> Recipes:
    """Layout of the original single file: merged projections; the final modulation is (shift, scale)."""
    dim = config.dim
    recipes: Recipes = {}
    for path in ("img_in", "txt_in"):
        _whole(recipes, path, path)
    for path, name in (("time_in", "time_in"), ("pooled_in", "vector_in"), ("guidance_in", "guidance_in")):
        if path != "guidance_in" or config.guidance:
            _whole(recipes, f"{path}.first", f"{name}.in_layer")
            _whole(recipes, f"{path}.second", f"{name}.out_layer")
    modulations: list[Piece] = []
    for index in range(config.double_blocks):
        block = f"double_blocks.{index}"
        modulations += [Piece(f"{block}.img_mod.lin"), Piece(f"{block}.txt_mod.lin")]
        for stream in ("img", "txt"):
            path = f"double.{index}.{stream}"
            _whole(recipes, f"{path}.qkv", f"{block}.{stream}_attn.qkv")
            recipes[f"{path}.q_norm"] = [Piece(f"{block}.{stream}_attn.norm.query_norm.scale")]
            recipes[f"{path}.k_norm"] = [Piece(f"{block}.{stream}_attn.norm.key_norm.scale")]
            _whole(recipes, f"{path}.out", f"{block}.{stream}_attn.proj")
            _whole(recipes, f"{path}.mlp_up", f"{block}.{stream}_mlp.0")
            _whole(recipes, f"{path}.mlp_down", f"{block}.{stream}_mlp.2")
    for index in range(config.single_blocks):
        block, path = f"single_blocks.{index}", f"single.{index}"
        modulations.append(Piece(f"{block}.modulation.lin"))
        _stacked(recipes, f"{path}.qkv", [Piece(f"{block}.linear1", 0, 3 * dim)])
        _stacked(recipes, f"{path}.mlp_up", [Piece(f"{block}.linear1", 3 * dim, 3 * dim + config.mlp_dim)])
        recipes[f"{path}.q_norm"] = [Piece(f"{block}.norm.query_norm.scale")]
        recipes[f"{path}.k_norm"] = [Piece(f"{block}.norm.key_norm.scale")]
        _whole(recipes, f"{path}.out", f"{block}.linear2")
    modulations.append(Piece("final_layer.adaLN_modulation.1"))
    _stacked(recipes, "modulation", modulations)
    _whole(recipes, "final_out", "final_layer.linear")
    return recipes


def _whole(recipes: Recipes, path: str, name: str) -> None:
    _stacked(recipes, path, [Piece(name)])


def _stacked(recipes: Recipes, path: str, pieces: Iterable[Piece]) -> None:
    """Adds the recipes of a projection's weight and bias, stacked from the same rows of the same file projections."""
    pieces = list(pieces)
    for kind in ("weight", "bias"):
        recipes[f"{path}.{kind}"] = [Piece(f"{piece.name}.{kind}", piece.start, piece.stop) for piece in pieces]
