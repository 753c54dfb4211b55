"""Matrix products of the model at the card's power limit: this project's kernels in turns with cuBLASLt.

    python -m benchmarks.products -o reports/records/h100-products.json [--only gated] [--seconds 0.6] [--rounds 3]

Each case is an op: the product with its epilogue. Its variants run in turns as graph replays, with operands that
alternate beyond the L2 cache, after a warm-up that brings the card to its power limit. Milliseconds are measured by
events, joules by NVML's energy counter. Results are compared with float32 products of the same operands before anything
is timed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.product_cases import CASES, Case, made
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.harness.measure.clocks import nvml
from fluxperf.harness.measure.environment import commit

#: Approximate milliseconds of one graph launch.
_LAUNCH_MS = 8.0


class Turn(NamedTuple):
    """Seconds, joules and clock of one variant in one turn, per call."""

    ms: float
    joules: float | None
    mhz: float | None


class Meter:
    """Joules and clock of a GPU by NVML; ``None`` where it does not report them."""

    def __init__(self, device: CudaDevice) -> None:
        self._nvml = nvml()
        if self._nvml is not None:
            self._handle = self._nvml.nvmlDeviceGetHandleByPciBusId(device.bus_id)

    def joules(self) -> float | None:
        """Joules since the driver was loaded."""
        return self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3 if self._nvml else None

    def mhz(self) -> float | None:
        """Current clock of the multiprocessors in MHz."""
        return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, 1)) if self._nvml else None


class Runner:
    """Variants of one case as graphs."""

    def __init__(self, device: CudaDevice, meter: Meter, variants: dict[str, list[Callable[[], Any]]]) -> None:
        self._device, self._meter = device, meter
        self._graphs = {name: self._graph(calls) for name, calls in variants.items()}

    def _graph(self, calls: list[Callable[[], Any]]) -> tuple[Any, int, Any]:
        device = self._device
        for call in calls:  # chooses algorithms, compiles, allocates
            call()
        start = device.mark()
        for call in calls:
            call()
        once_ms = device.elapsed_s(start, device.mark()) * 1e3
        count = max(len(calls), round(_LAUNCH_MS / once_ms * len(calls)))
        arena = device.graphs.arena()
        work = [calls[index % len(calls)] for index in range(count)]

        def run() -> None:
            for call in work:
                call()

        with arena.opened():
            run()
            device.synchronize()
            return device.graphs.capture(arena, run), count, arena

    def heat(self, seconds: float) -> None:
        """Brings the card to its power limit."""
        self._run(next(iter(self._graphs)), seconds)

    def turns(self, seconds: float, rounds: int) -> dict[str, list[Turn]]:
        """Runs every variant in every round; every second round in reverse order."""
        found: dict[str, list[Turn]] = {name: [] for name in self._graphs}
        for number in range(rounds):
            names = list(self._graphs)
            for name in names if number % 2 == 0 else reversed(names):
                found[name].append(self._run(name, seconds))
        return found

    def _run(self, name: str, seconds: float) -> Turn:
        device, meter = self._device, self._meter
        replay, count, _ = self._graphs[name]
        replay.launch()
        device.synchronize()
        launches, marks, began = 0, [], time.perf_counter()
        before, start = meter.joules(), device.mark()
        while time.perf_counter() - began < seconds:
            replay.launch()
            launches += 1
            marks.append(device.mark())
            if len(marks) > 3:
                marks[-4].synchronize()
        mhz = meter.mhz()
        ms = device.elapsed_s(start, marks[-1]) * 1e3
        after = meter.joules()
        calls = launches * count
        return Turn(ms / calls, None if before is None or after is None else (after - before) / calls, mhz)

    def close(self) -> None:
        """Releases the graphs' memory."""
        for name in list(self._graphs):
            graph, _, arena = self._graphs.pop(name)
            del graph
            arena.close()


def measured(device: CudaDevice, meter: Meter, case: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one case: one per variant, with its error against float32."""
    variants, errors = made(device, case, options.tiles)
    rows = []
    if options.check:
        print(f"{case.name:44} {errors}", flush=True)
        if not all(error < case.bound for error in errors.values()):
            raise SystemExit(f"{case.name}: expected errors below {case.bound}, got {errors}.")
        return []
    runner = Runner(device, meter, {name: calls for name, calls in variants.items() if errors[name] < case.bound})
    runner.heat(options.heat)
    for name, turns in runner.turns(options.seconds, options.rounds).items():
        joules = [turn.joules for turn in turns if turn.joules is not None]
        ms, energy = median(turn.ms for turn in turns), median(joules) if joules else None
        row = {
            "case": case.name,
            "variant": name,
            "error": errors[name],
            "ms": ms,
            "tflop_s": case.flops / ms / 1e9,
            "joules": energy,
            "j_per_tflop": None if energy is None else energy / case.flops * 1e12,
            "turns": [turn._asdict() for turn in turns],
        }
        print(f"{case.name:44} {name:14} {ms * 1e3:8.1f} us {row['tflop_s']:7.0f} TFLOP/s "
              f"{(energy or 0) * 1e3:7.1f} mJ  error {errors[name]:.2e}", flush=True)  # fmt: skip
        rows.append(row)
    runner.close()
    for name, error in errors.items():
        if not error < case.bound:
            print(f"{case.name:44} {name:14} WRONG: error {error:.3e}, bound {case.bound:.1e}", flush=True)
            rows.append({"case": case.name, "variant": name, "error": error, "wrong": True})
    device.trim()
    return rows


def main() -> None:
    """Measures, prints, and writes a JSON file after every case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="cases whose name holds one of these, separated by commas")
    parser.add_argument("--seconds", type=float, default=0.6, help="of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--heat", type=float, default=3.0, help="seconds before the first turn of a case")
    parser.add_argument("--tiles", default="", help="only these tiles of this project, separated by commas")
    parser.add_argument("--check", action="store_true", help="compare results, measure no time")
    options = parser.parse_args()
    device = CudaDevice()
    meter = Meter(device)
    revision, dirty = commit(Path(__file__).resolve().parent.parent)
    head = {
        "commit": revision,
        "dirty": dirty,
        "machine": device.describe(),
        "settings": {"seconds": options.seconds, "rounds": options.rounds, "heat_s": options.heat},
    }
    rows: list[dict[str, Any]] = []
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if not options.only or any(word in case.name for word in options.only.split(",")):
            rows += measured(device, meter, case, options)
            options.output.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
