"""Device time of a stamp compared with an event alone, and the resolution of the device's timer.

python -m benchmarks.stamps -o reports/records/h200-stamps.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fluxperf
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.files import write_whole
from fluxperf.harness.measure.environment import commit

#: Stamps in a row, number of rounds, and cycles that the device is kept busy while they are submitted.
_STAMPS, _ROUNDS, _BUSY_CYCLES = 400, 7, 24_000_000


def cost_us(device: CudaDevice, take: Callable[[], Any]) -> float:
    """Device time of each call in microseconds, back to back, after work that lasts until all are submitted."""
    rounds = []
    for _ in range(_ROUNDS):
        device.synchronize()
        device.spend(_BUSY_CYCLES)
        start = device.mark()
        kept = [take() for _ in range(_STAMPS)]
        rounds.append(device.elapsed_s(start, device.mark()) / len(kept) * 1e6)
    return median(rounds)


def timer_step_ns(device: CudaDevice) -> int:
    """Smallest difference between two readings of the device's timer."""
    stamps = [device.stamp() for _ in range(_STAMPS)]
    device.synchronize()
    readings = np.unique(np.concatenate([stamp.row[:, 1] for stamp in stamps]))
    return int(np.diff(readings).min())


def main(words: list[str] | None = None) -> None:
    """Measures, prints and writes."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("-o", "--output", type=Path)
    asked = given.parse_args(words)
    device = CudaDevice()
    device.prepare()
    device.stamp()
    stamp, event = cost_us(device, device.stamp), cost_us(device, device.mark)
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    told = {
        "what": "microseconds of the device, median of rounds of 400 back to back; a stamp includes an event",
        "commit": revision,
        "dirty": dirty,
        "machine": device.describe(),
        "stamp_us": stamp,
        "event_us": event,
        "beyond_an_event_us": stamp - event,
        "timer_step_ns": timer_step_ns(device),
    }
    print(json.dumps(told, indent=1))
    if asked.output is not None:
        write_whole(asked.output, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
