"""Start-up time of a rung with synthetic weights until the first forward, with cold and with warm caches.

    python -m benchmarks.startup --workload schnell-1024 -o reports/records/startup.json

Each row is a fresh process: the first with an empty kernel cache, the second with the cache of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fluxperf.files import write_whole

_CHILD = """
import json, sys, time
marks = [("start", time.perf_counter())]
def mark(name): marks.append((name, time.perf_counter()))
from fluxperf.workloads import prepare, workload_named
mark("import")
from fluxperf.engine.device import open_device
open_device("cuda").close()
mark("device")
prepared = prepare("fused", workload_named(sys.argv[1]), device="cuda")
prepared.device.synchronize()
mark("weights drawn")
forwards = prepared.observed().begin(prepared.request)
forwards.velocity(prepared.latents, 0)
prepared.device.synchronize()
mark("first forward: kernels, plans, algorithm search")
forwards.velocity(prepared.latents, 0)
prepared.device.synchronize()
mark("second forward")
print(json.dumps({name: end - start for (_, start), (name, end) in zip(marks, marks[1:])}))
"""


def main() -> None:
    """Measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", default="schnell-1024")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "FLUXPERF_CACHE": folder, "CUPY_CACHE_DIR": f"{folder}/cupy"}
        rows = {}
        for name in ("cold caches", "warm caches"):
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, arguments.workload],
                env=environment,
                capture_output=True,
                text=True,
                check=True,
            )
            rows[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, ", ".join(f"{step} {seconds:.2f} s" for step, seconds in rows[name].items()))
    text = json.dumps({"workload": arguments.workload, "rung": "fused", "seconds": rows}, indent=1)
    write_whole(arguments.output, text + "\n")


if __name__ == "__main__":
    main()
