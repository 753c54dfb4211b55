"""Trials of algorithms run aside: a recording that counts a first forward leaves their launches and copies out.

How many launches a trial has depends on times, so two processes of one revision would differ in an exact count.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluxperf.engine.device import cublaslt
from fluxperf.engine.device.choices import Choice, Ways
from fluxperf.engine.device.cuda import CudaDevice
from tests.pure import test_attention_plans as attentions
from tests.pure import test_choices as products
from tests.pure.test_ways import ticking


class Recording:
    """Counts work, except what is aside."""

    def __init__(self) -> None:
        self.counted = self.left_out = 0
        self._aside = False

    @contextmanager
    def aside(self) -> Iterator[None]:
        assert not self._aside
        self._aside = True
        yield
        self._aside = False

    def work(self) -> None:
        self.left_out += self._aside
        self.counted += not self._aside


def test_a_recording_has_one_run_of_an_op_that_was_tried_in_several_ways(tmp_path: Path) -> None:
    on, recording = ticking(tmp_path), Recording()
    on.aside = recording.aside

    def work(seconds: float) -> None:
        recording.work()
        on.now += seconds

    Ways(on).run("op", {"library": lambda: work(2.0), "tiles": lambda: work(1.0)}, "v1")
    assert recording.counted == 1
    assert recording.left_out > 3


def test_a_recording_has_no_candidate_of_a_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording()
    made, _ = products._products(tmp_path, products._Library(), monkeypatch)
    made._device.aside = recording.aside

    def tried(*_: Any) -> Choice:
        recording.work()
        return Choice(1, (3.0, 1.0, 2.0))

    monkeypatch.setattr(cublaslt, "tried", tried)
    made._planned(products.PRODUCT, 0, 0, 0, 0)
    assert (recording.counted, recording.left_out) == (0, 1)


def test_a_recording_has_no_candidate_of_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, recording = attentions._Graph({0: 3.0, 1: 2.0}, attentions.NAMES[:2]), Recording()
    made = attentions._attention(graph, tmp_path, monkeypatch)
    made._device.aside = recording.aside
    run = graph.execute_plan_at_index

    def execute(*args: Any) -> None:
        recording.work()
        run(*args)

    monkeypatch.setattr(graph, "execute_plan_at_index", execute)
    made._planned(attentions.LAYOUT, {})
    assert recording.counted == 0
    assert recording.left_out > 1


def test_a_record_tells_attention_of_image_queries_from_that_of_all() -> None:
    """As many image tokens as another model has tokens at all: the choice of one must not be shown for the other."""
    layouts = [attentions.LAYOUT, attentions.LAYOUT._replace(keys=21)]
    attention = SimpleNamespace(choices={layout: Choice(0, (1.0,)) for layout in layouts})
    device: Any = SimpleNamespace(attention=attention, ways=SimpleNamespace(chosen={}))
    assert len({trial.what for trial in CudaDevice.trials(device)}) == 2
