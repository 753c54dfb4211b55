"""Ways to compute an op: which one a trial chooses, what it measures, and how long it heats the card."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fluxperf.engine.device import choices
from fluxperf.engine.device.choices import Choices, Ways


def ticking(tmp_path: Path) -> Any:
    """A device on which work takes the seconds that it states."""
    on = SimpleNamespace(
        now=0.0, launches=5, choices_kept=Choices("gpu", tmp_path), quiet=lambda: None, aside=nullcontext
    )
    on.occupy = lambda: None
    on.mark = lambda: on.now
    on.elapsed_s = lambda start, end: end - start
    on.trial = nullcontext
    return on


def test_the_quickest_way_is_tried_once_and_kept(tmp_path: Path) -> None:
    ran: list[str] = []

    def ways(on: Any, **seconds: float) -> dict[str, Any]:
        def work(name: str) -> str:
            ran.append(name)
            on.now += seconds[name]
            on.launches += 1
            return name

        return {name: lambda name=name: work(name) for name in seconds}

    on = ticking(tmp_path)
    made, times = Ways(on), {"library": 3.0, "tiles": 2.0, "wide": 9.0}
    assert made.run("op 1 x 2 x 3", ways(on, **times), "v1") == "tiles"
    assert set(ran) == set(times)
    assert on.launches == 6  # trials apart
    ran.clear()
    assert made.run("op 1 x 2 x 3", ways(on, **times), "v1") == "tiles"
    assert ran == ["tiles"]
    name, choice = made.chosen["op 1 x 2 x 3"]
    assert (name, choice.candidate, len(choice.times_s)) == ("tiles", 1, 3)
    # Another process finds it; other kernels, or a library that has become quicker, are tried anew.
    later = ticking(tmp_path)
    ran.clear()
    assert Ways(later).run("op 1 x 2 x 3", ways(later, **times), "v1") == "tiles"
    assert ran == ["tiles"]
    assert Ways(later).run("op 1 x 2 x 3", ways(later, library=1.0, tiles=2.0, wide=9.0), "v2") == "library"
    assert len(ran) > 3
    ran.clear()
    assert Ways(ticking(tmp_path)).run("op 1 x 2 x 3", ways(later, **times), "v1") == "tiles"
    assert ran == ["tiles"], "choices of both versions are kept, as two checkouts take turns"


@pytest.mark.parametrize(("seconds", "ran"), [(1.0, ["library"]), (2.5, ["tiles"])])
def test_a_way_that_may_run_once_is_replaced_in_trials(seconds: float, ran: list[str], tmp_path: Path) -> None:
    on, done, tried = ticking(tmp_path), [], []

    def work(name: str, times: float, note: list[str]) -> str:
        on.now += times
        note.append(name)
        return name

    ways = {"library": partial(work, "library", 99.0, done), "tiles": partial(work, "tiles", 2.0, done)}
    in_trials = {"library": partial(work, "library", seconds, tried)}
    assert Ways(on).run("op 1 x 2 x 3", ways, "v1", in_trials) == ran[0]
    assert [name for name in done if name == "library"] == [name for name in ran if name == "library"]
    assert len(tried) > 3


@pytest.mark.parametrize(("tiles", "taken"), [(1.01, "tiles"), (1.03, "library")])
def test_a_tie_is_not_the_librarys(tiles: float, taken: str, tmp_path: Path) -> None:
    on = ticking(tmp_path)

    def work(name: str) -> str:
        on.now += {"library": 1e-3, "tiles": tiles * 1e-3, "wide": 1.02e-3}[name]
        return name

    ways = {name: partial(work, name) for name in ("library", "wide", "tiles")}
    assert Ways(on).run("op 4 x 5 x 6", ways, "v1") == taken


def test_what_was_too_slow_to_be_tried_is_no_tie(tmp_path: Path) -> None:
    """The library takes longer in its turns than in the single run that excluded the others."""
    on, ran = ticking(tmp_path), []

    def work(name: str) -> str:
        ran.append(name)
        on.now += {"library": 1e-3 if len(ran) < 5 else 3e-3, "tiles": 2e-3}[name]
        return name

    ways = {name: partial(work, name) for name in ("library", "tiles")}
    made = Ways(on)
    assert made.run("op 4 x 5 x 6", ways, "v1") == "library"
    library, tiles = made.chosen["op 4 x 5 x 6"][1].times_s
    assert tiles > 1.2 * library


def test_a_single_way_is_not_tried(tmp_path: Path) -> None:
    on = ticking(tmp_path)
    made = Ways(on)
    assert made.run("op", {"library": lambda: "done"}, "v1") == "done"
    assert made.chosen == {}
    assert choices.Choices("gpu", tmp_path).find("op", ["library v1"]) is None


def test_ways_are_judged_on_a_hot_card(tmp_path: Path) -> None:
    """The library is quicker for the first half second, and slower from then on."""
    on = ticking(tmp_path)

    def work(name: str) -> str:
        cool = on.now < 0.5
        on.now += {"library": 1e-3 if cool else 1.2e-3, "tiles": 1.1e-3}[name]
        return name

    ways = {name: partial(work, name) for name in ("library", "tiles")}
    assert Ways(on).run("op 4 x 5 x 6", ways, "v1") == "tiles"
    assert on.now < 3  # seconds of the first start, per shape


def test_trials_in_a_row_share_the_heat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one warms the card up; the next one only for as long as the card has rested."""
    on = ticking(tmp_path)
    monkeypatch.setattr(choices.time, "monotonic", lambda: on.now)
    made, took = Ways(on), []

    def work(name: str) -> str:
        on.now += {"library": 1e-3, "tiles": 1.1e-3}[name]
        return name

    for rest_s in (0.0, 0.01, 0.3, 60.0):
        on.now += rest_s
        start = on.now
        made.run(f"op {rest_s}", {name: partial(work, name) for name in ("library", "tiles")}, "v1")
        took.append(on.now - start)
    first, at_once, soon, late = took
    assert first == pytest.approx(late, abs=0.05)
    assert first - at_once > 0.5
    assert first - soon > 0.2
    assert soon - at_once > 0.2
