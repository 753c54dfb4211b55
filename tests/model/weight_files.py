"""Checkpoint files for tests, written without fluxperf: names and shapes by hand, and a converter of layouts.

Arrays are NumPy float32 whose numbers bfloat16 can hold, as those of a published checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

STEM = "diffusion_pytorch_model.safetensors"
State = dict[str, np.ndarray]


class Sizes(NamedTuple):
    """Sizes that the names and shapes of a FLUX.1 checkpoint depend on."""

    double: int
    single: int
    heads: int
    head_dim: int
    channels: int
    text: int
    pooled: int
    guidance: bool

    @property
    def dim(self) -> int:
        return self.heads * self.head_dim


#: Small enough to be written a hundred times. The head dimension is that of `tiny`, so `tiny`'s RoPE axes apply.
SMALL = Sizes(double=1, single=1, heads=2, head_dim=16, channels=4, text=8, pooled=8, guidance=False)


def diffusers_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of diffusers' layout."""
    dim, mlp = sizes.dim, 4 * sizes.dim
    linears = {"x_embedder": (dim, sizes.channels), "context_embedder": (dim, sizes.text)}
    embedders = {"timestep": 256, "text": sizes.pooled} | ({"guidance": 256} if sizes.guidance else {})
    for name, width in embedders.items():
        linears[f"time_text_embed.{name}_embedder.linear_1"] = (dim, width)
        linears[f"time_text_embed.{name}_embedder.linear_2"] = (dim, dim)
    norms = []
    for index in range(sizes.double):
        block = f"transformer_blocks.{index}"
        linears |= dict.fromkeys((f"{block}.norm1.linear", f"{block}.norm1_context.linear"), (6 * dim, dim))
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            linears[f"{block}.attn.{name}"] = (dim, dim)
        for name in ("ff", "ff_context"):
            linears |= {f"{block}.{name}.net.0.proj": (mlp, dim), f"{block}.{name}.net.2": (dim, mlp)}
        norms += [f"{block}.attn.{name}" for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k")]
    for index in range(sizes.single):
        block = f"single_transformer_blocks.{index}"
        linears |= {f"{block}.norm.linear": (3 * dim, dim), f"{block}.proj_mlp": (mlp, dim)}
        linears |= {f"{block}.attn.{name}": (dim, dim) for name in ("to_q", "to_k", "to_v")}
        linears[f"{block}.proj_out"] = (dim, dim + mlp)
        norms += [f"{block}.attn.norm_q", f"{block}.attn.norm_k"]
    linears |= {"norm_out.linear": (2 * dim, dim), "proj_out": (sizes.channels, dim)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (sizes.head_dim,) for name in norms}
    for name, shape in linears.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]], seed: int) -> State:
    """Values that keep activations near 1: norms around 1, non-zero biases, smaller modulations."""
    rng = np.random.default_rng(seed)
    state = {}
    for name in sorted(shapes):
        numbers = rng.standard_normal(shapes[name], np.float32)
        if len(shapes[name]) == 2:
            numbers *= (0.3 if "norm" in name else 1.0) / shapes[name][1] ** 0.5
        elif name.endswith(".bias"):
            numbers *= 0.1
        else:
            numbers = 1 + 0.2 * numbers
        state[name] = as_bfloat16(numbers)
    return state


def as_bfloat16(numbers: Any) -> np.ndarray:
    """Float32 numbers that bfloat16 can hold."""
    return np.asarray(numbers, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


def original_layout(state: State, sizes: Sizes) -> State:
    """The same model under the names of the original single file (black-forest-labs/flux, ``src/flux/modules``)."""
    result: State = {}

    def stack(target: str, *sources: str) -> None:
        for kind in ("weight", "bias"):
            result[f"{target}.{kind}"] = np.concatenate([state[f"{source}.{kind}"] for source in sources])

    def norms(target: str, query: str, key: str) -> None:
        result[f"{target}.query_norm.scale"] = state[f"{query}.weight"].copy()
        result[f"{target}.key_norm.scale"] = state[f"{key}.weight"].copy()

    stack("img_in", "x_embedder")
    stack("txt_in", "context_embedder")
    embedders = {"time_in": "timestep", "vector_in": "text"} | ({"guidance_in": "guidance"} if sizes.guidance else {})
    for ours, theirs in embedders.items():
        stack(f"{ours}.in_layer", f"time_text_embed.{theirs}_embedder.linear_1")
        stack(f"{ours}.out_layer", f"time_text_embed.{theirs}_embedder.linear_2")
    for index in range(sizes.double):
        _double_block(f"double_blocks.{index}", f"transformer_blocks.{index}", stack, norms)
    for index in range(sizes.single):
        block, source = f"single_blocks.{index}", f"single_transformer_blocks.{index}"
        stack(f"{block}.modulation.lin", f"{source}.norm.linear")
        stack(f"{block}.linear1", *(f"{source}.attn.{name}" for name in ("to_q", "to_k", "to_v")), f"{source}.proj_mlp")
        norms(f"{block}.norm", f"{source}.attn.norm_q", f"{source}.attn.norm_k")
        stack(f"{block}.linear2", f"{source}.proj_out")
    stack("final_layer.linear", "proj_out")
    for kind in ("weight", "bias"):
        scale, shift = np.split(state[f"norm_out.linear.{kind}"], 2)
        result[f"final_layer.adaLN_modulation.1.{kind}"] = np.concatenate([shift, scale])
    return result


def _double_block(block: str, source: str, stack: Any, norms: Any) -> None:
    for stream, norm, qkv, out, added, ff in (
        ("img", "norm1", ("to_q", "to_k", "to_v"), "to_out.0", "", "ff"),
        ("txt", "norm1_context", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "added_", "ff_context"),
    ):
        stack(f"{block}.{stream}_mod.lin", f"{source}.{norm}.linear")
        stack(f"{block}.{stream}_attn.qkv", *(f"{source}.attn.{name}" for name in qkv))
        norms(f"{block}.{stream}_attn.norm", f"{source}.attn.norm_{added}q", f"{source}.attn.norm_{added}k")
        stack(f"{block}.{stream}_attn.proj", f"{source}.attn.{out}")
        stack(f"{block}.{stream}_mlp.0", f"{source}.{ff}.net.0.proj")
        stack(f"{block}.{stream}_mlp.2", f"{source}.{ff}.net.2")


def settings(sizes: Sizes) -> dict[str, Any]:
    """Contents of diffusers' ``config.json``."""
    return {
        "_class_name": "FluxTransformer2DModel",
        "num_layers": sizes.double,
        "num_single_layers": sizes.single,
        "num_attention_heads": sizes.heads,
        "attention_head_dim": sizes.head_dim,
        "in_channels": sizes.channels,
        "joint_attention_dim": sizes.text,
        "pooled_projection_dim": sizes.pooled,
        "guidance_embeds": sizes.guidance,
        "axes_dims_rope": [4, 6, 6],
    }


def write_tensors(path: Path, state: State, dtype: Any = ml_dtypes.bfloat16) -> Path:
    """A safetensors file of those tensors; arrays that are not float32 keep their dtype."""
    save_file({name: x.astype(dtype) if x.dtype == np.float32 else x for name, x in state.items()}, path)
    return path


def write_folder(folder: Path, state: State, sizes: Sizes = SMALL, **changes: Any) -> Path:
    """A diffusers folder of one file, with changes to its ``config.json`` (``None`` removes a key)."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / STEM, state)
    contents = {key: value for key, value in {**settings(sizes), **changes}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(contents))
    return folder


def write_shards(folder: Path, state: State, count: int, sizes: Sizes = SMALL) -> Path:
    """A diffusers folder of several shards and an index; tensors are distributed in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"diffusion_pytorch_model-{index + 1:05}-of-{count:05}.safetensors" for index in range(count)]
    owners = {name: files[index % count] for index, name in enumerate(sorted(state))}
    for file in files:
        write_tensors(folder / file, {name: x for name, x in state.items() if owners[name] == file})
    index = {"metadata": {}, "weight_map": owners}
    (folder / f"{STEM}.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(settings(sizes)))
    return folder
