"""The oracle as a whole model against diffusers in float64: compares the mathematics, independent of rounding."""

from __future__ import annotations

import pytest

from tests.model.rung_runs import FAIR, Case, Moment, inputs, relative_error, scheduled

pytestmark = pytest.mark.peer

CASES = (Case(1, 77, 4, 4), Case(2, 13, 4, 6))
#: Of a model in float64, diffusers computes three things in float32: the angles of the timestep features, the RoPE
#: tables, and the rotation of Q and K. At t = 0 and g = 0 the features are exact (cos 0, sin 0), which leaves RoPE:
#: rounding of Q and K to 2^-24 = 6e-8, diluted by softmax and gates. At t > 0 angles of up to 1000 (4000 for guidance)
#: are rounded by up to 2^-15 (2^-13), and the features are off by as much. The features' frequencies are float32 too,
#: but numbers that the models were trained with: the oracle has the same.
ROPE_BOUND = 1e-8
FEATURES_BOUND = 1e-5
#: With those three in float64, only the order of float64 sums differs: 2^-53 = 1e-16, times depth and width.
FLOAT64_BOUND = 1e-14

START = Moment((0.0, 0.0), 0, 0.0)

everywhere = pytest.mark.parametrize(
    ("model", "case"), [(model, case) for model in ("schnell", "dev") for case in CASES], ids=str
)


def _error(peers, rung_of, model, case, moment, layout="folder"):
    bound = rung_of("oracle", model, layout)
    reference = peers[model].velocity("float64", case, moment.sigma, moment.guidance)
    return relative_error(bound.velocity(inputs(bound.config, case), case, moment), reference)


@pytest.fixture
def float64_throughout(peers):
    """diffusers without its float32 parts, and without cached results."""
    from tests.model.diffusers_peer import without_float32_islands

    def forget():
        for peer in peers.values():
            peer.forget()

    forget()
    with without_float32_islands():
        yield
    forget()


@everywhere
@pytest.mark.parametrize("layout", ["folder", "original"])
def test_equals_diffusers_without_its_float32_parts(float64_throughout, peers, rung_of, measure, model, case, layout):
    for moment in (*FAIR, scheduled(peers[model].config, case)):
        error = _error(peers, rung_of, model, case, moment, layout)
        measure("float64 error, no float32 parts", model, error)
        assert error <= FLOAT64_BOUND, moment


@everywhere
def test_equals_diffusers_up_to_its_float32_rotations(peers, rung_of, measure, model, case):
    error = _error(peers, rung_of, model, case, START)
    measure("float64 error, t = g = 0", model, error)
    assert error <= ROPE_BOUND


@everywhere
def test_equals_diffusers_up_to_its_float32_timestep_features(peers, rung_of, measure, model, case):
    for moment in (*FAIR, scheduled(peers[model].config, case)):
        error = _error(peers, rung_of, model, case, moment)
        measure("float64 error, as published", model, error)
        assert error <= FEATURES_BOUND, moment
