"""Attention plans: extents of a graph, cuDNN's candidate with the least time, and a clear error if none runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fluxperf.engine.device.choices import Choice, Choices, Trial
from fluxperf.engine.device.cudnn import _DESCALE_K, _DESCALE_Q, _DESCALE_V, _SCALE_O, Cudnn, Layout
from fluxperf.engine.ops.cuda.arrays import check_heads
from fluxperf.errors import ArgumentError, DeviceError

LAYOUT = Layout((1, 2, 16, 64), "bfloat16", *(((2048, 1024, 64, 1),) * 4), 16)
NAMES = ["first", "second", "third"]


class _Graph:
    """A graph whose candidates take the given seconds; ``None`` does not run, a missing one does not build."""

    def __init__(self, seconds: dict[int, float | None], names: list[str]) -> None:
        self.seconds, self.names, self.ran = seconds, names, [0]

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def get_plan_name_at_index(self, index: int) -> str:
        return self.names[index]

    def get_execution_plan_count(self) -> int:
        return len(self.names)

    def build_plan_at_index(self, index: int) -> None:
        if index not in self.seconds:
            raise RuntimeError("does not build")

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return 16

    def execute_plan_at_index(self, operands: Any, workspace: int, index: int, handle: Any) -> None:
        if self.seconds[index] is None:
            raise RuntimeError("does not run")
        self.ran.append(index)


def _attention(graph: _Graph, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cudnn:
    attention = object.__new__(Cudnn)
    attention._cudnn = SimpleNamespace(heur_mode=SimpleNamespace(A=0), backend_version=lambda: 91900)
    attention._device = SimpleNamespace(
        quiet=lambda: None, aside=nullcontext, choices_kept=Choices("gpu", folder), mark=lambda: 0,
        elapsed_s=lambda *_: graph.seconds[graph.ran[-1]],
        workspace=lambda nbytes: SimpleNamespace(data=SimpleNamespace(ptr=nbytes)),
    )  # fmt: skip
    attention._handle, attention._errors, attention._plans = 0, (RuntimeError,), {}
    monkeypatch.setattr(Cudnn, "_graph", lambda self, layout: graph)
    return attention


def test_the_candidate_that_takes_the_least_time_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = _Graph({1: 3.0, 2: 2.0}, NAMES)
    assert _attention(graph, tmp_path, monkeypatch)._planned(LAYOUT, {}).choice.candidate == 2
    again = _Graph({1: 3.0, 2: 2.0}, NAMES)
    plan = _attention(again, tmp_path, monkeypatch)._planned(LAYOUT, {})
    assert (plan.choice.candidate, again.ran) == (2, [0])


def test_a_stored_candidate_that_fails_to_build_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _attention(_Graph({1: 3.0, 2: 2.0}, NAMES), tmp_path, monkeypatch)._planned(LAYOUT, {})
    plan = _attention(_Graph({0: 4.0, 1: 3.0}, NAMES), tmp_path, monkeypatch)._planned(LAYOUT, {})
    assert plan.choice.candidate == 1


@pytest.mark.parametrize("seconds", [{}, {0: None, 2: None}])
@pytest.mark.parametrize("names", [NAMES, []])
def test_where_none_runs_nothing_is_kept(
    seconds: dict[int, None], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = _attention(_Graph(dict(seconds), names), tmp_path, monkeypatch)
    with pytest.raises(DeviceError, match=f"none of {len(names)} candidates runs"):
        attention._planned(LAYOUT, {})
    assert not attention.choices
    assert not list(tmp_path.iterdir())


def test_values_are_dequantized_in_units_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By 1 where the result has V's scale, else by what the caller gives."""
    graph = _Graph({0: 1.0}, NAMES[:1])
    attention, given = _attention(graph, tmp_path, monkeypatch), []
    attention._cudnn.set_stream, attention._stream = lambda *_: None, None
    attention._device.stream, attention._device.launches = SimpleNamespace(ptr=0), 0
    attention.__dict__["_numbers"] = (100, 104, 108)
    monkeypatch.setattr(graph, "execute_plan_at_index", lambda operands, *_: given.append(operands))
    graph.ran.append(0)
    for scales in ((20, 24), (20, 24, 28)):
        attention.attention(LAYOUT, 1, 2, 3, 4, scales)
        found = given[-1]
        assert [found[uid] for uid in (_DESCALE_Q, _DESCALE_K)] == [20, 24]
        assert (found[_DESCALE_V], found[_SCALE_O]) == ([100, 28][len(scales) - 2], 100)
    assert attention._device.launches == 2


def test_a_choice_of_infinite_time_is_none(tmp_path: Path) -> None:
    Choices("gpu", tmp_path).keep("what", NAMES, Choice(1, (1.0, float("inf"), 2.0)))
    assert Choices("gpu", tmp_path).find("what", NAMES) is None


class _Recorder:
    """Keeps the tensors of a graph by name, and takes every other call."""

    def __init__(self) -> None:
        self.extents: dict[str, list[int]] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self

    def __iter__(self) -> Any:
        return iter((self, self, self, self))

    def tensor(self, name: str, dim: list[int], **_: Any) -> _Recorder:
        self.extents[name] = dim
        return self

    def sdpa(self, **_: Any) -> tuple[_Recorder, None]:
        return self, None

    def set_dim(self, dim: list[int]) -> _Recorder:
        self.extents["o"] = dim
        return self


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn"])
def test_keys_and_values_have_a_length_of_their_own(dtype: str) -> None:
    graph, attention = _Recorder(), object.__new__(Cudnn)
    names: Any = SimpleNamespace(BFLOAT16=0, FP8_E4M3=1, FLOAT=2)
    attention._cudnn, attention._handle = SimpleNamespace(data_type=names, pygraph=lambda **_: graph), 0
    attention._graph(LAYOUT._replace(dtype=dtype, keys=21))
    found = {name: graph.extents[name] for name in "qkvo"}
    assert found == {"q": [1, 2, 16, 64], "k": [1, 2, 21, 64], "v": [1, 2, 21, 64], "o": [1, 2, 16, 64]}


def test_as_many_keys_as_queries_keep_the_name_of_their_choice() -> None:
    assert LAYOUT.name == "(1, 2, 16, 64) bfloat16" + 4 * " (2048, 1024, 64, 1)"
    assert LAYOUT._replace(keys=21).name == f"{LAYOUT.name} 21"
    trial = Trial("attention", "bfloat16", LAYOUT.shape, Choice(0, (1.0,)), keys=LAYOUT.keys)
    assert trial.what == "attention 1 x 2 x 16 x 64 bfloat16"
    assert trial._replace(keys=21).what == "attention 1 x 2 x 16 x 64 bfloat16, 21 keys"


def _heads(*shape: int) -> Any:
    return np.zeros(shape, np.uint8)


def test_queries_may_be_fewer_than_keys_and_nothing_else_may_differ() -> None:
    q, k = _heads(2, 3, 4, 8), _heads(2, 3, 7, 8)
    check_heads(q, k, k, None)
    check_heads(q, k, k, _heads(2, 4, 24))
    for wrong in (
        (q, k, _heads(2, 3, 6, 8)), (q, _heads(2, 3, 7, 9), _heads(2, 3, 7, 9)), (q[0], k[0], k[0]),
        (q, _heads(1, 3, 7, 8), _heads(1, 3, 7, 8)), (q, _heads(2, 1, 7, 8), _heads(2, 1, 7, 8)),
    ):  # fmt: skip
        with pytest.raises(ArgumentError, match=r"expected q \[B, H, N, d\], and k and v of one shape \[B, H, L, d\]"):
            check_heads(*wrong, None)
    with pytest.raises(ArgumentError, match=r"expected out \[B, N, H d\] = \[2, 4, 24\]"):
        check_heads(q, k, k, _heads(2, 7, 24))
