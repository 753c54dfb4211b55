"""Independent readers that check what fluxperf read from a damaged file. They share no code with fluxperf's readers.

Each one receives the file and the value that was read, and raises if the value is not what the file contains.
"""

from __future__ import annotations

import datetime
import json
import math
import sqlite3
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.device.host import HostDevice
from fluxperf.engine.model.weights import parameters
from fluxperf.harness.asv_results import Imported
from fluxperf.harness.calibration import Calibration
from fluxperf.harness.points import PointsFile
from fluxperf.harness.policy import Policy
from fluxperf.harness.records import RecordsFile
from fluxperf.harness.timeline.model import Timeline
from fluxperf.pipeline.embeddings import Stored
from fluxperf.pipeline.folder import ModelFolder
from fluxperf.pipeline.jobs import Job
from fluxperf.recording import Reference
from tests.model.weight_files import STEM, State, write_folder

#: Element types by their names in safetensors.
_ELEMENTS: dict[str, Any] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "U8": np.uint8, "I8": np.int8,
    "I16": np.int16, "U16": np.uint16, "I32": np.int32, "U32": np.uint32, "I64": np.int64, "U64": np.uint64,
    "BOOL": np.bool_,
}  # fmt: skip


def agree(said: Any, meant: Any, at: str = "") -> None:
    """The value agrees with the document in all fields that both have; dates in a document are texts."""
    if isinstance(said, Mapping) and isinstance(meant, Mapping):
        for key in said.keys() & meant.keys():
            agree(said[key], meant[key], f"{at}/{key}")
    elif isinstance(said, list | tuple) and isinstance(meant, list):
        assert len(said) == len(meant), at
        for index, (one, other) in enumerate(zip(said, meant, strict=True)):
            agree(one, other, f"{at}/{index}")
    elif isinstance(meant, datetime.date):
        assert str(said) == str(meant), at
    else:
        assert isinstance(said, str) == isinstance(meant, str), at
        assert said == meant, f"{at}: {said!r} was read of {meant!r}"
        assert not isinstance(said, float) or math.isfinite(said), at


def lines_of(path: Path, problems: Sequence[str]) -> list[Any]:
    """The objects of a JSON Lines file whose lines are not named as bad."""
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip() and not any(f", line {number}:" in problem for problem in problems):
            # Invalid UTF-8 is allowed in fields that no reader uses.
            found.append(json.loads(line.decode(errors="replace")))
    return found


def records(path: Path, found: RecordsFile) -> None:
    agree([msgspec.to_builtins(record) for record in found.records], lines_of(path, found.problems))


def points(path: Path, found: PointsFile) -> None:
    agree([msgspec.to_builtins(point) for point in found.points], lines_of(path, found.problems))


def policy(path: Path, found: Policy) -> None:
    """Every key of the document was read."""
    meant, said = tomllib.loads(path.read_text()), msgspec.to_builtins(found)
    assert meant.keys() <= said.keys()
    for table in ("noisy", "slow", "exact"):
        for name, row in meant.get(table, {}).items():
            assert row.keys() <= said[table][name].keys()
    agree(said, meant)


def calibration(path: Path, found: Calibration) -> None:
    meant = json.loads(path.read_text())
    assert meant["rows"].keys() == found.rows.keys()
    agree(msgspec.to_builtins(found), meant)


def _plainly(path: Path) -> Any:
    """A JSON document; bytes and numbers that no reader uses may be invalid."""
    text = path.read_bytes().decode(errors="replace")
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 1000 else 0)


def document(path: Path, found: Any) -> None:
    agree(msgspec.to_builtins(found), _plainly(path))


def trace(path: Path, found: Timeline) -> None:
    """There are at most as many kernels as the document has events of that kind."""
    text = _plainly(path)
    events = text["traceEvents"] if isinstance(text, dict) else text
    known = sum(isinstance(event, dict) and event.get("cat") in ("kernel", "Kernel") for event in events)
    assert len(found.work.taken(found.work.flags("kernel"))) <= known


def reference(path: Path, found: Reference) -> None:
    """Damage that the file's checksum does not detect must not change a value."""
    with zipfile.ZipFile(path) as file, file.open("latents.npy") as numbers:
        meant = np.lib.format.read_array(numbers)
    assert np.array_equal(found.latents, meant)


def latents(path: Path, found: tuple[Any, int, int, dict[str, str]]) -> None:
    (meant,) = tensors(path).values()
    assert np.array_equal(found[0], meant)
    assert found[0].shape[1] == found[1] * found[2]


def scheduler(path: Path, found: ModelFolder) -> None:
    meant = json.loads(path.read_text(encoding="utf-8-sig"))
    assert found.shifted == bool(meant.get("use_dynamic_shifting", False))
    assert found.shifted or found.shift == meant.get("shift", 1.0)
    assert meant.get("num_train_timesteps", 1000) == 1000


def prompts(path: Path, found: Sequence[Job]) -> None:
    """Each number of each line gives a picture of its own."""
    text = path.read_text(encoding="utf-8-sig")
    rows = [json.loads(line) for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    wanted = [(row, index) for row in rows for index in range(row.get("num_images") or 1)]
    assert len(found) == len(wanted) == len({job.output for job in found})
    for job, (row, index) in zip(found, wanted, strict=True):
        assert job.prompt == row["prompt"]
        assert job.seed == (row.get("seed") or 0) + index
        assert (job.height, job.width) == (row.get("height") or 64, row.get("width") or 64)
        assert (job.steps, job.guidance) == (row.get("steps"), row.get("guidance"))
        assert job.output is not None
        assert job.output.is_relative_to("out")
        assert ".." not in job.output.parts


def asv(folder: Path, found: Imported) -> None:
    """Every point is a value of the result file, with its commit, machine and day, and the unit of its benchmark."""
    host = folder / "host"
    row = json.loads((host / "result.json").read_text())
    benchmarks = json.loads((folder / "benchmarks.json").read_text())
    machine = str(json.loads((host / "machine.json").read_text())["machine"])
    day = datetime.datetime.fromtimestamp(row["date"] / 1e3, datetime.UTC).isoformat(timespec="seconds")
    place = row["result_columns"].index("result")
    for point in found.points:
        assert (point.commit, point.machine, point.date_utc) == (str(row["commit_hash"]), machine, day)
        assert point.unit == str(benchmarks[point.metric]["unit"])
        if point.value is not None:
            values = row["results"][point.metric][place]
            assert any(point.value == value for value in values if isinstance(value, int | float))
    for name, columns in row["results"].items():
        if not any(f"benchmark {name}:" in problem for problem in found.problems):
            given = dict(zip(row["result_columns"], columns, strict=False)).get("params") or []
            number = sum(point.metric == name for point in found.points)
            assert number == math.prod(len(values) for values in given)


def tensors(path: Path) -> State:
    """Tensors of a safetensors file as float32, read by the format's definition: a length, a JSON header, data."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    found = {}
    for name, row in header.items():
        if name == "__metadata__":
            continue
        first, last = row["data_offsets"]
        numbers = np.frombuffer(data[end + first : end + last], _ELEMENTS[row["dtype"]])
        found[name] = numbers.reshape(row["shape"]).astype(np.float32)
    return found


def weights_of(folder: Path) -> State:
    """All weights of a model in float32, as fluxperf places them."""
    source = Checkpoint(folder)
    device, paths = HostDevice(), parameters(source.config)
    placed = {path: source.put(device, path, shape, "float32") for path, shape in paths.items()}
    return {path: device.door.to_host(numbers, "weights") for path, numbers in placed.items()}


def same(found: State, wanted: State) -> None:
    assert found.keys() == wanted.keys()
    assert [name for name in found if not np.array_equal(found[name], wanted[name])] == []


def weights(path: Path, _: object) -> None:
    """The weights equal those of an intact file with the tensors that this file has by definition."""
    beside = path.parent.with_name("oracle")
    write_folder(beside, tensors(path))
    same(weights_of(path.parent), weights_of(beside))


def shards(path: Path, _: object) -> None:
    """The weights equal those of all shards together: an index only says where tensors are."""
    beside, together = path.parent.with_name("oracle"), State()
    for file in path.parent.glob("*.safetensors"):
        together |= tensors(file)
    write_folder(beside, together)
    same(weights_of(path.parent), weights_of(beside))


#: Keys of a configuration that define the model.
_SIZES = {
    "num_layers": "double_blocks", "num_single_layers": "single_blocks", "num_attention_heads": "heads",
    "attention_head_dim": "head_dim", "in_channels": "in_channels", "joint_attention_dim": "text_dim",
    "pooled_projection_dim": "pooled_dim", "guidance_embeds": "guidance",
}  # fmt: skip


def config(path: Path, _: object) -> None:
    """The model has the configuration's sizes, and its weights are unchanged."""
    source, meant = Checkpoint(path.parent), json.loads(path.read_text())
    for word, name in _SIZES.items():
        if meant.get(word) is not None:
            assert getattr(source.config, name) == meant[word], word
    if meant.get("axes_dims_rope") is not None:
        assert list(source.config.axes) == meant["axes_dims_rope"]
    weights(path.parent / STEM, None)


def embeddings(path: Path, found: Stored) -> None:
    wanted = tensors(path)
    text = wanted["prompt_embeds"].reshape(len(found.rows), -1, wanted["prompt_embeds"].shape[-1])
    pooled = wanted["pooled_prompt_embeds"].reshape(len(found.rows), -1)
    for number, row in enumerate(found.rows):
        assert np.array_equal(row.text, text[number])
        assert np.array_equal(row.pooled, pooled[number])
        assert np.isfinite(row.text).all()


def timeline(path: Path, found: Timeline) -> None:
    """Every kernel that SQLite finds, and no other; one with impossible times is excluded."""
    with closing(sqlite3.connect(path)) as base:
        tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        sought = 'SELECT start, "end" FROM CUPTI_ACTIVITY_KIND_KERNEL'
        rows = base.execute(sought).fetchall() if "CUPTI_ACTIVITY_KIND_KERNEL" in tables else []
    kernels = found.work.taken(found.work.flags("kernel"))
    timed = [(start, end) for start, end in rows if (start or 0, end or 0) != (0, 0)]
    assert len(kernels) == len(timed)
    sound = sorted(
        (start, end)
        for start, end in timed
        if isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < 2**61
    )
    read = sorted(zip(kernels.start_ns.tolist(), kernels.end_ns.tolist(), strict=True))
    assert [pair for pair in read if pair in set(sound)] == sound
