"""Host-device copies, counted: the published pattern in the baseline, none in any other rung."""

from __future__ import annotations

from collections import Counter

import pytest

from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import CONFIGS
from fluxperf.engine.device.observers import LedgerScopes
from fluxperf.engine.model.schedule import sigmas
from fluxperf.errors import TransferError
from tests.model.rung_runs import RUNGS, Case, Rung, inputs

CASE = Case(1, 7, 2, 3)
#: Copies down and up by section, read from the published implementation's source (see `fluxperf.engine.ops.roundtrip`).
DOUBLE, SINGLE, EMBED, FINAL = (38, 28), (17, 11), (2, 2), (4, 3)
FORWARDS = {"tiny": (116, 83), "tiny-dev": (117, 84), "tiny-57": (1374, 955)}

#: Copies of a block: label, number down, number up.
DOUBLE_LABELS = {
    "split_modulation": (2, 8),
    "layer_norm": (4, 6),
    "modulate": (8, 4),
    "concat_tokens": (6, 3),
    "apply_rope": (6, 2),
    "scale": (1, 1),
    "split_tokens": (1, 2),
    "gated_residual": (10, 0),
    "double": (0, 2),
}
SINGLE_LABELS = {
    "concat_tokens": (2, 0),
    "split_modulation": (1, 1),
    "layer_norm": (1, 2),
    "modulate": (1, 1),
    "apply_rope": (6, 2),
    "scale": (1, 1),
    "linear_gelu": (1, 1),
    "join_features": (2, 1),
    "gated_residual": (2, 0),
    "split_tokens": (0, 2),
}


def _observed(name, model):
    return Rung(name, SyntheticWeights(CONFIGS[model]), lambda device: [LedgerScopes(device.door.ledger)])


def _ready(rung, case, steps=4):
    """A request and latents on the device, and the ledger's length after them."""
    given = inputs(rung.config, case)
    request = rung.request(given, case, sigmas(steps, case.image_tokens, rung.config.guidance), 3.5)
    return request, rung.upload(given.latents), len(rung.device.door.ledger.crossings)


def _forward(model, case=CASE, step=0):
    """Crossings of one forward of the baseline."""
    rung = _observed("baseline", model)
    request, latents, _ = _ready(rung, case)
    forwards = rung.sampler.begin(request)
    since = len(rung.device.door.ledger.crossings)
    forwards.velocity(latents, step)
    return rung.device.door.ledger.crossings[since:]


def _down_and_up(crossings):
    counts = Counter(crossing.direction for crossing in crossings)
    return counts["d2h"], counts["h2d"]


def _by(crossings, key):
    groups = {}
    for crossing in crossings:
        groups.setdefault(key(crossing), []).append(crossing)
    return {name: _down_and_up(group) for name, group in groups.items()}


@pytest.mark.parametrize("model", FORWARDS)
def test_a_baseline_forward_copies_as_the_published_one(model):
    assert _down_and_up(_forward(model)) == FORWARDS[model]


@pytest.mark.parametrize("model", FORWARDS)
def test_every_block_copies_the_same(model):
    config = CONFIGS[model]
    guided = (EMBED[0] + 1, EMBED[1] + 1) if config.guidance else EMBED
    expected = {("embed", 0): guided, ("final", 0): FINAL}
    expected |= {("double", index): DOUBLE for index in range(config.double_blocks)}
    expected |= {("single", index): SINGLE for index in range(config.single_blocks)}
    assert _by(_forward(model), lambda crossing: (crossing.section, crossing.index)) == expected


@pytest.mark.parametrize(("section", "expected"), [("double", DOUBLE_LABELS), ("single", SINGLE_LABELS)])
@pytest.mark.parametrize("index", [0, 1])
def test_labels_say_what_a_block_moves(section, expected, index):
    block = [crossing for crossing in _forward("tiny") if (crossing.section, crossing.index) == (section, index)]
    assert _by(block, lambda crossing: crossing.label.partition(".")[0]) == expected
    assert all(crossing.op in (crossing.label.partition(".")[0], "") for crossing in block)


@pytest.mark.parametrize("section", ["double", "single"])
def test_the_largest_copy_is_the_matrix_of_scores(section):
    heads, tokens = CONFIGS["tiny"].heads, CASE.text_tokens + CASE.image_tokens
    block = [crossing for crossing in _forward("tiny") if crossing.section == section]
    scores = [crossing.bytes for crossing in block if crossing.label.startswith("scale.")]
    assert scores == [4 * heads * tokens**2] * 4


@pytest.mark.parametrize("case", [Case(1, 7, 4, 4), Case(1, 64, 2, 3), Case(2, 7, 2, 3), Case(3, 1, 1, 1)], ids=str)
def test_counts_do_not_depend_on_the_request(case):
    assert _down_and_up(_forward("tiny", case)) == FORWARDS["tiny"]


@pytest.mark.parametrize(("model", "step"), [("tiny", 0), ("tiny", 1), ("tiny-dev", 2)])
def test_every_step_of_a_denoising_copies_the_same(model, step):
    rung = _observed("baseline", model)
    request, latents, since = _ready(rung, CASE)
    ledger, marks = rung.device.door.ledger, [since]
    rung.sampler.denoise(latents, request, lambda _: marks.append(len(ledger.crossings)))
    crossings = ledger.crossings[marks[step] : marks[step + 1]]
    forward = [crossing for crossing in crossings if crossing.section != "loop"]
    assert _down_and_up(forward) == FORWARDS[model]
    # The Euler step: latents and velocity down, the result up.
    assert _down_and_up(crossing for crossing in crossings if crossing.section == "loop") == (2, 1)


def test_crossings_are_synchronizations_on_the_way_down():
    rung = _observed("baseline", "tiny")
    request, latents, _ = _ready(rung, CASE)
    before = rung.device.door.ledger.syncs
    rung.sampler.begin(request).velocity(latents, 0)
    assert rung.device.door.ledger.syncs - before == FORWARDS["tiny"][0]


@pytest.mark.parametrize("model", ["tiny", "tiny-dev"])
@pytest.mark.parametrize("rung", RUNGS[1:])
def test_no_other_rung_copies(rung, model):
    made = _observed(rung, model)
    request, latents, since = _ready(made, CASE)
    with made.device.door.sealed():
        made.model.rope(CASE.text_tokens, CASE.rows, CASE.columns)
        made.sampler.begin(request).velocity(latents, 0)
        made.sampler.denoise(latents, request)
    assert made.device.door.ledger.crossings[since:] == []


@pytest.mark.parametrize("rung", RUNGS[1:])
def test_depth_does_not_bring_copies(rung):
    made = _observed(rung, "tiny-57")
    request, latents, since = _ready(made, CASE, steps=1)
    with made.device.door.sealed():
        made.sampler.denoise(latents, request)
    assert len(made.device.door.ledger.crossings) == since


def test_the_seal_stops_the_baseline_and_names_the_place():
    made = _observed("baseline", "tiny")
    request, latents, _ = _ready(made, CASE)
    with made.device.door.sealed("a forward"), pytest.raises(TransferError, match=r"sealed \(a forward\)") as caught:
        made.sampler.denoise(latents, request)
    assert "timestep_embedding" in str(caught.value)
    made.sampler.denoise(latents, request)
