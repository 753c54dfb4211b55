"""Cost of records from many runners: bytes, objects, seconds and memory, on a simulated fleet.

    python -m benchmarks.fleet -o reports/records/fleet.json
    python -m benchmarks.fleet --commits 100 --machines 2      # a small one

Records are copies of the committed one of a host twin with samples drawn from a seed, so every run reads the same data.
Each command runs in a process of its own. CPU seconds are reported, and wall-clock seconds beside them, because other
load on the machine lengthens those.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fluxperf.files import write_whole
from fluxperf.harness.measure.environment import machine
from fluxperf.harness.places import digest_of
from fluxperf.harness.records import read_records

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "reports/records/host-tiny.jsonl"
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

#: Commands that are measured; ``{fleet}`` is the folder of records, ``{one}`` a file with a single record.
COMMANDS = {
    "history": "history {fleet} --repo {out}",
    "report": "report {one} --history {fleet} -o {out}/page.html --repo {out}",
    "report of all": "report {fleet} -o {out}/all.html --repo {out}",
    "table": "history {fleet} --repo {out} -m t0 --csv {out}/table.csv",
}

_RUN = """
import resource, sys
from fluxperf.cli import main
try:
    main(sys.argv[1:])
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)
"""


def lines(commits: int, machines: int, metrics: int, processes: int, samples: int) -> Iterator[tuple[int, bytes]]:
    """Lines of each commit, with the index of their runner.

    At 70 % of the commits every fifth metric becomes 5 % slower.
    """
    row = next(record for record in read_records(BASE).records if record.rung == "fused")
    draw = np.random.default_rng(0)
    levels = 1e-3 * np.arange(1, metrics + 1)[:, None, None]
    slower = 1 + 0.05 * (np.arange(metrics) % 5 == 0)[:, None, None]
    for runner in range(machines):
        here = msgspec.structs.replace(row.machine, name=f"runner {runner}")
        for commit in range(commits):
            values = levels * (slower if commit > 0.7 * commits else 1) * draw.normal(1, 0.01, (1, processes, samples))
            moment = START + datetime.timedelta(hours=commit, seconds=runner)
            record = msgspec.structs.replace(
                row,
                commit=f"{commit:040x}",
                dirty=False,
                created_utc=moment.isoformat(timespec="seconds"),
                machine=here,
                times_s={f"t{metric}": rows for metric, rows in enumerate(values.tolist())},
                cycles={},
            )
            yield runner, msgspec.json.encode(record) + b"\n"


def make(folder: Path, shape: dict[str, int], by_record: bool) -> dict[str, int]:
    """Writes a fleet, with one file per runner or (as in a store) per record; returns the number of files and bytes."""
    size = 0
    for runner, line in lines(**shape):
        size += len(line)
        path = folder / (f"day/{digest_of(line).hex()}.jsonl" if by_record else f"runner-{runner}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line)
        if not runner:
            (folder.parent / "one.jsonl").write_bytes(line)
    return {"objects": sum(1 for _ in folder.rglob("*.jsonl")), "bytes": size}


def taken(command: str) -> dict[str, float]:
    """Seconds and memory of a command."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *command.split()],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wall = time.perf_counter() - begun
    seconds, kilobytes = done.stderr.split()[-2:]
    return {"cpu_s": round(float(seconds), 2), "wall_s": round(wall, 2), "peak_bytes": 1024 * int(kilobytes)}


def measured(shape: dict[str, int], by_record: bool) -> dict[str, Any]:
    """A fleet, its size on disk, and the cost of each command."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        row: dict[str, Any] = {**shape, "file_for": "record" if by_record else "runner"}
        row |= make(out / "fleet", shape, by_record)
        for name, command in COMMANDS.items():
            row[name] = taken(command.format(fleet=out / "fleet", one=out / "one.jsonl", out=out))
            print(
                f"{row['machines'] * row['commits']:,} records, a file for each {row['file_for']}: {name} {row[name]}"
            )
    return row


def main() -> None:
    """Measures fleets and writes their costs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--machines", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    wide = {"commits": given.commits, "machines": given.machines, "metrics": 42, "processes": 3, "samples": 7}
    many = {**wide, "commits": 5 * given.commits, "metrics": 4, "processes": 1}
    rows = [measured(wide, False), measured(wide, True), measured(many, False)]
    if given.output:
        told = {"machine": msgspec.to_builtins(machine()), "fleets": rows}
        write_whole(given.output, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
