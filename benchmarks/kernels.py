"""Bandwidth of every memory-bound kernel at the shapes of schnell-1024, compared with a device copy on the same card.

    python -m benchmarks.kernels -o reports/records/kernels.json

`fluxperf/kernel_times.py` defines the calls. Launches are back to back between two events, queued after a flush.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.files import write_whole
from fluxperf.harness.measure.environment import commit
from fluxperf.kernel_times import DTYPES, LAUNCHES, SETS, WARMUP, kernels, timed

#: Number of batches in the result.
REPEATS = 9


def copy_bandwidth(device: CudaDevice) -> float:
    """Bytes per second of a device copy (read and written) of tensors as large as the joint sequence's."""
    pairs = [(device.empty((1 << 25,), "float32"), device.empty((1 << 25,), "float32")) for _ in range(4)]
    calls = [
        lambda pair=pair: pair[1].data.copy_from_device_async(pair[0].data, pair[0].nbytes, device.stream)
        for pair in pairs
    ]
    return 2 * pairs[0][0].nbytes / median(timed(device, calls, REPEATS).times_s)


def main() -> None:
    """Measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    device = CudaDevice()
    ceiling = copy_bandwidth(device)
    rows = []
    for dtype in DTYPES:
        for name, kernel in kernels(device, dtype).items():
            calls, nbytes = kernel.calls(device, dtype)
            series = timed(device, calls, REPEATS)
            seconds = median(series.times_s)
            rate = nbytes / seconds
            rows.append(
                {
                    "kernel": name,
                    "dtype": dtype,
                    "us": seconds * 1e6,
                    "gb_s": rate / 1e9,
                    "of_copy": rate / ceiling,
                    "samples_us": [sample * 1e6 for sample in series.times_s],
                    "exposed": series.exposed,
                }
            )
            print(f"{dtype:9} {name:44} {seconds * 1e6:8.1f} us {rate / 1e9:7.0f} GB/s {rate / ceiling:6.1%}")
    revision, dirty = commit(Path(__file__).resolve().parent.parent)
    head = {
        "commit": revision,
        "dirty": dirty,
        "machine": device.describe(),
        "copy_gb_s": ceiling / 1e9,
        "sets": SETS,
        "launches": LAUNCHES,
        "repeats": REPEATS,
        "warmup": WARMUP,
    }
    write_whole(output, json.dumps({**head, "kernels": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
