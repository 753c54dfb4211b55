"""Seeded damage to files of every kind that fluxperf reads.

Either it reads the file's true content, or it raises its own error.

``FLUXPERF_BREAK`` is the number of inputs per kind; ``make break`` sets it to 5,000 and prints how many were read and
refused. The content is compared with that of independent readers (`tests.breaking.oracles`).
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import config_named
from fluxperf.errors import FluxperfError, RecordError
from fluxperf.harness.asv_results import import_results
from fluxperf.harness.calibration import Calibrated, Calibration, parse_calibration
from fluxperf.harness.columns import points_of
from fluxperf.harness.compare import compare
from fluxperf.harness.comparisons import Comparisons, read_comparisons
from fluxperf.harness.facts.evidence import read_verdict
from fluxperf.harness.points import PointsFile, read_points
from fluxperf.harness.policy import parse_policy
from fluxperf.harness.records import RecordsFile, read_records
from fluxperf.harness.simulation import measured
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.ledger import read_ledger
from fluxperf.harness.timeline.model import Timeline
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.reading import read_timeline
from fluxperf.harness.timeline.summary import summarize
from fluxperf.harness.timeline.trace import trace_parts
from fluxperf.harness.verdict import as_json, conclude
from fluxperf.pipeline.embeddings import Embedded, Words, load_embeddings, save_embeddings
from fluxperf.pipeline.folder import open_folder
from fluxperf.pipeline.jobs import Defaults, jobs_of, read_prompts
from fluxperf.pipeline.latents import load_latents, save_latents
from fluxperf.recording import Reference
from fluxperf.references import keep_reference, kept_reference
from tests.breaking import oracles
from tests.breaking.damage import damaged, damaged_header, damaged_pages, damaged_schema
from tests.breaking.hostile import POLICY, asv
from tests.breaking.test_kills import embedded_model
from tests.contracts.tree import ROOT
from tests.history.making import point, record
from tests.model.rung_runs import Rung
from tests.model.weight_files import SMALL, STEM, diffusers_shapes, random_state, write_folder, write_shards
from tests.timeline.making import example

#: Number of inputs per kind.
INPUTS = int(os.environ.get("FLUXPERF_BREAK", "40"))

#: Limits: seconds of CPU time for one input, and KiB of memory for all inputs of a kind.
MOST_S, MOST_KIB = 5.0, 2**20


class Kind(NamedTuple):
    """Files of one kind: how an intact one is made, how it is damaged, and how it is read.

    ``make`` receives a folder and returns the file to damage. ``meant`` receives that file and the value that was read,
    and raises if they differ. ``share`` is the share of the inputs.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    meant: Callable[[Path, Any], None]
    damage: Callable[[bytes, random.Random], bytes] = damaged
    share: float = 1.0


def holds(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """A function that makes a file of that name and content."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content())
        return folder / name

    return make


def _calibration() -> bytes:
    row = Calibrated(spread=0.1, detectable=None, pairs=8, alpha=0.02, power=0.9, ran_as="twin", created_utc="")
    return msgspec.json.encode(Calibration(schema=1, machine="m", rows={"a/b/c": row}))


def _prompts() -> bytes:
    lines = [{"prompt": "a", "prompt_2": "b"}, {"prompt": "c", "seed": 1, "height": 64, "steps": 2, "guidance": 3.5}]
    lines += [{"prompt": "d", "num_images": 2, "output": "x.png"}, {"prompt": "e", "output": "y.png"}]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _asv(file: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = asv(folder / "asv") / file
        path.write_text(json.dumps(json.loads(path.read_text())))
        return path

    return make


def _records(path: Path) -> RecordsFile:
    found = read_records(path)
    for row in found.records:
        list(points_of(row))
    return found


def _points(path: Path) -> PointsFile:
    found = read_points(path)
    if found.problems:
        raise RecordError(found.problems[0])
    return found


STATE = random_state(diffusers_shapes(SMALL), seed=5)
TINY = config_named("tiny")


def _embeddings(folder: Path) -> Path:
    path, draw = folder / "e.safetensors", np.random.default_rng(5)
    rows = [
        Embedded(*(draw.standard_normal(shape, np.float32) for shape in ((4, TINY.text_dim), TINY.pooled_dim)))
        for _ in range(2)
    ]
    save_embeddings(path, [Words("a", ""), Words("b", "c")], rows, "encoders")
    return path


def _verdict() -> bytes:
    compared = compare([record(1)], [record(2)], parse_policy(POLICY.read_bytes(), "p"))
    return as_json(conclude(compared.rows, base="A", head="B", made=("2026-01-01T00:00:00Z", "1"))).encode()


def _comparisons() -> bytes:
    document = json.loads((ROOT / "reports" / "records" / "h100-aa.json").read_text())
    return msgspec.json.encode({**document, "comparisons": document["comparisons"][:1]})


def _power(path: Path) -> Comparisons:
    found = read_comparisons(path)
    names, draw = measured(found)
    logs = draw(np.random.default_rng(1), 4)
    assert logs.shape[0] == len(names)
    assert np.isfinite(logs).all()
    return found


def _written_trace(folder: Path) -> Path:
    parts = trace_parts(example().read(folder))
    (folder / "trace.json").write_bytes(b"".join(parts))
    return folder / "trace.json"


def _profiled() -> bytes:
    with gzip.open(ROOT / "tests" / "timeline" / "exports" / "h200-torch-kineto.json.gz") as file:
        document = json.load(file)
    events = document["traceEvents"]
    middle = len(events) // 2
    return msgspec.json.encode({**document, "traceEvents": [*events[:60], *events[middle : middle + 60]]})


def _trace(path: Path) -> Timeline:
    timeline = read_timeline(path)
    summarize(timeline)
    findings(timeline)
    return timeline


def _reference(folder: Path) -> Path:
    latents = np.random.default_rng(5).standard_normal((ROW.batch, ROW.height * ROW.width // 256, 64), np.float32)
    keep_reference(folder / "r.npz", Reference(latents, "name", "fused"), ROW, 0)
    return folder / "r.npz"


def _latents(folder: Path) -> Path:
    numbers = np.random.default_rng(5).standard_normal((1, 6, 64), np.float32)
    save_latents(folder / "l.safetensors", numbers, {"size": "48 x 32", "vae": "bfloat16"})
    return folder / "l.safetensors"


def _scheduler(folder: Path) -> Path:
    path = embedded_model(folder) / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "base_shift": 0.5,
        "use_dynamic_shifting": False, "num_train_timesteps": 1000, "max_image_seq_len": 4096}))  # fmt: skip
    return path


def _load(path: Path) -> None:
    """Loads a whole model: from a folder, or from one of its files."""
    Rung("tensorcore", Checkpoint(path.parent))


def _timeline(path: Path) -> Timeline:
    timeline = read_capture(path)
    summarize(timeline)
    findings(timeline)
    return timeline


EXPORT = Path("export.sqlite")
LEDGER = ROOT / "tests" / "timeline" / "exports" / "h100-schnell-1024-fused.ledger.json"
ROW = record(1).workload

KINDS: dict[str, Kind] = {
    "records": Kind(holds("r.jsonl", lambda: msgspec.json.encode(record(1)) + b"\n"), _records, oracles.records),
    "points": Kind(
        holds("p.points.ndjson", lambda: msgspec.json.encode(point(1, 1.0)) + b"\n"), _points, oracles.points
    ),
    "policies": Kind(
        holds("policy.toml", POLICY.read_bytes), lambda path: parse_policy(path.read_bytes(), "p"), oracles.policy
    ),
    "calibrations": Kind(
        holds("c.json", _calibration), lambda path: parse_calibration(path.read_bytes(), "c"), oracles.calibration
    ),
    "verdicts": Kind(holds("v.json", _verdict), read_verdict, oracles.document),
    "comparisons": Kind(holds("aa.json", _comparisons), _power, oracles.document),
    "ledgers": Kind(holds("ledger.json", LEDGER.read_bytes), read_ledger, oracles.document),
    "traces": Kind(_written_trace, _trace, oracles.trace),
    "profiler's traces": Kind(holds("trace.json", _profiled), _trace, oracles.trace, share=0.2),
    "references": Kind(_reference, lambda path: kept_reference(path, ROW, 0), oracles.reference, damaged_pages),
    "latents": Kind(_latents, load_latents, oracles.latents, damaged_header),
    "schedulers": Kind(
        _scheduler, lambda path: open_folder(path.parents[1], ("transformer", "scheduler")), oracles.scheduler
    ),
    "prompts": Kind(
        holds("prompts.jsonl", _prompts),
        lambda path: jobs_of(read_prompts(path), [], Defaults(64, 64, None, None, 0, 1), Path("out"), None),
        oracles.prompts,
    ),
    "asv's results": Kind(
        _asv("host/result.json"),
        lambda path: import_results(path.parents[1]),
        lambda path, found: oracles.asv(path.parents[1], found),
    ),
    "asv's machines": Kind(
        _asv("host/machine.json"),
        lambda path: import_results(path.parents[1]),
        lambda path, found: oracles.asv(path.parents[1], found),
    ),
    "asv's benchmarks": Kind(
        _asv("benchmarks.json"),
        lambda path: import_results(path.parent),
        lambda path, found: oracles.asv(path.parent, found),
    ),
    "safetensors headers": Kind(
        lambda folder: write_folder(folder / "model", STATE) / STEM, _load, oracles.weights, damaged_header, 2.0
    ),
    "shard indexes": Kind(
        lambda folder: write_shards(folder / "model", STATE, 3) / f"{STEM}.index.json", _load, oracles.shards, share=0.2
    ),
    "model configs": Kind(
        lambda folder: write_folder(folder / "model", STATE) / "config.json", _load, oracles.config, share=0.2
    ),
    "embeddings": Kind(_embeddings, lambda path: load_embeddings(path, TINY), oracles.embeddings, damaged_header),
    "Nsight's pages": Kind(
        lambda folder: example().write(folder / EXPORT), _timeline, oracles.timeline, damaged_pages, 0.2
    ),
    "Nsight's schemas": Kind(
        lambda folder: example().write(folder / EXPORT), _timeline, oracles.timeline, damaged_schema, 0.2
    ),
}


def refused(path: Path, content: bytes, kind: Kind) -> bool:
    """Whether the file was refused. If it was read, the value must be the file's content."""
    path.write_bytes(content)
    try:
        found = kind.read(path)
    except FluxperfError:
        return True
    kind.meant(path, found)
    return False


def _peak() -> int:
    """Peak memory of this process in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_refused_or_read_as_they_are_meant(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    path = kind.make(tmp_path)
    content, inputs = path.read_bytes(), round(INPUTS * max(kind.share, 40 / INPUTS))
    assert not refused(path, content, kind), "what is not damaged is read"
    count, longest, before = 0, 0.0, _peak()
    for seed in range(inputs):
        start = time.process_time()
        try:
            count += refused(path, kind.damage(content, random.Random(f"{name} {seed}")), kind)
        except Exception as error:
            error.add_note(f"{name}, seed {seed}")
            raise
        longest = max(longest, time.process_time() - start)
    more = _peak() - before
    assert longest < MOST_S
    assert more < MOST_KIB
    assert 0 < count < inputs, "some are refused, others read"
    print(
        f"{name}: {inputs} inputs, {count} refused, {inputs - count} read as they are meant, 0 tracebacks, "
        f"{longest:.2f} s at most, {more >> 10} MiB more"
    )
