"""Loading through the door: the same values as from the whole file at once, for any chunks, dtypes and layout."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from fluxperf.cli.loading import LoadingBar
from fluxperf.cli.loading import loaded as in_words
from fluxperf.engine.checkpoints import layouts
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.reader import Descriptors, Reader, Stretch, all_finite
from fluxperf.engine.checkpoints.sources import SyntheticWeights
from fluxperf.engine.config import config_named
from fluxperf.engine.device.host import HostDevice, host_dtype
from fluxperf.engine.model.weights import parameters
from fluxperf.engine.phases import phase_named, table
from fluxperf.errors import CheckpointError
from fluxperf.harness.records import LoadRow, read_records
from fluxperf.workloads import Placed, drawn, workload_named
from tests.model.rung_runs import Rung
from tests.model.weight_files import (
    SMALL,
    STEM,
    diffusers_shapes,
    original_layout,
    random_state,
    write_folder,
    write_shards,
    write_tensors,
)

STATE = random_state(diffusers_shapes(SMALL), seed=9)
ORIGINAL = original_layout(STATE, SMALL)
FILE_DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16)
LAYOUTS = {
    "original": lambda folder: write_tensors(folder / "model.safetensors", ORIGINAL),
    "folder": lambda folder: write_folder(folder / "model", STATE),
    "shards": lambda folder: write_shards(folder / "model", STATE, 3),
}


def whole(path, dtype):
    """Canonical tensors as numbers, read by the safetensors library, converted and stacked in one go."""
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors"))
    tensors = {name: x for file in files for name, x in load_file(file).items()}
    config = Checkpoint(path).config
    recipes = layouts.original(config) if path.is_file() else layouts.diffusers(config)
    return {
        key: np.concatenate([tensors[name][start:stop].astype(host_dtype(dtype)) for name, start, stop in pieces])
        for key, pieces in recipes.items()
    }


def loaded(path, dtype, chunk=1 << 22, readers=4):
    """Canonical tensors as the door loads them, in one region, and the device."""
    device, source = HostDevice(), Checkpoint(path)
    device.door.chunk_bytes, device.door.readers = chunk, readers
    with device.door.streaming():
        arrays = {key: source.put(device, key, shape, dtype) for key, shape in parameters(source.config).items()}
    crossings = list(device.door.ledger.crossings)
    return {key: device.door.to_host(array, "back") for key, array in arrays.items()}, crossings


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("chunk", [60, 4096, 1 << 22])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_numbers_are_those_of_the_files(tmp_path, layout, chunk, dtype):
    """60 bytes are less than a row of most tensors."""
    path = LAYOUTS[layout](tmp_path)
    expected = whole(path, dtype)
    got, crossings = loaded(path, dtype, chunk)
    assert got.keys() == expected.keys()
    for key, numbers in expected.items():
        assert got[key].dtype == numbers.dtype
        assert got[key].tobytes() == numbers.tobytes(), key
    assert [(row.direction, row.label) for row in crossings] == [("h2d", "weights")] * len(expected)
    assert sum(row.bytes for row in crossings) == sum(numbers.nbytes for numbers in expected.values())


def test_both_layouts_of_a_model_give_the_same_tensors(tmp_path):
    """The tests have their own conversion: shift and scale of the final layer are exchanged."""
    one, two = (loaded(LAYOUTS[layout](tmp_path), "float32")[0] for layout in ("original", "folder"))
    assert one.keys() == two.keys()
    assert [key for key in one if one[key].tobytes() != two[key].tobytes()] == []
    last = one["modulation.bias"][-2 * SMALL.dim :]
    assert np.array_equal(last, ORIGINAL["final_layer.adaLN_modulation.1.bias"]), "shift first, as the model reads it"


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("stored", FILE_DTYPES)
def test_every_pair_of_dtypes_rounds_as_astype(tmp_path, stored, dtype):
    rng = np.random.default_rng(4)
    state = {name: rng.standard_normal(x.shape).astype(stored) for name, x in ORIGINAL.items()}
    state["img_in.weight"].reshape(-1)[:4] = np.array([1e-40, -0.0, 65504, 2**-24]).astype(stored)
    save_file(state, tmp_path / "model.safetensors")
    expected = whole(tmp_path / "model.safetensors", dtype)
    got, _ = loaded(tmp_path / "model.safetensors", dtype, chunk=96)
    assert all(got[key].tobytes() == numbers.tobytes() for key, numbers in expected.items())


def test_shards_of_different_dtypes(tmp_path):
    folder = write_shards(tmp_path, STATE, 3)
    first = sorted(folder.glob("*.safetensors"))[0]
    write_tensors(first, {name: x.astype(np.float32) for name, x in load_file(first).items()}, np.float64)
    expected = whole(folder, "bfloat16")
    got, _ = loaded(folder, "bfloat16", chunk=100)
    assert all(got[key].tobytes() == numbers.tobytes() for key, numbers in expected.items())


@pytest.mark.parametrize(
    ("bad", "place"),
    [*((np.nan, place) for place in (0, 63, 64, 127, -1)), *((bad, 63) for bad in (-np.nan, np.inf, -np.inf))],
)
@pytest.mark.parametrize("stored", FILE_DTYPES)
def test_a_bad_number_is_seen_wherever_a_chunk_ends(tmp_path, stored, bad, place):
    name = "double_blocks.0.img_mlp.2.weight"
    state = {**ORIGINAL, name: ORIGINAL[name].copy()}
    state[name].reshape(-1)[place] = bad
    path = write_tensors(tmp_path / "model.safetensors", state, stored)
    with pytest.raises(CheckpointError, match="holds NaN or infinity") as caught:
        loaded(path, "bfloat16", chunk=128)
    assert repr(name) in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("dtype", FILE_DTYPES)
def test_finite_is_what_numpy_says(dtype):
    info = ml_dtypes.finfo(dtype)
    extremes = np.array([0.0, -0.0, info.max, info.min, info.tiny, -info.tiny, info.smallest_subnormal], dtype)
    assert all_finite(extremes)
    assert all_finite(extremes[:0])
    for bad in (np.nan, -np.nan, np.inf, -np.inf):
        assert not all_finite(np.append(extremes, np.array(bad, dtype)))
    if np.dtype(dtype).itemsize == 2:
        every = np.arange(0, 1 << 16, 5, dtype=np.uint16).view(dtype)
        with np.errstate(invalid="ignore"):  # signalling NaN
            expected = np.isfinite(every).tolist()
        assert [all_finite(every[i : i + 1]) for i in range(len(every))] == expected


@pytest.mark.parametrize("left", [0.3, 0.999, -1])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_became_shorter_is_named(tmp_path, layout, left):
    """It was complete when it was opened; another program writes or truncates it."""
    path = LAYOUTS[layout](tmp_path)
    source = Checkpoint(path)
    source.stored_bytes  # noqa: B018 (the headers are read)
    file = path if path.is_file() else sorted(path.glob("*.safetensors"))[-1]
    size = file.stat().st_size
    os.truncate(file, size + left if left < 0 else int(size * left))
    with pytest.raises(CheckpointError, match="the file became shorter after it was opened") as caught:
        Rung("tensorcore", source)
    message = str(caught.value)
    assert file.name in message
    assert "tensor '" in message
    assert "download it again" in message


def test_a_file_that_went_away_is_named(tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", ORIGINAL)
    source = Checkpoint(path)
    source.stored_bytes  # noqa: B018 (the headers are read)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor '.*' cannot be read \(No such file"):
        Rung("tensorcore", source)


def test_nothing_is_counted_and_no_file_stays_open_after_an_error(tmp_path):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    state = {**ORIGINAL, "final_layer.linear.bias": np.full_like(ORIGINAL["final_layer.linear.bias"], np.nan)}
    source, device = Checkpoint(write_tensors(tmp_path / "model.safetensors", state)), HostDevice()
    with pytest.raises(CheckpointError):
        source.put(device, "final_out.bias", (SMALL.channels,), "bfloat16")
    assert device.door.ledger.crossings == []
    source.put(device, "img_in.bias", (SMALL.dim,), "bfloat16")
    assert device.door.ledger.count("h2d") == 1
    del source
    gc.collect()  # the exception's frames hold it
    assert len(os.listdir("/proc/self/fd")) <= before


def test_every_byte_of_the_files_is_reported_once(tmp_path):
    for layout, write in LAYOUTS.items():
        (tmp_path / layout).mkdir()
        source = Checkpoint(write(tmp_path / layout))
        read: list[int] = []
        source.on_bytes = read.append
        Rung("tensorcore", source)
        assert sum(read) == source.stored_bytes == 2 * sum(x.size for x in STATE.values()), layout


def test_a_reader_reads_only_the_rows_that_are_asked_for(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(np.arange(100, dtype=np.float32).tobytes())
    stretches = [Stretch("a", path, 40, 5, np.dtype(np.float32)), Stretch("b", path, 200, 3, np.dtype(np.float32))]
    read: list[int] = []
    memory = np.zeros(4 * 4, np.uint8)
    Reader(stretches, np.dtype(np.float32), Descriptors(), read.append)(3 * 4, memory)
    assert memory.view(np.float32).tolist() == [13, 14, 50, 51]
    assert read == [8, 8]


def test_a_folder_that_is_opened_by_file_streams_too(tmp_path):
    folder = write_folder(tmp_path, STATE)
    one, _ = loaded(folder / STEM, "bfloat16")
    two, _ = loaded(folder, "bfloat16")
    assert all(one[key].tobytes() == numbers.tobytes() for key, numbers in two.items())


def test_a_run_says_and_records_what_loading_took(tmp_path):
    path = write_tensors(tmp_path / "model.safetensors", ORIGINAL)
    records = tmp_path / "records.jsonl"
    options = ["--rung", "batched", "--rung", "fp8", "--device", "host", "--repeat", "1", "--text-tokens", "3"]
    command = [sys.executable, "-m", "fluxperf", "run", "--weights", str(path), "-o", str(records), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = re.findall(r"^weights: \d+\.\d MB in \d+\.\d s, \d+\.\d MB/s$", done.stderr, re.MULTILINE)
    assert len(said) == 2
    batched, fp8 = read_records(records).records
    tensors = len(parameters(Checkpoint(path).config))
    for record in (batched, fp8):
        assert record.load.bytes == sum(2 * x.size for x in ORIGINAL.values())
        assert record.load.time_s > 0
        assert record.setup_totals.h2d_copies == tensors
    assert batched.error.relative < 1e-5 < fp8.error.relative < 0.1


def test_synthetic_weights_load_nothing():
    source = SyntheticWeights(config_named("tiny"))
    prepared = drawn(Placed(HostDevice(), phase_named("batched"), table("batched"), source), workload_named("tiny"))
    assert prepared.load is None


def test_the_bar_shows_bytes_and_goes(tmp_path):
    source = Checkpoint(write_tensors(tmp_path / "model.safetensors", ORIGINAL))
    bar = LoadingBar(source)
    source.on_bytes(1)  # nothing is shown yet
    (task,) = bar.progress.bar.tasks
    assert (task.completed, task.visible) == (0, False)
    bar.begin()
    Rung("tensorcore", source)
    assert task.completed == task.total == source.stored_bytes
    console = Console(file=io.StringIO(), width=100)
    console.print(bar.progress.bar)
    assert "weights" in console.file.getvalue()
    bar.end()
    assert not task.visible


@pytest.mark.parametrize(
    ("nbytes", "seconds", "text"),
    [(23.8e9, 4.1, "weights: 23.8 GB in 4.1 s, 5.8 GB/s"), (5e6, 0.5, "weights: 5.0 MB in 0.5 s, 10.0 MB/s")],
)
def test_what_loading_took_in_words(nbytes, seconds, text):
    assert in_words(LoadRow(bytes=int(nbytes), time_s=seconds)) == text


def test_the_benchmark_runs_on_the_host(tmp_path):
    command = [sys.executable, "-m", "benchmarks.loading", "--folder", tmp_path / "disk", "--device", "host"]
    done = subprocess.run(
        [*map(str, command), "--model", "tiny-57", "--repeat", "1", "-o", str(tmp_path / "loading.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "loading.json").read_text())
    assert [row["what"] for row in result["runs"]] == ["read, cold", "load, cold", "read, warm", "load, warm"]
    assert all(row["gb_s"] > 0 for row in result["runs"])
    assert list((tmp_path / "disk").iterdir()) == []
