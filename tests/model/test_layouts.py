"""The tests' own converter between layouts, checked against diffusers; and that parity tests notice a changed model."""

from __future__ import annotations

import types

import numpy as np
import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from tests.model.error_bounds import FLOAT32_BOUND, FP8_BOUND
from tests.model.rung_runs import FAIR, Case, Rung, inputs, relative_error
from tests.model.weight_files import diffusers_shapes, original_layout, write_folder, write_tensors

pytestmark = pytest.mark.peer

MODELS = ("schnell", "dev")
CASE = Case(2, 77, 4, 6)


@pytest.mark.parametrize("model", MODELS)
def test_hand_written_names_are_those_of_diffusers(peers, model):
    assert diffusers_shapes(peers[model].sizes) == peers[model].named_shapes()


@pytest.mark.parametrize("model", MODELS)
def test_the_original_layout_is_what_diffusers_reads(peers, model):
    """diffusers' converter has FLUX.1's width as a constant, so the test replaces that number."""
    import torch
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers as published

    peer = peers[model]
    constants = tuple(peer.sizes.dim if value == 3072 else value for value in published.__code__.co_consts)
    assert constants != published.__code__.co_consts
    convert = types.FunctionType(published.__code__.replace(co_consts=constants), published.__globals__)
    original = {name: torch.from_numpy(x) for name, x in original_layout(peer.state, peer.sizes).items()}
    converted = convert(original)
    assert not original, "every tensor has a place in diffusers' layout"
    assert converted.keys() == peer.state.keys()
    assert all((converted[name].numpy() == x).all() for name, x in peer.state.items())


@pytest.mark.parametrize("layout", ["folder", "shards", "original", "original32"])
@pytest.mark.parametrize("model", MODELS)
def test_the_configuration_comes_from_the_files(peers, model, layout):
    assert Checkpoint(peers[model].layouts[layout]).config == peers[model].config


def test_a_pipeline_folder_and_a_single_file_of_a_folder_are_found_too(peers, tmp_path):
    peer = peers["schnell"]
    (tmp_path / "transformer").symlink_to(peer.layouts["shards"])
    assert Checkpoint(tmp_path).config == peer.config
    assert Checkpoint(next(peer.layouts["folder"].glob("*.safetensors"))).config == peer.config


def _swapped_halves(state, name):
    for kind in ("weight", "bias"):
        first, second = np.split(state[f"{name}.{kind}"], 2)
        state[f"{name}.{kind}"] = np.concatenate([second, first])


def _exchanged(state, first, second):
    for name in [name for name in state if name.startswith(first)]:
        other = second + name.removeprefix(first)
        state[name], state[other] = state[other], state[name]


#: Errors that a wrong reader of the original file would make.
MISTAKES = {
    "final shift and scale": lambda state: _swapped_halves(state, "final_layer.adaLN_modulation.1"),
    "attention and MLP modulation": lambda state: _swapped_halves(state, "double_blocks.0.img_mod.lin"),
    "text and image modulation": lambda state: _exchanged(state, "double_blocks.0.img_mod", "double_blocks.0.txt_mod"),
    "query and key norms": lambda state: _exchanged(state, "single_blocks.1.norm.query", "single_blocks.1.norm.key"),
    "order of double blocks": lambda state: _exchanged(state, "double_blocks.0.", "double_blocks.1."),
    "order of single blocks": lambda state: _exchanged(state, "single_blocks.0.", "single_blocks.1."),
    "time and guidance": lambda state: _exchanged(state, "time_in.", "guidance_in."),
    "one bias": lambda state: state.update({"img_in.bias": np.zeros_like(state["img_in.bias"])}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_changed_model_exceeds_the_bounds(peers, tmp_path, mistake):
    peer = peers["dev"]
    state = original_layout(peer.state, peer.sizes)
    MISTAKES[mistake](state)
    changed = Checkpoint(write_tensors(tmp_path / "changed.safetensors", state))
    reference = peer.velocity("float32", CASE, FAIR[1].sigma, FAIR[1].guidance)
    exact = relative_error(Rung("batched", changed).velocity(inputs(peer.config, CASE), CASE, FAIR[1]), reference)
    assert exact > 100 * FLOAT32_BOUND
    if mistake == "final shift and scale":
        rounded = Rung("fp8", changed).velocity(inputs(peer.config, CASE), CASE, FAIR[1])
        assert relative_error(rounded, reference) > 2 * FP8_BOUND


def test_exchanged_rows_and_columns_exceed_the_bound(peers, rung_of):
    bound, turned = rung_of("batched", "dev", "folder"), CASE._replace(rows=CASE.columns, columns=CASE.rows)
    reference = peers["dev"].velocity("float32", CASE, FAIR[1].sigma, FAIR[1].guidance)
    error = relative_error(bound.velocity(inputs(bound.config, CASE), turned, FAIR[1]), reference)
    assert error > 100 * FLOAT32_BOUND


def test_a_folder_written_by_hand_loads_as_the_one_of_diffusers(peers, rung_of, tmp_path):
    peer = peers["dev"]
    ours = Rung("batched", Checkpoint(write_folder(tmp_path, peer.state, peer.sizes)))
    given = inputs(peer.config, CASE)
    theirs = rung_of("batched", "dev", "folder")
    assert (ours.velocity(given, CASE, FAIR[0]) == theirs.velocity(given, CASE, FAIR[0])).all()
