"""diffusers on fluxperf's weights: the mapping is complete, and rungs agree with it; a small form of the GPU test."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch", reason="compares with diffusers; torch is in the test extra")
pytest.importorskip("diffusers", reason="compares with diffusers; diffusers is in the test extra")

import numpy as np
import torch

from benchmarks.peers.diffusers import built
from benchmarks.same_weights import as_torch, assigned, on_meta, sources
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import SharedWeights, SyntheticWeights
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.weights import parameters
from tests.model import agreement
from tests.model.diffusers_model import forward
from tests.model.error_bounds import FLOAT32_BOUND
from tests.model.rung_runs import BFLOAT16_RUNGS, FAIR, FLOAT32_RUNGS, Case, inputs, relative_error
from tests.model.same_numbers import Pair, widened

pytestmark = pytest.mark.peer

CASE = Case(2, 13, 4, 6)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return Pair(CONFIGS["tiny"], HostDevice())


@pytest.mark.parametrize("model", ["schnell", "dev", "tiny", "tiny-dev"])
def test_every_parameter_of_diffusers_is_made_of_ours(model: str) -> None:
    """Also at full size: on PyTorch's meta device a model has shapes but no memory."""
    shapes = {name: tuple(x.shape) for name, x in on_meta(CONFIGS[model]).state_dict().items()}
    made, canonical = sources(CONFIGS[model], shapes), parameters(CONFIGS[model])
    assert made.keys() == shapes.keys()
    copied = {name for name, parts in made.items() if len(parts) > 1}
    assert copied == {"norm_out.linear.weight", "norm_out.linear.bias"}
    for name, parts in made.items():
        assert {canonical[rows.path][1:] for rows in parts} == {shapes[name][1:]}
    assert sum(np.prod(shape) for shape in shapes.values()) == sum(np.prod(shape) for shape in canonical.values())


@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
def test_what_the_loader_reads_from_that_model_is_what_it_was_made_of(model: str, tmp_path) -> None:
    config, device = CONFIGS[model], HostDevice()
    pair = Pair(config, device)
    pair.model.save_pretrained(tmp_path)
    source, loaded = SharedWeights(SyntheticWeights(config)), Checkpoint(tmp_path)
    for path, shape in parameters(config).items():
        drawn, read = (
            device.door.to_host(each.put(device, path, shape, "bfloat16"), "weights") for each in (source, loaded)
        )
        assert (drawn == read).all(), path


def test_parameters_are_views_of_the_canonical_tensors() -> None:
    config = CONFIGS["tiny"]
    tensors = {path: torch.zeros(shape, dtype=torch.bfloat16) for path, shape in parameters(config).items()}
    model = assigned(config, tensors.__getitem__)
    memory = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    others = {name for name, x in model.named_parameters() if x.untyped_storage().data_ptr() not in memory}
    assert others == {"norm_out.linear.weight", "norm_out.linear.bias"}


def test_all_rungs_have_the_same_arrays(device: HostDevice) -> None:
    source = SharedWeights(SyntheticWeights(CONFIGS["tiny"]))
    first, again, wide = (
        source.put(device, "img_in.weight", (64, 64), kind) for kind in ("bfloat16",) * 2 + ("float32",)
    )
    assert first is again
    assert torch.equal(as_torch(device, first).float(), as_torch(device, wide))


def test_the_reference_is_the_model_in_float32(pair: Pair) -> None:
    whole, given = built(pair.config), inputs(pair.config, CASE)
    whole.load_state_dict(pair.model.state_dict())
    time = torch.full((CASE.batch,), FAIR[1].sigma)
    expected = forward(whole, given, CASE, torch.from_numpy(given.latents), time, FAIR[1].guidance)
    error = relative_error(pair.theirs("float32", CASE, FAIR[1]), expected)
    assert error < 1e-6, "attention of PyTorch's choice instead of the plain one is all that differs"
    assert {x.dtype for x in pair.model.parameters()} == {torch.bfloat16}, "what was widened is narrow again"


def test_weights_are_narrow_again_after_a_failure(pair: Pair) -> None:
    with pytest.raises(RuntimeError), widened(pair.model):
        pair.model.x_embedder(torch.zeros(1, 1))
    assert {x.dtype for x in pair.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("rung", FLOAT32_RUNGS)
def test_a_float32_rung_is_diffusers_up_to_rounding(pair: Pair, rung: str) -> None:
    for finding in agreement.float32(pair, rung, CASE):
        assert finding.error <= finding.bound, finding


@pytest.mark.parametrize("rung", BFLOAT16_RUNGS)
def test_a_bfloat16_rung_is_as_close_as_diffusers_in_bfloat16(pair: Pair, rung: str) -> None:
    for finding in agreement.bfloat16(pair, rung, CASE):
        assert 0 < finding.error <= finding.bound, finding


@pytest.mark.parametrize(("first", "second"), [("fused", agreement.DIFFUSERS), ("tensorcore", "fused")])
def test_two_bfloat16_results_are_as_far_apart_as_their_errors_put_them(pair: Pair, first: str, second: str) -> None:
    for finding in agreement.apart(pair, first, second, CASE):
        assert 0 < finding.error <= finding.bound, finding
        assert finding.row(pair)["subject"] == f"{first} - {second}"


def test_a_record_of_findings_is_json_and_says_where_it_is_from(pair: Pair) -> None:
    findings = list(agreement.bfloat16(pair, "tensorcore", CASE))
    made = agreement.record([finding.row(pair) for finding in [*findings, *findings]], {})
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert len(made["rows"]) == len(findings) == 2 * len(FAIR)
    assert [row["bound"] is None for row in made["rows"]] == [True, False] * len(FAIR)
    assert {"torch", "diffusers"} <= made["versions"].keys()


def test_an_exchange_of_final_shift_and_scale_exceeds_the_bound() -> None:
    pair = Pair(CONFIGS["tiny"], HostDevice())
    before = pair.theirs("float32", CASE, FAIR[1])
    linear = pair.model.norm_out.linear
    linear.weight.data = torch.cat(linear.weight.data.chunk(2)[::-1])
    pair._known.clear()
    assert relative_error(pair.theirs("float32", CASE, FAIR[1]), before) > 100 * FLOAT32_BOUND
