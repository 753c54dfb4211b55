"""Seeded damage to files of every kind that is read: an error of fluxperf's own or a result, never anything else.

``FLUXPERF_BREAK`` is how many inputs each kind gets; ``make break`` gives it 5,000 and prints what came of them.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import config_named
from fluxperf.errors import FluxperfError, RecordError
from fluxperf.harness.asv_results import import_results
from fluxperf.harness.calibration import Calibrated, Calibration, parse_calibration
from fluxperf.harness.columns import points_of
from fluxperf.harness.points import read_points
from fluxperf.harness.policy import parse_policy
from fluxperf.harness.records import read_records
from fluxperf.harness.timeline.findings import findings
from fluxperf.harness.timeline.nsys import read_capture
from fluxperf.harness.timeline.summary import summarize
from fluxperf.pipeline.embeddings import Embedded, Words, load_embeddings, save_embeddings
from fluxperf.pipeline.jobs import Defaults, jobs_of, read_prompts
from tests.breaking.hostile import POLICY, asv
from tests.history.making import point, record
from tests.model.rung_runs import Rung
from tests.model.weight_files import SMALL, STEM, diffusers_shapes, random_state, write_folder, write_shards
from tests.timeline.making import example

#: Inputs of a kind.
INPUTS = int(os.environ.get("FLUXPERF_BREAK", "40"))

#: Seconds of this process that one input may take, and what all of a kind may take of memory, in KiB.
MOST_S, MOST_KIB = 5.0, 2**20

#: What is put in place of a part: numbers, also at their ends, nests, controls, bytes that are no UTF-8, and nothing.
PARTS = (
    b"1", b"2.5", b'"a"', b" ",
    b"", b"-1", b"1e999", b"1" + b"0" * 400, b"9" * 5000, b"NaN", b"null", b"true", b'""', b"[]", b"{}", b"[" * 3000,
    b"\xff\xfe", b"\x00", b"\n", b'"\\u202e[/x]"', b"../../x", b'"', b"}", b"=", b"x" * 10_000,
)  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Content with one to three parts replaced, removed, doubled or cut off; often at the ends of words.

    Every fifth has a blank more or another digit only, so that some of each kind are read.
    """
    if draw.random() < 0.2:
        digits = [at for at, byte in enumerate(content) if chr(byte).isdigit()] or [0]
        start = draw.choice(digits) if draw.random() < 0.5 else draw.randint(0, len(content))
        return content[:start] + draw.choice((b" ", b"1", b"2")) + content[start + draw.randint(0, 1) :]
    for _ in range(draw.randint(1, 3)):
        ends = [at for at, byte in enumerate(content) if byte in b' ,:[]{}"=\n'] or [0]
        start = draw.choice(ends) + draw.randint(0, 1) if draw.random() < 0.8 else draw.randint(0, len(content))
        end = min([at for at in ends if at > start] or [len(content)]) if draw.random() < 0.8 else start + 1
        content = content[:start] + draw.choice((*PARTS, content[start:end] * 2)) + content[end:]
        if draw.random() < 0.05:
            content = content[: draw.randint(0, len(content))]
    return content


def damaged_header(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file with damage to its header, whose length is that of the new one or stays, or to its numbers."""
    end = 8 + int.from_bytes(content[:8], "little")
    header, numbers = content[8:end], content[end:]
    kind = draw.random()
    if kind < 0.4:
        header = bytearray(header)
        digits = [at for at, byte in enumerate(header) if chr(byte).isdigit()]
        for at in draw.sample(digits, draw.randint(1, 3)):
            header[at] = draw.choice(b"0123456789-")
    elif kind < 0.8:
        header = damaged(header, draw)
    else:
        numbers = damaged_pages(numbers, draw)
    length = len(header) if draw.random() < 0.9 else draw.choice((0, 1, len(header) + 1, 2**40, 2**63, 2**64 - 1))
    whole = length.to_bytes(8, "little") + header + numbers
    return whole if draw.random() < 0.95 else whole[: draw.randint(0, len(whole))]


def damaged_pages(content: bytes, draw: random.Random) -> bytes:
    """Bytes replaced anywhere, few or many, or a page of 4,096 copied over another."""
    data = bytearray(content)
    if draw.random() < 0.2 and len(data) > 3 * 4096:
        source, target = (4096 * draw.randrange(len(data) // 4096) for _ in range(2))
        data[target : target + 4096] = data[source : source + 4096]
        return bytes(data)
    for _ in range(draw.choice((1, 20, 400))):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


#: What is put into cells: of other types, at the ends of integers and times, and text that is no name.
CELLS = (None, -1, 0, 1, 2**31, 2**63 - 1, -(2**63), 1e300, "text", "", "\x1b[31m\u202e", "x" * 10_000, b"\xff\x00")


def damaged_schema(content: bytes, draw: random.Random) -> bytes:
    """An SQLite database with tables and columns renamed or gone, rows gone or doubled, and cells replaced."""
    with closing(sqlite3.connect(":memory:")) as base:
        base.deserialize(content)
        for _ in range(draw.randint(1, 3)):
            tables = [name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            table = draw.choice(tables)
            column = draw.choice([row[1] for row in base.execute(f'PRAGMA table_info("{table}")')])
            where = draw.choice(("", " WHERE rowid = 1", " WHERE rowid % 2"))
            change, values = draw.choice(
                (
                    (f'DROP TABLE "{table}"', ()),
                    (f'ALTER TABLE "{table}" RENAME TO "{table}_"', ()),
                    (f'ALTER TABLE "{table}" DROP COLUMN "{column}"', ()),
                    (f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "{column}_"', ()),
                    (f'DELETE FROM "{table}"{where}', ()),
                    (f'INSERT INTO "{table}" SELECT * FROM "{table}"{where}', ()),
                    *((f'UPDATE "{table}" SET "{column}" = ?{where}', (cell,)) for cell in CELLS),
                )
            )
            with suppress(sqlite3.OperationalError):  # the last column of a table stays
                base.execute(change, values)
        base.commit()
        return base.serialize()


class Kind(NamedTuple):
    """Files of one kind: how a sound one is made, what is tried on it, and how it is damaged.

    ``make`` is given a folder and returns the file in it that is damaged.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    damage: Callable[[bytes, random.Random], bytes] = damaged


def holds(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """Makes a file of that name and content."""

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


def _points(path: Path) -> None:
    found = read_points(path)
    if found.problems:
        raise RecordError(found.problems[0])


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


def _load(path: Path) -> None:
    """All of a model: whatever a folder holds, and whatever one of its files says."""
    Rung("tensorcore", Checkpoint(path.parent))


def _timeline(path: Path) -> None:
    timeline = read_capture(path)
    summarize(timeline)
    findings(timeline)


EXPORT = Path("export.sqlite")

KINDS: dict[str, Kind] = {
    "records": Kind(
        holds("r.jsonl", lambda: msgspec.json.encode(record(1)) + b"\n"),
        lambda path: [list(points_of(row)) for row in read_records(path).records],
    ),
    "points": Kind(holds("p.points.ndjson", lambda: msgspec.json.encode(point(1, 1.0)) + b"\n"), _points),
    "policies": Kind(holds("policy.toml", POLICY.read_bytes), lambda path: parse_policy(path.read_bytes(), "p")),
    "calibrations": Kind(holds("c.json", _calibration), lambda path: parse_calibration(path.read_bytes(), "c")),
    "prompts": Kind(
        holds("prompts.jsonl", _prompts),
        lambda path: jobs_of(read_prompts(path), [], Defaults(64, 64, None, None, 0, 1), Path("out"), None),
    ),
    "asv's results": Kind(_asv("host/result.json"), lambda path: import_results(path.parents[1])),
    "asv's machines": Kind(_asv("host/machine.json"), lambda path: import_results(path.parents[1])),
    "asv's benchmarks": Kind(_asv("benchmarks.json"), lambda path: import_results(path.parent)),
    "safetensors headers": Kind(lambda folder: write_folder(folder, STATE) / STEM, _load, damaged_header),
    "shard indexes": Kind(lambda folder: write_shards(folder, STATE, 3) / f"{STEM}.index.json", _load),
    "model configs": Kind(lambda folder: write_folder(folder, STATE) / "config.json", _load),
    "embeddings": Kind(_embeddings, lambda path: load_embeddings(path, TINY), damaged_header),
    "Nsight's pages": Kind(lambda folder: example().write(folder / EXPORT), _timeline, damaged_pages),
    "Nsight's schemas": Kind(lambda folder: example().write(folder / EXPORT), _timeline, damaged_schema),
}


def refused(path: Path, content: bytes, read: Callable[[Path], object]) -> bool:
    """Whether it was."""
    path.write_bytes(content)
    try:
        read(path)
    except FluxperfError:
        return True
    return False


def _peak() -> int:
    """Most memory that this process had, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    path = KINDS[kind].make(tmp_path)
    content = path.read_bytes()
    assert not refused(path, content, KINDS[kind].read), "what is not damaged is read"
    count, longest, before = 0, 0.0, _peak()
    for seed in range(INPUTS):
        start = time.process_time()
        try:
            count += refused(path, KINDS[kind].damage(content, random.Random(f"{kind} {seed}")), KINDS[kind].read)
        except Exception as error:
            error.add_note(f"{kind}, seed {seed}")
            raise
        longest = max(longest, time.process_time() - start)
    more = _peak() - before
    assert longest < MOST_S
    assert more < MOST_KIB
    assert 0 < count < INPUTS, "some are refused, others read"
    print(f"{kind}: {INPUTS} inputs, {count} refused, 0 tracebacks, {longest:.2f} s at most, {more >> 10} MiB more")
