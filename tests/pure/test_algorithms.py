"""Two caches whose products take the same cycles and different joules: how algorithms are chosen and stored."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import algorithms
from benchmarks.algorithms import Taken, apart, problems, with_company, write_cache
from fluxperf.engine.cache import recall
from fluxperf.engine.device.choices import Choice, Choices
from fluxperf.engine.device.cublaslt import Product
from fluxperf.errors import DeviceError

PRODUCT = Product(4608, 3072, 15360, "bfloat16", "bfloat16", True, 15360, 15360, 3072)
KEY = f"cuBLASLt 130300 {' '.join(map(str, PRODUCT))}"
SMALL = f"cuBLASLt 130300 {' '.join(map(str, PRODUCT._replace(m=4)))}"
WAY = "linear_gated_residual 4608 x 3072 x 15360 bfloat16"


def taken(candidate: int, cycles: float, joules: float) -> Taken:
    return Taken(candidate, cycles, joules, 1e-3, 1.5e9)


def test_large_products_are_read_back_from_the_names_of_choices() -> None:
    known: dict[str, Any] = {
        KEY: [],
        SMALL: [],
        WAY: [],
        "cuDNN 9 attention": [],
        KEY.replace("bfloat16", "float32"): [],
    }
    assert problems(known) == [(KEY, PRODUCT)]
    batched = f"cuBLASLt 130300 {' '.join(map(str, PRODUCT._replace(batch=24)))}"
    assert problems({batched: []}) == []


def test_joules_differ_most_where_cycles_are_the_same_together() -> None:
    first = [taken(0, 1000.0, 0.10), taken(3, 1004.0, 0.13), taken(5, 1100.0, 0.50)]
    second = [taken(1, 1000.0, 0.20), taken(2, 996.0, 0.26)]
    assert apart([first, second]) == ([0, 1], [3, 2]), "one takes more cycles, the other as many fewer"
    assert apart([first]) == ([0], [0]), "of one product alone none are alike"
    opposite = [[taken(0, 1000.0, 0.1), taken(1, 1050.0, 0.5)], [taken(0, 1050.0, 0.1), taken(1, 1000.0, 0.5)]]
    assert apart(opposite) == ([0, 0], [0, 0]), "as many cycles together, by products that are too far apart"
    with_itself = [taken(4, 1000.0, 0.2)]
    assert apart([with_itself]) == ([4], [4])
    alike = [taken(4, 1000.0, 0.2), taken(6, 1000.1, 0.1)]
    assert apart([alike]) == ([6], [4])


#: Two products of which the hungry candidates take fewer cycles, more, or as many as the frugal ones.
MANY = [
    [taken(0, 1000.0, 0.10), taken(1, 1000.0, 0.13), taken(2, 990.0, 0.12), taken(3, 1010.0, 0.12)],
    [taken(0, 1000.0, 0.10), taken(1, 995.0, 0.11)],
]


def test_cycles_can_be_aimed_at() -> None:
    assert apart(MANY) == ([0, 0], [1, 0]), "the most joules at as many cycles"
    assert apart(MANY, -10.0, [0, 0]) == ([0, 0], [2, 0])
    assert apart(MANY, 10.0, [0, 0]) == ([0, 0], [3, 0])
    assert apart(MANY, -15.0, [0, 0]) == ([0, 0], [2, 1])
    assert apart(MANY, -400.0, [0, 0]) == ([0, 0], [2, 1]), "as near as can be"


@pytest.mark.parametrize(("beyond", "hungry"), [(0.0, [1, 0]), (10.0, [2, 0]), (-10.0, [3, 0]), (5.0, [1, 1])])
def test_a_pick_is_corrected_by_what_the_model_takes(beyond: float, hungry: list[int]) -> None:
    """Inside of the model the hungry candidates take other cycles than alone: the pick is the one that cancels that."""
    alone = {(0, 0): 0.0, (1, 0): 0.0, (2, 0): -10.0, (3, 0): 10.0, (1, 1): -5.0, (2, 1): -15.0, (3, 1): 5.0}
    ran: list[tuple[str, list[int]]] = []

    def cycles_with(name: str, chosen: list[int]) -> float:
        ran.append((name, chosen))
        return 10_000.0 + alone[tuple(chosen)] + (beyond if name == "hungry" else 0.0)

    assert algorithms.settled(MANY, cycles_with) == ([0, 0], hungry, pytest.approx(0.0, abs=1e-9))
    assert len({tuple(chosen) for name, chosen in ran if name == "hungry"}) == len(ran) - 1 <= 5, "none ran twice"


def test_the_nearest_pick_is_kept_where_none_settles() -> None:
    found = algorithms.settled(
        MANY, lambda name, chosen: 10_000.0 + 300.0 * (name == "hungry") - 10 * (chosen == [2, 1])
    )
    assert found == ([0, 0], [2, 1], pytest.approx(0.029))


def test_caches_have_the_library_by_other_algorithms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUXPERF_CACHE", str(tmp_path / "users"))
    own = Choices("GPU")
    own.keep(WAY, ["library 12ab", "tiles of 128x256 12ab"], Choice(1, (2e-3, 1e-3)))
    own.keep(KEY, ["aa", "bb", "cc"], Choice(2, (3e-3, 3e-3, 2e-3)))
    own.keep(SMALL, ["dd", "ee"], Choice(1, (3e-6, 2e-6)))
    (tmp_path / "users" / "kernels").mkdir()
    (tmp_path / "users" / "kernels" / "spin").write_text("machine code")
    known = json.loads(recall(own.path) or b"")
    write_cache(tmp_path / "hungry", "GPU", known, {KEY: (["aa", "bb", "cc"], Choice(1, (3e-3, 2e-3, 2e-3)))})
    found = Choices("GPU", tmp_path / "hungry" / "choices")
    way = found.find(WAY, ["library 12ab", "tiles of 128x256 12ab"])
    product, small = found.find(KEY, ["aa", "bb", "cc"]), found.find(SMALL, ["dd", "ee"])
    assert way is not None
    assert product is not None
    assert small is not None
    assert (way.candidate, product.candidate, small.candidate) == (0, 1, 1)
    assert (tmp_path / "hungry" / "kernels" / "spin").read_text() == "machine code"
    assert own.find(WAY, ["library 12ab", "tiles of 128x256 12ab"]) == Choice(1, (2e-3, 1e-3)), (
        "the user's is left alone"
    )


class Device:
    """A device whose library offers three algorithms, and whose clock gives the time of each launch."""

    bus_id = None

    def __init__(self) -> None:
        self.choices_kept: Any = "the user's"
        self.products, self.launched = self, list[str]()

    def draw_normal(self, key: Any, shape: tuple[int, ...], dtype: str, std: float) -> Any:
        assert std > 0
        return self.empty(shape, dtype)

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(ptr=math.prod(shape)))

    def _planned(self, product: Product, a: int, b: int, d: int, bias: int) -> Any:
        assert (a, b, d, bias) == (4608 * 15360, 3072 * 15360, 4608 * 3072, 0)
        names = ["aa", "bb", "cc"]
        algorithm = names[self.choices_kept.find("product", names).candidate]
        return SimpleNamespace(descriptor=0, layouts=(1, 2, 3), algorithm=algorithm)

    def _launch(self, descriptor: int, layouts: Any, algorithm: str, *places: int) -> None:
        self.launched.append(algorithm)

    def stamp(self) -> int:
        return len(self.launched)

    def synchronize(self) -> None:
        pass

    def elapsed(self, start: int, end: int) -> Any:
        return SimpleNamespace(seconds=1e-3 * (end - start), cycles=1e6, clock_hz=1e9)


def test_every_algorithm_is_planned_and_the_devices_choices_are_left_alone() -> None:
    device: Any = Device()
    candidates = algorithms.Candidates(device, PRODUCT)
    assert (candidates.names, device.choices_kept) == (["aa", "bb", "cc"], "the user's")
    look = candidates.look(2)
    assert look is not None
    assert (look.candidate, look.seconds, look.clock_hz) == (2, pytest.approx(1e-3), 1e9)
    assert device.launched == ["cc"] * 62, "as many as 60 ms hold, after two"
    assert candidates.taken(1, 1e-3) is None, "nothing tells joules"
    assert device.launched[62:] == ["bb"] * 1400


def test_candidates_are_picked_by_cycles_not_by_seconds() -> None:
    """At the power limit the hungry one of two takes longer, so its seconds differ although its cycles do not."""
    assert with_company([1000.0, 1005.0, 1100.0, 1200.0, 1190.0]) == [0, 1, 3, 4]
    assert with_company([1000.0]) == with_company([1000.0, 1100.0]) == []
    same_work = [taken(0, 856e3, 0.450), taken(1, 857e3, 0.482)._replace(seconds=1.1e-3)]
    assert apart([same_work]) == ([0], [0]), "more apart than all products may be"
    others = [taken(2, 10e6, 1.0), taken(3, 10e6, 1.0)]
    assert apart([same_work, others])[0][0] == 0
    assert apart([same_work, others])[1][0] == 1


class Metered(Device):
    """The same on a card that reports joules: `bb` and `cc` take equal cycles, `cc` more joules and seconds."""

    name = "GPU"
    now: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.choices_kept = Choices("GPU")
        Metered.now = self

    def prepare(self) -> None:
        pass

    def describe(self) -> dict[str, str]:
        return {"gpu": "GPU"}

    def elapsed(self, start: int, end: int) -> Any:
        number, last = end - start, self.launched[-1]
        cycles, seconds = {"aa": (2e6, 1e-3), "bb": (1e6, 1e-3), "cc": (1.0002e6, 1.2e-3)}[last]
        return SimpleNamespace(seconds=seconds * number, cycles=cycles * number, clock_hz=cycles / seconds)


class Watched:
    """Joules of the launches since it was started."""

    def __init__(self, bus_id: Any) -> None:
        self._start = 0

    def __enter__(self) -> Watched:
        self._start = len(Metered.now.launched)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def window(self) -> Any:
        return nullcontext()

    @property
    def conditions(self) -> Any:
        joules = {"aa": 0.6, "bb": 0.5, "cc": 0.6}
        made = Metered.now.launched[self._start :]
        return SimpleNamespace(energy=SimpleNamespace(counter_j=sum(joules[one] for one in made)))


def test_the_command_makes_two_caches_that_differ_in_joules_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUXPERF_CACHE", str(tmp_path / "users"))
    monkeypatch.setattr(algorithms, "CudaDevice", Metered)
    monkeypatch.setattr(algorithms, "Watch", Watched)
    ran: list[tuple[str, str]] = []

    def step_cycles(cache: Path, workload: str) -> float:
        ran.append((cache.name, workload))
        return 6e6 if cache.name == "frugal" else 6.001e6

    monkeypatch.setattr(algorithms, "step_cycles", step_cycles)
    caches, output = tmp_path / "caches", tmp_path / "algorithms.json"
    with pytest.raises(SystemExit):
        algorithms.main(["--caches", str(caches)])
    assert "found none: run them first" in capsys.readouterr().err
    Choices("GPU").keep(KEY, ["aa", "bb", "cc"], Choice(0, (1e-3, 1e-3, 1e-3)))
    algorithms.main(["--caches", str(caches), "-o", str(output)])
    assert "frugal [1], hungry [2]: +20.00% joules, +0.020% cycles of products together" in capsys.readouterr().out
    assert {name for name, _ in ran} == {"frugal", "hungry"}
    assert {workload for _, workload in ran} == {"schnell-1024-blocks"}
    for name, candidate in (("frugal", 1), ("hungry", 2)):
        found = Choices("GPU", caches / name / "choices").find(KEY, ["aa", "bb", "cc"])
        assert found is not None
        assert found.candidate == candidate
    told = json.loads(output.read_text())
    assert (told["frugal"], told["hungry"], told["joules_together"]) == ([1], [2], pytest.approx(0.2))
    assert told["cycles_of_a_step"] == pytest.approx(1 / 6000)
    assert [one["candidate"] for one in told["products"][0]["candidates"]] == [1, 2], "the other has no company"


def test_what_may_differ_is_less_than_what_the_gate_shows() -> None:
    assert algorithms.SETTLED < algorithms.TOGETHER < 0.003


def test_a_run_that_fails_or_counts_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"failed:\n.*nothing"):
        algorithms.step_cycles(tmp_path, "nothing")
    with pytest.raises(DeviceError, match="expected a GPU that counts cycles"):
        algorithms.step_cycles(tmp_path, "tiny")
