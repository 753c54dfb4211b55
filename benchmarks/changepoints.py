"""Power and false alarms of the change point search on simulated series, compared with other searches.

    python -m benchmarks.changepoints -o reports/records/changepoints.json
    python -m benchmarks.changepoints --calibrate        # the thresholds of fluxperf/harness/scan.py

The others are included if they are installed: asv (`asv.step_detect`), PELT of `ruptures`, E-divisive with permutations
of `signal-processing-algorithms` (MongoDB's), and E-divisive with t-tests of `apache-otava` (Hunter's). A step counts
as found if a change is reported within two values of it. Series are drawn from a seed, so every run prints the same
results, except those of E-divisive with permutations. The last series come from committed records.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fluxperf.files import write_whole
from fluxperf.harness.scan import THRESHOLDS, Floats, highest
from fluxperf.harness.steps import steps_of_times

Draw = np.random.Generator
Search = Callable[[Floats], list[list[int]]]

RECORDS = Path(__file__).resolve().parents[1] / "reports/records"

#: Largest distance between a reported and the true change, in values.
NEAR = 2


class Kind(NamedTuple):
    """A kind of series: noise, change, and the indices of its steps ("any" of a ramp; empty without a change)."""

    name: str
    length: int
    made: Callable[[Draw, int, int], Floats]
    places: tuple[int, ...] | None = None


def noise(spread: float) -> Callable[[Draw, int, int], Floats]:
    """Independent normal noise, as a share of the level."""
    return lambda draw, count, length: np.exp(draw.normal(0, spread, (count, length)))


def step(spread: float, change: float, first: int, end: int | None = None) -> Callable[[Draw, int, int], Floats]:
    """A level that changes at one index, up to another index or to the end."""

    def made(draw: Draw, count: int, length: int) -> Floats:
        values = noise(spread)(draw, count, length)
        values[:, first:end] *= 1 + change
        return values

    return made


def ramp(spread: float, change: float, first: int, end: int) -> Callable[[Draw, int, int], Floats]:
    """A level that rises linearly between two indices."""
    return lambda draw, count, length: (
        noise(spread)(draw, count, length) * (1 + change * np.clip((np.arange(length) - first) / (end - first), 0, 1))
    )


def outliers(share: float, height: float) -> Callable[[Draw, int, int], Floats]:
    """Noise of 2 % in which some values are higher, singly or by chance next to each other."""

    def made(draw: Draw, count: int, length: int) -> Floats:
        return noise(0.02)(draw, count, length) * (1 + height * (draw.random((count, length)) < share))

    return made


def louder(factor: float) -> Callable[[Draw, int, int], Floats]:
    """Noise of 1 % whose spread grows by a factor in the middle, at the same level."""

    def made(draw: Draw, count: int, length: int) -> Floats:
        scale = np.where(np.arange(length) < length // 2, 0.01, 0.01 * factor)
        return np.exp(draw.normal(0, 1, (count, length)) * scale)

    return made


def correlated(share: float) -> Callable[[Draw, int, int], Floats]:
    """Noise of 2 % in which each value keeps a share of the previous one's deviation."""

    def made(draw: Draw, count: int, length: int) -> Floats:
        values = draw.normal(0, 0.02, (count, length))
        for index in range(1, length):
            values[:, index] = share * values[:, index - 1] + math.sqrt(1 - share**2) * values[:, index]
        return np.exp(values)

    return made


def heavy(draw: Draw, count: int, length: int) -> Floats:
    """Noise of 2 % with heavy tails: Student's t distribution with three degrees of freedom."""
    return np.exp(0.02 / math.sqrt(3) * draw.standard_t(3, (count, length)))


def recorded(name: str, metric: str, change: float = 0.0) -> Callable[[Draw, int, int], Floats]:
    """Medians of successive processes on a card, cut into series; a change may be planted in the middle.

    Args:
        name: of a committed file of A/A comparisons. They compare one program with itself, so they contain no change.
        metric: suffix of the metric's name.
        change: by which the second half of each series is larger.
    """

    def made(draw: Draw, count: int, length: int) -> Floats:
        rows = json.loads((RECORDS / name).read_text(encoding="utf-8"))["comparisons"]
        sides = [side for row in rows for key, side in row["medians"].items() if key.endswith(metric)]
        values = np.array(
            [one for side in sides for pair in zip(side["base"], side["head"], strict=True) for one in pair]
        )
        found: Floats = values[: len(values) // length * length].reshape(-1, length)[:count]
        found[:, length // 2 :] *= 1 + change
        return found

    return made


def real_kinds() -> list[Kind]:
    """Series with real noise, from processes on an H100 and on an H200."""
    rows = []
    for what, name, metric, change in (
        ("an H100's seconds", "h100-aa.json", "/times.denoise", 0.05),
        ("an H200's seconds", "h200-aa.json", "/times.denoise", 0.05),
        ("an H200's cycles", "h200-aa.json", "/cycles.denoise", 0.005),
    ):
        for length in (16, 32):
            half = (length // 2,)
            rows.append(Kind(f"{what}, recorded", length, recorded(name, metric)))
            rows.append(
                Kind(f"{what}, +{100 * change:g} % in the middle", length, recorded(name, metric, change), half)
            )
    return rows


def kinds() -> list[Kind]:
    """All kinds of series."""
    rows = [Kind("noise of 2 %", length, noise(0.02)) for length in (4, 6, 8, 12, 16, 25, 32, 100, 500)]
    for change in (0.05, 0.10):
        rows += [
            Kind(f"+{change:.0%} in the middle, noise of 2 %", n, step(0.02, change, n // 2), (n // 2,))
            for n in (8, 16, 32, 100, 500)
        ]
    rows.append(Kind("+0.5 % in the middle, noise of 0.1 %", 8, step(0.001, 0.005, 4), (4,)))
    rows.append(Kind("+10 %, the newest 2, noise of 2 %", 32, step(0.02, 0.1, 30), (30,)))
    rows.append(Kind("+10 %, the newest 3, noise of 2 %", 16, step(0.02, 0.1, 13), (13,)))
    rows.append(Kind("+10 % for 6 values, then back, noise of 2 %", 32, step(0.02, 0.1, 13, 19), (13, 19)))
    rows.append(Kind("ramp of +20 %, noise of 2 %", 25, ramp(0.02, 0.2, 0, 24), ()))
    rows.append(Kind("ramp of +20 % over 25 of them, noise of 2 %", 100, ramp(0.02, 0.2, 40, 65), ()))
    for length in (16, 100):
        rows.append(Kind("heavy tails of 2 %", length, heavy))
        rows.append(Kind("one value in 20 is 20 % higher", length, outliers(0.05, 0.2)))
        rows.append(Kind("noise four times louder from the middle on", length, louder(4)))
        rows.append(Kind("noise that keeps 0.3 of itself", length, correlated(0.3)))
        rows.append(Kind("noise that keeps 0.6 of itself", length, correlated(0.6)))
    return rows


def scanned(values: Floats) -> list[list[int]]:
    """Changes by fluxperf's own search, as indices."""
    return [[shift.first for shift in found or []] for found in steps_of_times(values.tolist())]


def by_asv(values: Floats) -> list[list[int]]:
    """Changes by asv's step detection, as indices."""
    from asv.step_detect import detect_steps

    return [[first for first, *_ in detect_steps(row.tolist())[1:]] for row in values]


def by_pelt(values: Floats) -> list[list[int]]:
    """Changes by PELT on logarithms over their noise (from the median difference of neighbours); penalty 3 log n."""
    import ruptures

    found = []
    for row in np.log(values):
        scale = 1.4826 * float(np.median(np.abs(np.diff(row)))) / math.sqrt(2)
        search = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(row / scale)
        found.append([int(place) for place in search.predict(pen=3 * math.log(len(row)))[:-1]])
    return found


def by_e_divisive(values: Floats) -> list[list[int]]:
    """Changes by E-divisive with 200 permutations at p 0.02, as in MongoDB's setup."""
    from signal_processing_algorithms.energy_statistics.energy_statistics import e_divisive

    return [sorted(e_divisive(row, pvalue=0.02, permutations=200)) for row in values]


def by_otava(values: Floats) -> list[list[int]]:
    """Changes by E-divisive with t-tests at p 0.001, the default of Otava (Hunter)."""
    from otava.analysis import compute_change_points

    found = []
    for row in values:
        try:
            found.append([int(change.index) for change in compute_change_points(row.tolist(), max_pvalue=0.001)[0]])
        except ValueError:  # it cannot compare segments of fewer than two values
            found.append([])
    return found


class Other(NamedTuple):
    """A search to compare with: the module that it needs, and the number and length of the series that it gets."""

    module: str
    search: Search
    series: int
    longest: int = 500


#: Searches that take seconds per series get fewer and shorter ones.
OTHERS = {
    "asv": Other("asv", by_asv, 100),
    "PELT": Other("ruptures", by_pelt, 100),
    "E-divisive, permutations": Other("signal_processing_algorithms", by_e_divisive, 50, 32),
    "E-divisive, t-test": Other("otava", by_otava, 50, 32),
}


def share(kind: Kind, found: Sequence[Sequence[int]]) -> float:
    """Share of series in which all steps were found; for a ramp, or without any step, the share with any change."""
    if not kind.places:
        return float(np.mean([bool(places) for places in found]))
    told = [all(any(abs(one - true) <= NEAR for one in places) for true in kind.places) for places in found]
    return float(np.mean(told))


def row_of(kind: Kind, seed: int, series: int, others: bool) -> dict[str, Any]:
    """Shares found by each search on series of one kind, with the number of series and the time taken."""
    searches: dict[str, tuple[Search, int]] = {"fluxperf": (scanned, series)}
    for name, other in OTHERS.items() if others else ():
        if find_spec(other.module) and kind.length <= other.longest:
            searches[name] = other.search, min(series, max(10, other.series * min(100, 2500 // kind.length) // 100))
    row: dict[str, Any] = {"series": kind.name, "values": kind.length, "false_alarm": kind.places is None}
    for name, (search, count) in searches.items():
        values = kind.made(np.random.default_rng([seed, kind.length]), count, kind.length)
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = search(values)
        seconds = (time.process_time() - began) / len(values)
        row[name] = {"share": round(share(kind, found), 4), "of": len(values), "ms": round(1e3 * seconds, 3)}
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as Markdown, in percent."""
    names = ["fluxperf", *(name for name in OTHERS if any(name in row for row in rows))]
    lines = [f"| series | values | {' | '.join(names)} |", f"|---|---:|{'---:|' * len(names)}"]
    for row in rows:
        told = " | ".join(f"{100 * row[name]['share']:.1f} %" if name in row else "" for name in names)
        lines.append(f"| {row['series']}{' *' if row['false_alarm'] else ''} | {row['values']} | {told} |")
    return "\n".join(lines)


def calibrated(seed: int) -> dict[int, float]:
    """Scores that pure noise reaches in 1.7 % of series (slightly below `fluxperf.harness.scan.ALPHA`), by length."""
    draw = np.random.default_rng(seed)
    found = {}
    for length in THRESHOLDS:
        count = 60_000 if length <= 40 else max(4000, 2_000_000 // length)
        scores = [highest(draw.normal(0, 1, (min(4000, count), length))) for _ in range(count // min(4000, count))]
        found[length] = round(float(np.quantile(np.concatenate(scores), 1 - 0.017)), 3)
        print(f"{length}: {found[length]}", flush=True)
    return found


def main() -> None:
    """Measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--series", type=int, default=1000, help="simulated series of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="without the other searches")
    parser.add_argument("--calibrate", action="store_true", help="measure the thresholds instead")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.calibrate:
        print(calibrated(arguments.seed))
        return
    rows = [row_of(kind, arguments.seed, arguments.series, not arguments.alone) for kind in (*kinds(), *real_kinds())]
    print(table(rows))
    print("\n* the series has no change: this is the share of series with a false alarm")
    if arguments.output:
        found = {"seed": arguments.seed, "within": NEAR, "rows": rows}
        write_whole(arguments.output, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
