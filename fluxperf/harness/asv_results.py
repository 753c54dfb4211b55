"""asv results as points of a history.

Reads the files of asv 0.6: ``benchmarks.json`` (api version 2) with units and parameter names, and per machine a folder
with ``machine.json`` (1) and one file per commit and environment (2). In a result, a number is a value, ``null`` a
failed benchmark, NaN a skipped or unselected one. asv does not record how a benchmark ran, so the name of its
environment distinguishes series.
"""

from __future__ import annotations

import ast
import datetime
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fluxperf.errors import RecordError
from fluxperf.harness.points import Point

#: Api versions of the files, by kind.
VERSIONS = {"benchmarks.json": 2, "machine.json": 1, "results": 2}


#: Maximum number of failed combinations of parameters of one benchmark: a short line can stand for any number of them.
MOST_FAILED = 10_000

#: Maximum number of points of one import: about a gigabyte.
MOST_POINTS = 1_000_000


class Imported(NamedTuple):
    """Points of all results, and a sentence for each file or benchmark that could not be used."""

    points: list[Point]
    problems: list[str]


class _DamagedError(Exception):
    """A file or row that does not have the format of asv. Its text ends the sentence that names it."""


class _File(NamedTuple):
    """Fields that all rows of a result file share."""

    machine: str
    commit: str
    date_utc: str
    environment: dict[str, str]
    columns: list[str]
    variant: dict[str, str]


def import_results(folder: Path) -> Imported:
    """Points of every machine, commit and benchmark below asv's results folder.

    Damaged files and benchmarks are left out and named. The rest is imported.

    Args:
        folder: asv's ``results_dir``, with ``benchmarks.json`` and a folder per machine.

    Raises:
        RecordError: it is not such a folder, or contains nothing usable.
    """
    try:
        benchmarks = _loaded(folder / "benchmarks.json", "benchmarks.json")
    except _DamagedError as error:
        there = (folder / "benchmarks.json").exists()
        advice = "Run `asv run` to write it again." if there else "Give the results_dir of asv.conf.json."
        found = str(error) if folder.is_dir() else "there is no such folder."
        raise RecordError(
            f"import-asv {folder}: expected asv's results folder, which contains benchmarks.json; {found} {advice}"
        ) from error
    points: list[Point] = []
    problems: list[str] = []
    for machine_file in sorted(folder.glob("*/machine.json")):
        try:
            machine = _name(_loaded(machine_file, "machine.json").get("machine"), "a machine's name")
        except _DamagedError as error:
            problems.append(f"{machine_file.parent}: left out, because of its machine.json; {error}")
            continue
        for path in sorted(machine_file.parent.glob("*.json")):
            if path != machine_file:
                _import_file(path, machine, benchmarks, points, problems)
    if not points:
        said = " ".join(problems) or "there is no result of any machine."
        raise RecordError(
            f"import-asv {folder}: expected results of at least one benchmark, but nothing could be imported: {said} "
            "Run `asv run` first."
        )
    return Imported(points, problems)


def _import_file(
    path: Path, machine: str, benchmarks: Mapping[str, Any], points: list[Point], problems: list[str]
) -> None:
    """Adds the points of one result file, or its problems."""
    try:
        data = _loaded(path, "results")
        file = _described(data, machine)
    except _DamagedError as error:
        problems.append(f"{path}: left out; {error}")
        return
    for name, row in data["results"].items():
        try:
            points.extend(_points(file, name, row, benchmarks.get(name)))
            if len(points) > MOST_POINTS:
                raise RecordError(
                    f"import-asv {path}: expected at most {MOST_POINTS:,} points in all, found more. Import fewer "
                    "machines at a time."
                )
        except _DamagedError as error:
            problems.append(f"{path}, benchmark {name}: left out; {error}")


def _loaded(path: Path, kind: str) -> dict[str, Any]:
    """A JSON object with the supported ``version``."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except OSError as error:
        raise _DamagedError(f"{path.name} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise _DamagedError(f"{path.name} is not JSON ({error}); it is damaged or incomplete.") from error
    if not isinstance(data, dict):
        raise _DamagedError(f"{path.name}: expected a JSON object, got {type(data).__name__}.")
    if data.get("version") != VERSIONS[kind]:
        raise _DamagedError(
            f"{path.name}: expected api version {VERSIONS[kind]} of asv 0.6, got {data.get('version')!r}; "
            "`asv update` rewrites files of an older asv."
        )
    return data


def _whole(digits: str) -> int | float:
    """A whole number. A number outside of the range of any clock or counter is a float, or infinite."""
    return int(digits) if len(digits) < 20 else float(digits)


def _described(data: Mapping[str, Any], machine: str) -> _File:
    """Reads the fields that all rows of a result file share."""
    try:
        params: Mapping[str, Any] = data["params"]
        environment = {name: str(params[name]) for name in ("os", "cpu", "ram") if params.get(name)}
        file = _File(
            machine=machine,
            commit=_name(data["commit_hash"], "a commit's name"),
            date_utc=_utc(data["date"]),
            environment=environment,
            columns=[str(name) for name in data["result_columns"]],
            variant={"environment": str(data["env_name"])},
        )
        rows = data["results"]
    except (KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"expected the fields of asv 0.6, but {error} is missing or of another type.") from error
    if not isinstance(rows, dict) or not {"result", "params", "version"} <= set(file.columns):
        raise _DamagedError("expected results with columns result, params and version.")
    return file


def _name(value: Any, what: str) -> str:
    """A text that identifies a series: an empty one would combine all others of its kind."""
    if not isinstance(value, str) or not value.strip():
        raise _DamagedError(f"expected {what}, got {value!r:.40}.")
    return value


def _utc(milliseconds: Any) -> str:
    """A commit's date in asv's milliseconds, as ISO 8601."""
    if not isinstance(milliseconds, int | float) or not math.isfinite(milliseconds):
        raise _DamagedError(f"expected a date in milliseconds, got {milliseconds!r}.")
    try:
        return datetime.datetime.fromtimestamp(milliseconds / 1e3, datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError) as error:
        raise _DamagedError(f"expected a date in milliseconds, got {milliseconds!r}.") from error


def _points(file: _File, name: str, row: Any, benchmark: Any) -> Iterator[Point]:
    """Points of one benchmark, one for each combination of its parameters."""
    if not isinstance(row, list) or len(row) > len(file.columns):
        raise _DamagedError(f"expected a row of at most {len(file.columns)} columns, got {str(row)[:60]}.")
    if not isinstance(benchmark, dict):
        raise _DamagedError(
            "benchmarks.json does not contain it, so its unit is unknown; run `asv run` at the current commit."
        )
    columns = dict(zip(file.columns, row, strict=False))
    given = _parameters(columns.get("params") or [])
    number = math.prod(map(len, given))
    if columns.get("result") is None and number > MOST_FAILED:
        raise _DamagedError(f"expected at most {MOST_FAILED} combinations of parameters without a value, got {number}.")
    lists = {
        column: _aligned(column, columns.get(column), number)
        for column in ("result", "stats_ci_99_a", "stats_ci_99_b", "stats_repeat")
    }
    names, unit = _known(benchmark, len(given))
    for index, combination in enumerate(itertools.product(*given)):
        value, missing = _value(lists["result"][index])
        parameters = dict(zip(names, combination, strict=False))
        samples = lists["stats_repeat"][index]
        yield Point(
            source="asv",
            commit=file.commit,
            date_utc=file.date_utc,
            machine=file.machine,
            environment=file.environment,
            metric=name,
            workload=parameters.pop("workload", ""),
            rung=parameters.pop("rung", ""),
            variant={**file.variant, **parameters, "version": str(columns.get("version"))[:8]},
            unit=unit,
            exact=benchmark.get("type") == "track" and unit != "seconds",
            value=value,
            missing=missing,
            low=_value(lists["stats_ci_99_a"][index])[0],
            high=_value(lists["stats_ci_99_b"][index])[0],
            samples=int(samples) if isinstance(samples, int | float) and math.isfinite(samples) else 0,
        )


def _known(benchmark: Mapping[str, Any], number: int) -> tuple[list[str], str]:
    """Names of a benchmark's parameters, as many as a result has, and its unit."""
    names, unit, kind = benchmark.get("param_names"), benchmark.get("unit"), benchmark.get("type")
    if not isinstance(unit, str) or not isinstance(kind, str) or not isinstance(names, list):
        raise _DamagedError(
            f"expected unit, type and param_names of it in benchmarks.json, got {str([unit, kind, names])[:60]}; "
            "run `asv run` at the current commit."
        )
    # Earlier results may have more parameters. asv also counts those.
    return [*map(str, names), *(f"param{place + 1}" for place in range(len(names), number))], unit


def _parameters(params: Any) -> list[list[str]]:
    """Values of every parameter, in the order of asv's combinations: the last one changes first."""
    if not isinstance(params, list) or not all(isinstance(values, list) for values in params):
        raise _DamagedError(f"expected lists of parameters, got {str(params)[:60]}.")
    return [[_plain(value) for value in values] for values in params]


def _plain(value: Any) -> str:
    """A parameter as text: asv stores its ``repr``, so texts are in quotes."""
    try:
        plain = ast.literal_eval(str(value))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return str(value)
    return plain if isinstance(plain, str) else str(value)


def _aligned(column: str, values: Any, number: int) -> list[Any]:
    """A column as one value per combination. asv writes ``null`` if all are missing."""
    if values is None:
        return [None] * number
    if not isinstance(values, list) or len(values) != number:
        got = len(values) if isinstance(values, list) else type(values).__name__
        raise _DamagedError(f"expected {number} values of {column}, one per combination of parameters, got {got}.")
    return values


def _value(value: Any) -> tuple[float | None, str]:
    """A value, or ``None`` with the reason."""
    if value is None:
        return None, "failed"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None, "not a number"
    if math.isnan(value):
        return None, "skipped"
    return (float(value), "") if math.isfinite(value) else (None, "not finite")
