"""Files with hostile names: control characters, markup, bidirectional marks and emoji codes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args

import msgspec

from fluxperf.harness.records import Record
from tests.contracts.tree import ROOT
from tests.history.making import record

#: A hostile name: starts a colour, closes a tag, reorders text, rings the bell, hides text, is an emoji code, and has
#: parts of HTML and JSON.
NAME = 'x\x1b[31m[bold]y[/nope]\u202e\x07\x00\x9b\u200b\U000e0041:smile:</script>"\\\r\n\x7f'

POLICY = ROOT / "reports" / "policy.toml"


def unsafe(text: str) -> list[str]:
    """Characters of a command's output that are not plain text."""
    allowed = "\n\t"
    return [
        char for char in text if char not in allowed and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn")
    ]


def everywhere(value: Any, kind: Any = Record) -> Any:
    """A record as plain values, with every free text replaced."""
    if isinstance(kind, UnionType):
        (kind,) = [one for one in get_args(kind) if one is not NoneType]
    if isinstance(value, dict):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            kinds = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
            return {key: everywhere(item, kinds[key]) for key, item in value.items()}
        return {f"{key}{NAME}": everywhere(item, get_args(kind)[1]) for key, item in value.items()}
    if isinstance(value, list):
        return [everywhere(item, get_args(kind)[0]) for item in value]
    return NAME if isinstance(value, str) and kind is str else value


def records(path: Path, number: int = 3, **changes: Any) -> Path:
    """A records file of hostile records of several commits."""
    rows = [everywhere(msgspec.to_builtins(record(at))) for at in range(number)]
    for at, row in enumerate(rows):
        row.update({"created_utc": f"2026-01-0{at + 1}T00:00:00Z", **changes})
        row["times_s"] = {"denoise": [[0.5, 0.6]], "step": [[0.1]], f"own{NAME}": [[1.0]]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asv(folder: Path) -> Path:
    """asv results with only hostile names, and a damaged file with a hostile name."""
    host = folder / "host"
    host.mkdir(parents=True)
    machine = {"machine": NAME, "cpu": NAME, "os": NAME, "ram": NAME}
    (host / "machine.json").write_text(json.dumps(machine | {"version": 1}))
    rows = {
        f"a.{NAME}": [[0.5, 0.6], [["1", "2"]], "1", 1],
        f"b.{NAME}": ["none", [], "1", 1],
        f"c.{NAME}": [[1], [], "1", 1],
    }
    result = {
        "commit_hash": NAME, "env_name": NAME, "date": 1_795_396_762_000, "params": machine, "version": 2,
        "result_columns": ["result", "params", "version", "started_at"], "results": rows,
    }  # fmt: skip
    (host / "result.json").write_text(json.dumps(result))
    (host / f"{NAME.replace('/', '').replace(chr(0), '')}.json").write_text("{")
    known = {"unit": NAME, "type": "time", "param_names": [NAME]}
    (folder / "benchmarks.json").write_text(json.dumps({"version": 2, f"a.{NAME}": known, f"b.{NAME}": known}))
    return folder


def policy(path: Path) -> Path:
    """A policy with an acceptance and a declaration under hostile names."""
    text = json.dumps(NAME)[1:-1].replace("\\ud", "?").replace("\\u007f", "?")
    more = f"""
[[accepted]]
metric = "tiny/{text}/times.denoise"
reason = "{text}"
author = "{text}"
date = 2026-01-01
"""
    path.write_text(POLICY.read_text() + more)
    return path
