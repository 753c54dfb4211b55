"""The oracle itself, against values from other sources: by hand, by SciPy, or from a known property."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from scipy import special

from fluxperf.engine.ops import reference as ref

NUMBERS = st.floats(-20, 20, allow_nan=False, width=32)
ROWS = hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6), elements=NUMBERS)
RNG = np.random.default_rng(1)


def test_layer_norm_by_hand() -> None:
    assert_allclose(ref.layer_norm(np.array([[1.0, 2.0, 3.0]]), eps=0), [[-math.sqrt(1.5), 0, math.sqrt(1.5)]])
    assert_allclose(ref.layer_norm(np.array([[1.0, 3.0]]), eps=3.0), [[-0.5, 0.5]])
    assert_allclose(ref.layer_norm(np.full((1, 4), 7.0)), np.zeros((1, 4)))


@given(ROWS)
def test_layer_norm_leaves_mean_zero(x: np.ndarray) -> None:
    assert_allclose(ref.layer_norm(x).mean(-1), 0, atol=1e-9)
    assert (ref.layer_norm(x).var(-1) <= 1 + 1e-12).all()


def test_modulate_and_gated_residual_by_hand() -> None:
    x = np.array([[[1.0, 2.0]], [[3.0, 4.0]]])
    scale, shift = np.array([[0.0, 1.0], [2.0, 0.5]]), np.array([[10.0, 20.0], [30.0, 40.0]])
    assert_allclose(ref.modulate(x, scale, shift), [[[11, 24]], [[39, 46]]])
    assert_allclose(ref.gated_residual(x, scale, x), [[[1, 4]], [[9, 6]]])
    assert_allclose(ref.norm_modulate(np.array([[[1.0, 3.0]]]), shift[:1], scale[:1]), [[[9, 22]]], rtol=1e-5)


def test_rms_norm_by_hand() -> None:
    assert_allclose(ref.rms_norm(np.array([[3.0, 4.0]]), np.array([1.0, 2.0]), eps=0), [[3 / 12.5**0.5, 8 / 12.5**0.5]])
    assert_allclose(ref.rms_norm(np.array([[0.0, 2.0]]), np.ones(2), eps=2.0), [[0, 1]])


@given(ROWS)
def test_softmax_as_in_scipy(x: np.ndarray) -> None:
    assert_allclose(ref.softmax(x), special.softmax(x, axis=-1), rtol=1e-12)
    assert_allclose(ref.softmax(x).sum(-1), 1)


def test_gelu_known_values() -> None:
    assert ref.gelu(np.array([0.0]))[0] == 0
    assert_allclose(ref.gelu(np.array([1.0, -1.0, 3.0])), [0.8411919906082768, -0.15880800939172324, 2.996362607918227])
    x = RNG.standard_normal(100)
    assert_allclose(ref.gelu(x) - ref.gelu(-x), x, rtol=1e-12)
    assert_allclose(ref.gelu(x), x * special.ndtr(x), atol=5e-4)


def test_silu_known_values() -> None:
    assert_allclose(ref.silu(np.array([0.0, 1.0, -1.0])), [0, 0.7310585786300049, -0.2689414213699951])
    x = RNG.standard_normal(50)
    assert_allclose(ref.silu(x), x * special.expit(x), rtol=1e-12)


def test_products_by_hand() -> None:
    weight = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    x, bias = np.array([[[1.0, -1.0]]]), np.array([1.0, 0.0, -1.0])
    assert_allclose(ref.linear(x, weight), [[[-1, -1, -1]]])
    assert_allclose(ref.linear(x, weight, bias), [[[0, -1, -2]]])
    assert_allclose(ref.silu_linear(np.zeros((1, 2)), weight, bias), [bias])
    assert_allclose(ref.linear_gelu(x, weight, np.ones(3)), np.zeros((1, 1, 3)), atol=1e-15)
    assert_allclose(ref.linear_gated_residual(x, np.array([[2.0, 0.0]]), x, weight[:2], bias[:2]), [[[1, -1]]])
    a, b = RNG.standard_normal((2, 3, 4, 5)), RNG.standard_normal((2, 3, 5, 6))
    assert_allclose(ref.batched_matmul(a, b), a @ b, rtol=1e-10)


def _table(tokens: int = 6) -> tuple[np.ndarray, np.ndarray]:
    return ref.rope_table(tokens, 2, 3, (2, 4, 4), 10_000.0)


def test_rope_table_of_known_positions() -> None:
    cos, sin = _table()
    assert cos.shape == sin.shape == (12, 10)
    assert_allclose(cos[:7], 1)  # text, and the first image token, at (0, 0, 0)
    assert_allclose(sin[:7], 0, atol=1e-15)
    # The last token is at row 1, column 2: the axis that is always 0, then frequencies 1 and 1/100 of each.
    angles = [0, 0, 1, 1, 0.01, 0.01, 2, 2, 0.02, 0.02]
    assert_allclose(cos[-1], np.cos(angles))
    assert_allclose(sin[-1], np.sin(angles))


def test_rope_keeps_the_norm_of_every_pair() -> None:
    cos, sin = _table()
    x = RNG.standard_normal((2, 12, 3, 10))
    turned = ref.apply_rope(x, cos, sin)
    assert_allclose(np.hypot(turned[..., 0::2], turned[..., 1::2]), np.hypot(x[..., 0::2], x[..., 1::2]))
    assert_allclose(turned[:, :7], x[:, :7])


def test_rope_turns_a_quarter_from_even_to_odd() -> None:
    assert_allclose(ref.apply_rope(np.array([[[[1.0, 2.0]]]]), np.zeros((1, 2)), np.ones((1, 2))), [[[[-2, 1]]]])


def test_rope_products_depend_on_distance_alone() -> None:
    cos, sin = ref.rope_table(0, 1, 9, (2, 4, 4), 10_000.0)
    q, k = (np.tile(RNG.standard_normal(10), (1, 9, 1, 1)) for _ in range(2))
    q, k = ref.apply_rope(q, cos, sin)[0, :, 0], ref.apply_rope(k, cos, sin)[0, :, 0]
    assert_allclose(q[2] @ k[5], q[4] @ k[7])
    assert abs(q[2] @ k[5] - q[2] @ k[6]) > 1e-3


def test_timestep_embedding_features() -> None:
    zero, one = ref.timestep_embedding((0.0, 1.0))
    assert_allclose(zero, [1.0] * 128 + [0.0] * 128)
    assert_allclose(one[[0, 128]], [math.cos(1000), math.sin(1000)])
    assert_allclose(one[127], math.cos(1000 * 10_000 ** (-127 / 128)), rtol=1e-7)  # frequencies are float32 numbers
    assert_allclose(one[:128] ** 2 + one[128:] ** 2, 1)


def test_attention_of_equal_keys_is_the_mean_of_values() -> None:
    q, v = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((2, 3, 5, 4))
    mean = v.mean(2).reshape(2, 1, 12)
    assert_allclose(ref.attention(q, np.ones_like(q), v), np.broadcast_to(mean, (2, 5, 12)))


def test_attention_picks_a_key_that_stands_out() -> None:
    q = 1e3 * np.eye(4).reshape(1, 1, 4, 4)
    v = RNG.standard_normal((1, 1, 4, 4))
    assert_allclose(ref.attention(q, np.roll(np.eye(4), 1, 0).reshape(1, 1, 4, 4), v), np.roll(v[0], -1, 1))


def test_attention_scales_by_the_root_of_the_head_dimension() -> None:
    q, k, v = np.array([[2.0] * 4]), np.array([[0.0] * 4, [1.0] * 4]), np.array([[0.0] * 4, [1.0] * 4])
    mixed = ref.attention(q[None, None], k[None, None], v[None, None])
    assert_allclose(mixed, np.full((1, 1, 4), special.expit(4.0)))


def test_qkv_heads_puts_every_number_in_its_place() -> None:
    """Two streams, two heads of two: V keeps its values, and Q and K are normalized pairs."""
    txt, img = np.arange(12.0).reshape(1, 1, 12), 12 + np.arange(24.0).reshape(1, 2, 12)
    ones, bias = np.ones(2), np.full(12, 0.5)
    still = np.ones((3, 2)), np.zeros((3, 2))
    q, k, v = ref.qkv_heads((txt, img), (bias, bias), (ones, ones), (2 * ones, ones), *still, 2)
    assert_allclose(v[0], [[[8.5, 9.5], [20.5, 21.5], [32.5, 33.5]], [[10.5, 11.5], [22.5, 23.5], [34.5, 35.5]]])
    assert_allclose(q[0, 1, 0], np.array([2.5, 3.5]) / math.sqrt((2.5**2 + 3.5**2) / 2), rtol=1e-6)
    assert_allclose(k[0, 0, 0], 2 * np.array([4.5, 5.5]) / math.sqrt((4.5**2 + 5.5**2) / 2), rtol=1e-6)


def test_moves_put_elements_where_they_belong() -> None:
    x = np.arange(12.0).reshape(1, 3, 4)
    assert [part.tolist() for part in ref.split_tokens(x, 1)] == [[[[0, 1, 2, 3]]], [[[4, 5, 6, 7], [8, 9, 10, 11]]]]
    assert ref.concat_tokens(x[:, 2:], x[:, :1]).tolist() == [[[8, 9, 10, 11], [0, 1, 2, 3]]]
    assert ref.join_features(x[:, :1], x[:, 2:]).tolist() == [[[0, 1, 2, 3, 8, 9, 10, 11]]]
    assert [part.tolist() for part in ref.split_modulation(x[0], 2)][1] == [[2, 3], [6, 7], [10, 11]]
    assert ref.transpose_heads(x.reshape(1, 3, 2, 2))[0, 1].tolist() == [[2, 3], [6, 7], [10, 11]]


@pytest.mark.parametrize("value", [0.1, -7.0])
def test_euler_step_by_hand(value: float) -> None:
    assert_allclose(ref.euler_step(np.full((1, 1, 1), 2.0), np.full((1, 1, 1), value), -0.5), 2 - value / 2)
