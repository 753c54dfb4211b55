"""Seeded damage to files of every kind that is read: an error of fluxperf's own or a result, never anything else.

``FLUXPERF_BREAK`` is how many inputs each kind gets; ``make break`` gives it 5,000.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fluxperf.errors import FluxperfError
from fluxperf.harness.asv_results import import_results
from fluxperf.harness.calibration import parse_calibration
from fluxperf.harness.points import points_of, read_points
from fluxperf.harness.policy import parse_policy
from fluxperf.harness.records import read_records
from fluxperf.pipeline.jobs import Defaults, jobs_of, read_prompts
from tests.breaking.hostile import POLICY, asv
from tests.history.making import point, record

INPUTS = int(os.environ.get("FLUXPERF_BREAK", "60"))

#: What is put in place of a part: numbers at their ends, nests, controls, bytes that are no UTF-8, and nothing.
PARTS = (
    b"", b"-1", b"1e999", b"1" + b"0" * 400, b"9" * 5000, b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"[" * 3000,
    b"\xff\xfe", b"\x00", b"\n", b'"\\u202e[/x]"', b"../../x", b'"', b"}", b"=", b"x" * 10_000,
)  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Content with one to three parts replaced, removed, doubled or cut off; often at the ends of words."""
    for _ in range(draw.randint(1, 3)):
        ends = [at for at, byte in enumerate(content) if byte in b' ,:[]{}"=\n'] or [0]
        start = draw.choice(ends) + draw.randint(0, 1) if draw.random() < 0.8 else draw.randint(0, len(content))
        end = min([at for at in ends if at > start] or [len(content)]) if draw.random() < 0.8 else start + 1
        content = content[:start] + draw.choice((*PARTS, content[start:end] * 2)) + content[end:]
        if draw.random() < 0.05:
            content = content[: draw.randint(0, len(content))]
    return content


def _prompts(path: Path) -> None:
    jobs_of(read_prompts(path), [], Defaults(64, 64, None, None, 0, 1), Path("out"), None)


KINDS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], object]]] = {
    "records": (
        "r.jsonl",
        lambda: msgspec.json.encode(record(1)) + b"\n",
        lambda path: [list(points_of(row)) for row in read_records(path).records],
    ),
    "points": ("p.points.ndjson", lambda: msgspec.json.encode(point(1, 1.0)) + b"\n", read_points),
    "policies": ("policy.toml", POLICY.read_bytes, lambda path: parse_policy(path.read_bytes(), "p")),
    "calibrations": (
        "c.json",
        lambda: b'{"schema":1,"machine":"m","rows":{"a/b/c":{"spread":0.1,"detectable":null,"pairs":8,"alpha":0.02}}}',
        lambda path: parse_calibration(path.read_bytes(), "c"),
    ),
    "prompts": (
        "prompts.jsonl",
        lambda: b'{"prompt": "a", "seed": 1, "height": 64, "num_images": 2, "output": "x.png", "guidance": 3.5}\n' * 2,
        _prompts,
    ),
}


def tried(path: Path, content: bytes, read: Callable[[Path], object]) -> bool:
    """Whether it was refused."""
    path.write_bytes(content)
    try:
        read(path)
    except FluxperfError:
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    name, make, read = KINDS[kind]
    content = make()
    refused = sum(
        tried(tmp_path / name, damaged(content, random.Random(f"{kind} {seed}")), read) for seed in range(INPUTS)
    )
    print(f"{kind}: {INPUTS} inputs, {refused} refused, 0 tracebacks")


@pytest.mark.parametrize("file", ["host/result.json", "host/machine.json", "benchmarks.json"])
def test_damaged_results_of_asv_are_refused_or_read(tmp_path: Path, file: str) -> None:
    folder = asv(tmp_path / "asv")
    content = json.dumps(json.loads((folder / file).read_text())).encode()
    draws = (random.Random(f"{file} {seed}") for seed in range(INPUTS // 3))
    refused = sum(tried(folder / file, damaged(content, draw), lambda _: import_results(folder)) for draw in draws)
    print(f"asv {file}: {INPUTS // 3} inputs, {refused} refused, 0 tracebacks")
