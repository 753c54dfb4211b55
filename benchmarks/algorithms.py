"""Cycles and joules of cuBLASLt's algorithms for products of the model, at the card's power limit.

    FLUXPERF_CACHE=CACHE fluxperf run -w schnell-1024-blocks -r captured --repeat 1
    FLUXPERF_CACHE=CACHE python -m benchmarks.algorithms -o algorithms.json --caches FOLDER

The first command stores choices of algorithms in CACHE. The second takes their large products and measures all
candidates that take as many cycles as another candidate, which takes about a minute. Seconds cannot separate them: at
the power limit an algorithm with more joules takes longer at the same cycles. It then writes two copies of CACHE,
``FOLDER/frugal`` and ``FOLDER/hungry``. In both, the library computes all products, by algorithms that together take
equally many cycles and differ most in joules. A product inside the model, with work on a second stream, takes other
cycles than alone. So the workload runs with both caches, and the hungry one is chosen again until a step takes as many
cycles as with the frugal one, about ten seconds per run. Then

    FLUXPERF_CACHE=CACHE fluxperf gate --base . --head . --base-cache FOLDER/frugal --head-cache FOLDER/hungry
        -w schnell-1024-blocks -r captured --alive 8 --repeat 6 --warmup 0

compares two programs that differ only in joules. The expected verdict is `hungrier`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_type_hints

import fluxperf
from fluxperf.engine.cache import KINDS, cache_root, recall
from fluxperf.engine.device.choices import Choice, Choices
from fluxperf.engine.device.cublaslt import Product
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.errors import DeviceError
from fluxperf.files import write_whole
from fluxperf.harness.measure.clocks import Watch
from fluxperf.harness.measure.environment import commit
from fluxperf.harness.records import read_records

#: Multiplications from which on a product counts as large: 4096 x 3072 x 3072.
_LARGE = 4096 * 3072 * 3072

#: Seconds of warm-up, of one short measurement of cycles, of one measurement of joules; rounds of short measurements.
_HEAT_S, _LOOK_S, _MEASURE_S, _LOOKS = 3.0, 0.06, 1.4, 2

#: Most candidates of a product that are measured (those with the fewest cycles), and the shortest plausible launch.
_MOST, _SHORT_S = 6, 3e-4

#: A candidate is measured if another one's cycles differ by less than this share in the short measurements.
_NEAR = 0.012

#: Largest differences in cycles, as shares: between two algorithms of one product, between the sums over all products,
#: and between two steps of the workload; and the number of attempts for the last.
APART, TOGETHER, SETTLED, _PICKS = 0.03, 0.001, 0.0004, 5

#: Standard deviation of the weights, as of synthetic ones. The power of a product depends on its values.
_WEIGHTS_STD = 0.02


class Taken(NamedTuple):
    """Cycles, joules and seconds of one launch of a candidate at the limit of power."""

    candidate: int
    cycles: float
    joules: float
    seconds: float
    clock_hz: float


class Problem(NamedTuple):
    """A product whose algorithm was chosen: its name among the choices, and the product."""

    key: str
    product: Product


def problems(known: dict[str, Any]) -> list[Problem]:
    """Large products among stored choices, of one sample in bfloat16."""
    kinds, found = get_type_hints(Product), []
    for key in known:
        library, _, rest = key.partition(" ")
        words = rest.split()[1:]
        if library != "cuBLASLt" or len(words) != len(Product._fields):
            continue
        values = [
            word == "True" if kinds[name] is bool else kinds[name](word)
            for name, word in zip(Product._fields, words, strict=True)
        ]
        product = Product(*values)
        if product.dtype == "bfloat16" and product.batch == 1 and product.m * product.n * product.k >= _LARGE:
            found.append(Problem(key, product))
    return found


class _Forced:
    """Choices that are set in advance: `CublasLt` then plans the requested candidate."""

    def __init__(self) -> None:
        self.candidate, self.names = 0, list[str]()

    def find(self, what: str, names: list[str]) -> Choice:
        """The candidate that was set. Stores the names of all candidates."""
        self.names = names
        return Choice(min(self.candidate, len(names) - 1), (0.0,) * len(names))


class Candidates:
    """All algorithms that the library offers for a product, on operands of its own.

    Args:
        device: where they run.
        product: what they compute.
    """

    def __init__(self, device: CudaDevice, product: Product) -> None:
        p, self._device = product, device
        self._operands = [
            device.draw_normal((0, 1), (p.m * p.lda,), "bfloat16", std=1.0),
            device.draw_normal((0, 2), ((p.n if p.b_transposed else p.k) * p.ldb,), "bfloat16", std=_WEIGHTS_STD),
            device.empty((p.m * p.ldd,), p.out_dtype),
            device.draw_normal((0, 3), (p.n,), "bfloat16", std=_WEIGHTS_STD),
        ]
        places = [array.data.ptr for array in self._operands]
        bias = places[3] if "BIAS" in p.epilogue else 0
        forced, self.names, self._launches = _Forced(), [""], list[Any]()
        kept = device.choices_kept
        device.choices_kept = forced  # type: ignore[assignment]
        try:
            while len(self._launches) < len(self.names):
                forced.candidate = len(self._launches)
                plan = device.products._planned(product, *places[:3], bias)
                self._launches.append((plan.descriptor, plan.layouts, plan.algorithm, *places[:3]))
                self.names = forced.names
        finally:
            device.choices_kept = kept

    def look(self, candidate: int) -> Taken | None:
        """Cycles of one launch, without joules; ``None`` if the device does not report cycles."""
        self._lapse(candidate, 1)
        number = max(1, round(_LOOK_S / self._lapse(candidate, 1).seconds))
        return _each(candidate, number, self._lapse(candidate, number), math.nan)

    def taken(self, candidate: int, once: float, seconds: float = _MEASURE_S) -> Taken | None:
        """One launch at the power limit; ``None`` if the card reports no joules or no cycles."""
        number = max(1, math.ceil(seconds / once))
        with Watch(self._device.bus_id) as watch, watch.window():
            lapse = self._lapse(candidate, number)
        energy = watch.conditions.energy if watch.conditions else None
        if energy is None or energy.counter_j is None:
            return None
        return _each(candidate, number, lapse, energy.counter_j)

    def _lapse(self, candidate: int, number: int) -> Any:
        device = self._device
        start = device.stamp()
        self._run(candidate, number)
        end = device.stamp()
        device.synchronize()
        return device.elapsed(start, end)

    def _run(self, candidate: int, number: int) -> None:
        for _ in range(number):
            self._device.products._launch(*self._launches[candidate])


def _each(candidate: int, number: int, lapse: Any, joules: float) -> Taken | None:
    """One launch's share of the totals of several launches."""
    if lapse.cycles is None:
        return None
    return Taken(candidate, lapse.cycles / number, joules / number, lapse.seconds / number, lapse.clock_hz)


def with_company(cycles: Sequence[float]) -> list[int]:
    """Candidates that take about as many cycles as another one.

    Args:
        cycles: of each candidate.
    """
    return [
        index
        for index, own in enumerate(cycles)
        if any(other != index and abs(one / own - 1) <= _NEAR for other, one in enumerate(cycles))
    ]


def apart(
    rows: Sequence[Sequence[Taken]], aim: float = 0.0, frugal: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """Two selections of candidates for all products, with equal cycles in total and the largest difference in joules.

    Args:
        rows: the measured candidates, by product.
        aim: cycles that the hungry candidates should take beyond the frugal ones, over all products.
        frugal: the frugal candidate of each product, if it is fixed already.

    Returns:
        The frugal candidate of each product, and the hungry one.
    """
    unit = TOGETHER / 10 * sum(min(taken.cycles for taken in row) for row in rows)
    # By difference in cycles so far, in tenths of the tolerance: the largest difference in joules, and the pairs that
    # give it.
    best: dict[int, tuple[float, list[tuple[int, int]]]] = {0: (0.0, [])}
    for number, row in enumerate(rows):
        first = [taken for taken in row if frugal is None or taken.candidate == frugal[number]]
        couples = [(a, b) for a in first for b in row if abs(b.cycles / a.cycles - 1) <= APART]
        found: dict[int, tuple[float, list[tuple[int, int]]]] = {}
        for cycles, (joules, chosen) in best.items():
            for one, other in couples:
                place = cycles + round((other.cycles - one.cycles) / unit)
                more = joules + (other.joules - one.joules)
                if place not in found or more > found[place][0]:
                    found[place] = more, [*chosen, (one.candidate, other.candidate)]
        best = found
    # Within the tolerance the largest difference in joules; if nothing is within it, the nearest.
    _, _, chosen = max((-max(10.0, abs(place - aim / unit)), *one) for place, one in best.items())
    return [one for one, _ in chosen], [other for _, other in chosen]


def step_cycles(cache: Path, workload: str) -> float:
    """Cycles of a step of ``captured`` with the choices of a cache, measured in a process of its own.

    Args:
        cache: folder of the cache.
        workload: its name.

    Raises:
        DeviceError: the process fails, or its GPU has no count of cycles.
    """
    with TemporaryDirectory() as folder:
        output = Path(folder) / "records.jsonl"
        words = [sys.executable, "-m", "fluxperf", "run", f"--workload={workload}", "--rung=captured", "--repeat=3"]
        environment = {**os.environ, "FLUXPERF_CACHE": str(cache)}
        ran = subprocess.run([*words, "-o", str(output)], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise DeviceError(f"algorithms: a run of {workload} with the cache {cache} failed:\n{ran.stderr[-2000:]}")
        cycles = [
            value for one in read_records(output).records for samples in one.cycles.get("step", []) for value in samples
        ]
    if not cycles:
        raise DeviceError("algorithms: expected a GPU that counts cycles, got a record without them. Use another GPU.")
    return median(cycles)


def settled(
    rows: Sequence[Sequence[Taken]], cycles_with: Callable[[str, list[int]], float]
) -> tuple[list[int], list[int], float]:
    """Frugal and hungry candidates with which a step of the model takes equally many cycles.

    Args:
        rows: the measured candidates, by product.
        cycles_with: writes a cache with the given name and candidates, and returns the cycles of a step with it.

    Returns:
        The frugal candidates, the best hungry ones, and the share by which their step takes more cycles.
    """
    frugal, hungry = apart(rows)
    base, aim = cycles_with("frugal", frugal), 0.0
    tried: dict[tuple[int, ...], float] = {}
    for _ in range(_PICKS):
        if tuple(hungry) not in tried:
            tried[tuple(hungry)] = cycles_with("hungry", hungry) - base
        excess = tried[tuple(hungry)]
        if abs(excess) <= SETTLED * base:
            break
        aim -= excess
        _, hungry = apart(rows, aim, frugal)
    nearest = min(tried, key=lambda one: abs(tried[one]))
    return frugal, list(nearest), tried[nearest] / base


def write_cache(folder: Path, gpu: str, known: dict[str, Any], chosen: dict[str, tuple[list[str], Choice]]) -> None:
    """Writes a copy of the cache in which the library computes all products, the large ones by the given candidates.

    Args:
        folder: of the new cache; what lies there is replaced.
        gpu: its name.
        known: choices that were kept.
        chosen: candidates' names and the choice among them, by its name.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for kind in KINDS:
        if (cache_root() / kind).is_dir():
            shutil.copytree(cache_root() / kind, folder / kind)
    choices = Choices(gpu, folder / "choices")
    for key, (_, name, times) in known.items():
        if name.startswith(("tiles of ", "library ")):
            names = [f"library {name.rpartition(' ')[2]}", *[""] * (len(times) - 1)]
            choices.keep(key, names, Choice(0, tuple(math.inf if time is None else time for time in times)))
    for key, (names, choice) in chosen.items():
        choices.keep(key, names, choice)


def _known(taken: Taken | None) -> Taken:
    """The measurement of a launch, which must have cycles and joules.

    Raises:
        DeviceError: it has not.
    """
    if taken is None:
        raise DeviceError(
            "algorithms: expected a GPU that reports cycles and joules (by nvidia-ml-py), but one of "
            "them is missing. Install nvidia-ml-py, or use another GPU."
        )
    return taken


def _middle(looks: Sequence[Taken | None]) -> Taken:
    """The measurement with the fewest cycles, because disturbances only make a launch longer."""
    return min(map(_known, looks), key=lambda one: one.cycles)


def main(words: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("-o", "--output", type=Path)
    given.add_argument("--caches", type=Path, help="Folder for both caches.")
    given.add_argument("--workload", default="schnell-1024-blocks", help="Workload that the caches are made for.")
    asked = given.parse_args(words)
    device = CudaDevice()
    device.prepare()
    known = json.loads(recall(device.choices_kept.path) or b"{}")
    wanted = problems(known)
    if not wanted:
        given.error(f"expected choices of large products in {device.choices_kept.path}, found none: run them first")
    offered: dict[str, tuple[list[str], tuple[float, ...]]] = {}
    measured = [Candidates(device, problem.product) for problem in wanted]
    measured[0].taken(0, _SHORT_S, _HEAT_S)
    rows, told = [], []
    for problem, candidates in zip(wanted, measured, strict=True):
        looks = [[candidates.look(index) for index in range(len(candidates.names))] for _ in range(_LOOKS)]
        seen = [_middle(some) for some in zip(*looks, strict=True)]
        kept = sorted(with_company([one.cycles for one in seen]), key=lambda index: seen[index].cycles)[:_MOST]
        # A candidate without an equal is kept alone, so that each product has an algorithm.
        kept = kept or [min(range(len(seen)), key=lambda index: seen[index].cycles)]
        row = [_known(candidates.taken(index, seen[index].seconds)) for index in kept]
        rows.append(row)
        p = problem.product
        for taken in row:
            print(
                f"{p.m} x {p.n} x {p.k} {p.epilogue} candidate {taken.candidate} of {len(candidates.names)}: "
                f"{taken.cycles / 1e3:.1f} kcycles, {taken.joules * 1e3:.2f} mJ, {taken.seconds * 1e3:.4f} ms, "
                f"{taken.clock_hz / 1e6:.0f} MHz",
                flush=True,
            )
        looked = [{"cycles": one.cycles, "seconds": one.seconds} for one in seen]
        told.append({"product": p._asdict(), "candidates": [taken._asdict() for taken in row], "looks": looked})
        offered[problem.key] = candidates.names, tuple(one.seconds for one in seen)

    def cycles_with(name: str, chosen: list[int]) -> float:
        picked = {
            key: (names, Choice(one, looks_s))
            for (key, (names, looks_s)), one in zip(offered.items(), chosen, strict=True)
        }
        write_cache(asked.caches / name, device.name, known, picked)
        cycles = step_cycles(asked.caches / name, asked.workload)
        print(f"{name} {chosen}: {cycles / 1e3:.1f} kcycles a step of {asked.workload}", flush=True)
        return cycles

    within = None
    if asked.caches:
        frugal, hungry, within = settled(rows, cycles_with)
        cycles_with("hungry", hungry)
    else:
        frugal, hungry = apart(rows)
    sides = {"frugal": frugal, "hungry": hungry}
    sums = {
        name: [
            sum(
                getattr(taken, field) for row, one in zip(rows, chosen, strict=True) for taken in row if taken[0] == one
            )
            for field in ("cycles", "joules")
        ]
        for name, chosen in sides.items()
    }
    cycles, joules = (hungry / frugal - 1 for frugal, hungry in zip(sums["frugal"], sums["hungry"], strict=True))
    print(f"frugal {frugal}, hungry {hungry}: {joules:+.2%} joules, {cycles:+.3%} cycles of products together")
    if asked.output is not None:
        revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
        whole = {
            "what": f"one launch of candidates with as many cycles as another, {_MEASURE_S} s each, at the limit",
            "commit": revision,
            "dirty": dirty,
            "machine": device.describe(),
            "products": told,
            **sides,
            "joules_together": joules,
            "cycles_together": cycles,
            "cycles_of_a_step": within,
        }
        write_whole(asked.output, json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
