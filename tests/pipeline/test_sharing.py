"""One pipeline, many callers: threads take turns, and memory does not grow over many calls."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from fluxperf.errors import ConfigError

pytestmark = pytest.mark.peer

SMALL = {"height": 16, "width": 16, "num_inference_steps": 1, "output_type": "np", "seed": 1}


def in_threads(count, work):
    """Runs ``work(number)`` in threads; raises the exception of any thread."""
    errors = []

    def run(number):
        try:
            work(number)
        except (Exception, AssertionError) as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.filterwarnings("ignore:T5 takes")
def test_threads_get_the_pictures_that_they_asked_for(pipeline_of):
    pipeline = pipeline_of("schnell", "batched", cache_prompts=0)
    asked = [(prompt, tokens) for prompt in ("a red fox " * 8, "x") for tokens in (24, 77)]
    right = {one: pipeline(one[0], max_sequence_length=one[1], **SMALL).images for one in asked}

    def work(number):
        for turn in range(4):
            one = asked[(number + turn) % len(asked)]
            assert np.array_equal(pipeline(one[0], max_sequence_length=one[1], **SMALL).images, right[one])

    in_threads(8, work)


def test_a_call_works_on_its_device_whatever_the_thread(pipeline_of, monkeypatch):
    """The current stream of a GPU is a property of the thread, so a thread that did not load the
    pipeline has another.
    """
    pipeline = pipeline_of("schnell", "batched", cache_prompts=0)
    where, made_in = [], []

    @contextmanager
    def working():
        where.append(threading.get_ident())
        yield
        where.pop()

    real = pipeline.generation.batch

    def batch(*arguments, **options):
        made_in.append(where == [threading.get_ident()])
        return real(*arguments, **options)

    monkeypatch.setattr(pipeline.parts.device, "working", working, raising=False)
    monkeypatch.setattr(pipeline.generation, "batch", batch)
    in_threads(3, lambda number: pipeline("x", max_sequence_length=8, **SMALL))
    assert made_in == [True] * 3


def test_calls_do_not_overlap(pipeline_of, monkeypatch):
    pipeline = pipeline_of("schnell", "batched", cache_prompts=0)
    inside, most = [], []
    real = pipeline.generation.batch

    def batch(*arguments, **options):
        inside.append(1)
        time.sleep(0)  # lets another thread run, if it may
        most.append(len(inside))
        try:
            return real(*arguments, **options)
        finally:
            most.append(len(inside))
            inside.pop()

    monkeypatch.setattr(pipeline.generation, "batch", batch)
    in_threads(4, lambda number: pipeline("x", max_sequence_length=8, **SMALL))
    assert len(most) == 8
    assert max(most) == 1


def test_a_call_from_its_own_step_is_refused(pipeline_of):
    pipeline = pipeline_of("schnell", "batched", cache_prompts=0)
    again = lambda step, seconds: pipeline("y", max_sequence_length=8, **SMALL)  # noqa: E731
    with pytest.raises(ConfigError, match="expected on_step not to call its own pipeline"):
        pipeline("x", max_sequence_length=8, on_step=again, **SMALL)
    pipeline("x", max_sequence_length=8, **SMALL)


def test_the_ledger_of_a_long_life_is_short(pipeline_of, monkeypatch):
    from fluxperf.pipeline import text_to_image

    monkeypatch.setattr(text_to_image, "_CROSSINGS", 5)
    pipeline = pipeline_of("schnell", "batched", cache_prompts=0)
    for _ in range(4):
        made = pipeline("x", max_sequence_length=8, **SMALL)
        assert sum(stage.h2d_copies for stage in made.stages) == 2
    assert len(pipeline.parts.device.door.ledger.crossings) <= 5 + 3


def test_a_closed_pipeline_says_so(saved):
    from fluxperf import Pipeline

    pipeline = Pipeline.from_pretrained(saved["schnell"].folder, rung="batched", device="host", text_encoders=False)
    pipeline.close()
    pipeline.close()
    with pytest.raises(ConfigError, match="got one that was closed"):
        pipeline("x", **SMALL)
