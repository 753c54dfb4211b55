"""diffusers on fluxperf's weights, in both precisions and both loops."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the peer is made of PyTorch (the test extra)")
pytest.importorskip("diffusers", reason="the peer is diffusers (the test extra)")

import torch

from benchmarks.peers import diffusers as torch_peer
from benchmarks.quality import peer
from benchmarks.quality.asked import PEERS
from benchmarks.quality.figures import Figures, compared
from benchmarks.quality.runs import Ours, references
from fluxperf.engine.checkpoints.sources import SharedWeights, SyntheticWeights
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.device.host import HostDevice
from fluxperf.workloads import placed, workload_named
from tests.quality.conftest import SOURCE

pytestmark = pytest.mark.peer


def of_form(name: str, expected, source=SOURCE) -> Figures:
    form, device = peer.FORMS[name], HostDevice()
    with peer.opened(form.e4m3, SharedWeights(source), device) as model:
        return compared(peer.Theirs(model, form.exact, device), expected)


def largest(figures: Figures) -> float:
    return max(map(max, figures.forward))


def test_forms_are_those_that_the_command_knows() -> None:
    assert tuple(peer.FORMS) == PEERS
    assert all(peer.obstacle(e4m3, HostDevice()) is None for e4m3 in (False, True))


def test_the_peer_is_as_far_off_as_we_are(expected, of_rung, measure) -> None:
    for name, rung in (("diffusers-exact", "fused"), ("diffusers-fp8-exact", "fp8")):
        theirs, ours = of_form(name, expected), of_rung(rung)
        measure("quality, ours over theirs", rung, largest(ours) / largest(theirs))
        assert largest(ours) < 1.1 * largest(theirs)
        assert largest(ours) > 0.5 * largest(theirs)
        assert max(ours.latents[0]) < 1.1 * max(theirs.latents[0])


def test_rounded_timesteps_cost_more_than_anything_else(expected) -> None:
    """The levels are 1, 3/4, 1/2, 1/4: of 1000, 750, 500 and 250, bfloat16 represents all but 750."""
    exact, rounded = of_form("diffusers-exact", expected), of_form("diffusers", expected)
    for plain, worse in zip(exact.forward, rounded.forward, strict=True):
        assert [worse[step] for step in (0, 2, 3)] == [plain[step] for step in (0, 2, 3)]
        assert worse[1] > 5 * plain[1]


def test_a_guidance_is_given_to_models_that_embed_it() -> None:
    config, workload = CONFIGS["tiny-dev"], workload_named("tiny-dev", steps=2)
    source, device = SyntheticWeights(config), HostDevice()
    expected = references("batched", source, HostDevice(), workload, 1)
    rung = placed("fused", source, device)
    ours = compared(Ours(device, rung.sampler, rung), expected)
    theirs = of_form("diffusers-exact", expected, source)
    assert 0.5 * largest(theirs) < largest(ours) < 1.1 * largest(theirs)


def test_other_weights_are_seen(expected) -> None:
    assert largest(of_form("diffusers-exact", expected, SyntheticWeights(CONFIGS["tiny"], seed=1))) > 0.5


def test_products_without_their_scale_are_seen(expected, monkeypatch) -> None:
    right = torch_peer.quantized

    def wrong(x):
        numbers, scale = right(x)
        return numbers, torch.full_like(scale, float(scale.mean()))

    monkeypatch.setattr(torch_peer, "quantized", wrong)
    assert largest(of_form("diffusers-fp8-exact", expected)) > 0.03


def test_its_memory_is_given_back_whoever_names_it() -> None:
    shared, device = SharedWeights(SOURCE), HostDevice()
    with peer.opened(True, shared, device) as model:
        assert {x.device.type for x in model.state_dict().values()} == {"cpu"}
    assert {x.device.type for x in model.state_dict().values()} == {"meta"}


def test_a_product_that_does_not_run_is_an_obstacle(monkeypatch) -> None:
    def refuse(*_, **__):
        raise RuntimeError("needs compute capability 8.9\nand more")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    assert peer.obstacle(False, HostDevice()) is None
    said = peer.obstacle(True, HostDevice())
    assert said == "torch._scaled_mm does not run here: needs compute capability 8.9"
