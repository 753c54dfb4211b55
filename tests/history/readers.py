"""Other readers of records, to compare with: DuckDB on JSON Lines and Parquet, and Arrow's reader of JSON Lines.

    pip install duckdb pyarrow
    python -m tests.history.readers -o reports/records/fleet-readers.json

Each reads the fleets of `benchmarks.fleet` in a process of its own, and makes a table with a row for each record and
metric: medians of the processes' medians, smallest and largest sample. Arrow only parses. None of them but fluxperf
checks lines, tells copies of a record, or names what it could not read.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.fleet import make
from fluxperf.files import write_whole
from fluxperf.harness.history import load

#: Columns that a table needs; these readers skip everything else, fluxperf does not.
_COLUMNS = (
    "{created_utc:'VARCHAR', commit:'VARCHAR', dirty:'BOOLEAN', machine:'JSON', workload:'JSON', rung:'VARCHAR', "
    "ran_as:'VARCHAR', settings:'JSON', times_s:'MAP(VARCHAR, DOUBLE[][])', error:'STRUCT(relative DOUBLE)', "
    "totals:'STRUCT(d2h_copies BIGINT, h2d_copies BIGINT, d2h_bytes BIGINT, h2d_bytes BIGINT, launches BIGINT, "
    "syncs BIGINT, peak_bytes BIGINT, allocations BIGINT, op_calls BIGINT)'}"
)
_COUNTS = ("d2h_copies", "h2d_copies", "d2h_bytes", "h2d_bytes", "launches", "syncs", "peak_bytes", "allocations",
           "op_calls")  # fmt: skip
_WHAT = "filename, commit, machine, workload, rung, ran_as, settings"
_TABLE = f"""
select {_WHAT}, m.key as metric, list_median(list_transform(m.value, lambda x: list_median(x))) as value,
       list_min(flatten(m.value)) as low, list_max(flatten(m.value)) as high
from (select *, unnest(map_entries(times_s)) as m from {{source}})
union all
select {_WHAT}, u.k, u.v, null, null
from (select *, unnest([{", ".join(f"{{{{'k': '{name}', 'v': totals.{name}::DOUBLE}}}}" for name in _COUNTS)},
                        {{{{'k': 'error', 'v': error.relative}}}}]) as u from {{source}})
where u.v is not null
"""


def _duckdb(source: str, into: str = "") -> int:
    found = import_module("duckdb").connect()
    found.execute("set threads to 2")
    if into:
        found.execute(f"copy (select * from {source}) to '{into}' (format parquet)")
        return 0
    return len(found.execute(_TABLE.format(source=source)).fetchnumpy()["value"])


def _lines(folder: str) -> str:
    return (
        f"read_json('{folder}/*.jsonl', format='newline_delimited', columns={_COLUMNS}, "
        "maximum_object_size=20000000, filename=true)"
    )


def _arrow(folder: str) -> int:
    import_module("pyarrow").set_cpu_count(2)
    found = import_module("pyarrow.json")
    options = found.ReadOptions(block_size=1 << 24)
    return sum(len(found.read_json(str(path), read_options=options)) for path in Path(folder).glob("*.jsonl"))


READERS = {
    "fluxperf": lambda folder: len(load([folder])[0].key),
    "DuckDB, JSON Lines": lambda folder: _duckdb(_lines(folder)),
    "DuckDB, JSON Lines into Parquet": lambda folder: _duckdb(_lines(folder), f"{folder}.parquet"),
    "DuckDB, Parquet": lambda folder: _duckdb(f"read_parquet('{folder}.parquet')"),
    "Arrow, JSON Lines (parsed)": _arrow,
}

SHAPES = {
    "20,000 records": {"commits": 1000, "machines": 20, "metrics": 42, "processes": 3, "samples": 7},
    "100,000 records": {"commits": 5000, "machines": 20, "metrics": 4, "processes": 1, "samples": 7},
}


def read(name: str, folder: str) -> dict[str, Any]:
    """Seconds and memory of one reader, in this process."""
    begun = time.perf_counter()
    rows = READERS[name](folder)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "rows": rows,
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "wall_s": round(time.perf_counter() - begun, 2),
        "peak_bytes": 1024 * used.ru_maxrss,
    }


def measured(folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """The shortest time of several rounds of each reader on one fleet."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(rounds):
        for name in READERS:
            command = [sys.executable, "-m", __spec__.name, "--read", name, str(folder)]
            row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            found[name] = min(found.get(name, row), row, key=lambda one: float(one["cpu_s"]))
            print(name, row)
    return found


def main() -> None:
    """Makes fleets, reads them, and writes times and memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--read", nargs=2, metavar=("READER", "FOLDER"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    if given.read:
        print(json.dumps(read(*given.read)))
        return
    told: dict[str, Any] = {name: import_module(name).__version__ for name in ("duckdb", "pyarrow")}
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory() as folder:
            fleet = Path(folder) / "fleet"
            fleet.mkdir()
            made = make(fleet, shape, by_record=False)
            rows = measured(fleet, given.rounds)
            told[name] = {**shape, **made, "parquet_bytes": Path(f"{fleet}.parquet").stat().st_size, "readers": rows}
    if given.output:
        write_whole(given.output, json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
