"""The peer in e4m3: which projections it replaces, and that the rest of diffusers computes as before."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the peer is made of PyTorch (the test extra)")
pytest.importorskip("diffusers", reason="the peer is diffusers (the test extra)")

import torch

from benchmarks.peers import diffusers as peer
from fluxperf.errors import UnknownNameError
from fluxperf.peers import open_peer
from fluxperf.workloads import workload_named

pytestmark = pytest.mark.peer

DOUBLE = ("attn.to_out.0", "attn.to_qkv", "attn.to_added_qkv", "attn.to_add_out")
DOUBLE += tuple(f"{stream}.net.{part}" for stream in ("ff", "ff_context") for part in ("0.proj", "2"))
SINGLE = ("attn.to_qkv", "proj_mlp", "proj_out")
SPLIT = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj")


def built(seed: int = 0) -> torch.nn.Module:
    """Two double and one single block in bfloat16."""
    torch.manual_seed(seed)
    model = peer.FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=1,
        num_attention_heads=2,
        attention_head_dim=64,
        in_channels=16,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(16, 24, 24),
    )
    return model.to(torch.bfloat16).eval().requires_grad_(False)


def linears(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def forward(model: torch.nn.Module, text_tokens: int = 5) -> torch.Tensor:
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).bfloat16()

    with torch.inference_mode():
        return model(
            hidden_states=normal(2, 12, 16),
            encoder_hidden_states=normal(2, text_tokens, 32),
            pooled_projections=normal(2, 32),
            timestep=torch.full((2,), 0.5, dtype=torch.bfloat16),
            img_ids=torch.zeros(12, 3),
            txt_ids=torch.zeros(text_tokens, 3),
            return_dict=False,
        )[0].float()


def error(result: torch.Tensor, reference: torch.Tensor) -> float:
    return float((result - reference).norm() / reference.norm())


def test_forms_are_listed() -> None:
    assert list(peer.FORMS) == ["diffusers", "diffusers-compiled", "diffusers-fp8"]
    assert all(peer.FORMS.values())
    with pytest.raises(UnknownNameError, match="diffusers-fp8"):
        open_peer("diffusers-fp9", workload_named("tiny"))


def test_exactly_the_projections_of_tokens_are_replaced() -> None:
    model = built()
    before = linears(model)
    peer.quantize_blocks(model)
    replaced = {name for name, module in model.named_modules() if isinstance(module, peer.E4m3Linear)}
    expected = {f"transformer_blocks.{index}.{name}" for index in range(2) for name in DOUBLE}
    expected |= {f"single_transformer_blocks.0.{name}" for name in SINGLE}
    assert replaced == expected
    split = {name for name in before if name.rpartition(".")[2] in SPLIT}
    assert len(split) == 2 * 6 + 3
    after = linears(model)
    assert after.keys() == before.keys() - split - replaced
    assert all(after[name] is before[name] for name in after), "what stays is not touched"
    assert {name.partition(".")[0] for name in after if "blocks" not in name} == {
        "x_embedder",
        "context_embedder",
        "time_text_embed",
        "norm_out",
        "proj_out",
    }
    assert all(".norm" in name for name in after if "blocks" in name)


def test_merged_projections_have_the_rows_of_the_split_ones() -> None:
    model, before = built(), built()
    peer.quantize_blocks(model)
    merged = model.transformer_blocks[0].attn.to_added_qkv
    attn = before.transformer_blocks[0].attn
    for kind in ("weight", "bias"):
        expected = torch.cat([getattr(part, kind) for part in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)])
        found = getattr(merged, kind).float()
        found = found * merged.scale.t() if kind == "weight" else found
        assert error(found, expected.float()) < 0.03


@pytest.mark.parametrize("rows", [1, 16, 37])
@torch.no_grad()
def test_a_product_is_off_by_the_rounding_of_e4m3(rows: int) -> None:
    """Two operands with independent rounding errors of 2.5 % each: 3.6 % of the product (see error_bounds)."""
    torch.manual_seed(2)
    linear = torch.nn.Linear(256, 48).bfloat16()
    linear.bias.zero_()
    x = (torch.randn(3, rows, 256) * torch.logspace(-3, 3, 3 * rows).reshape(3, rows, 1)).bfloat16()
    module, exact = peer.E4m3Linear(linear), torch.nn.functional.linear(x.float(), linear.weight.float())
    result = module(x)
    assert (result.shape, result.dtype) == (exact.shape, torch.bfloat16)
    for row, expected in zip(result.reshape(-1, 48), exact.reshape(-1, 48), strict=True):
        assert error(row.float(), expected) < 0.08, "every row has a scale of its own"
    numbers, scales = peer.quantized(x[0])
    emulated = (numbers.float() @ module.weight.float().t()) * scales * module.scale
    assert error(module(x[:1])[0].float(), emulated) < 2**-8, "only the rounding to bfloat16 is left"


@torch.no_grad()
def test_the_bias_is_added() -> None:
    module = peer.E4m3Linear(torch.nn.Linear(32, 16).bfloat16())
    assert torch.equal(module(torch.zeros(2, 3, 32).bfloat16()), module.bias.expand(2, 3, 16))


def test_rows_of_zeros_stay_zero() -> None:
    numbers, scales = peer.quantized(torch.zeros(2, 16))
    assert (numbers.float() == 0).all()
    assert (scales > 0).all()
    assert scales.dtype == torch.float32
    assert scales.is_contiguous()


def test_the_model_is_off_by_the_rounding_of_e4m3() -> None:
    reference, model = forward(built()), built()
    peer.quantize_blocks(model)
    assert 1e-4 < error(forward(model), reference) < 0.1


@pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning")  # PyTorch about Python 3.13.0
def test_blocks_compile_as_one_graph() -> None:
    """The compiler traces them, without generating code."""
    model = built()
    peer.quantize_blocks(model)
    expected = forward(model, 16)
    model.compile_repeated_blocks(fullgraph=True, backend="eager")
    assert torch.equal(forward(model, 16), expected)
