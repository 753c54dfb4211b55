"""The witness on real GPU programs: copies planted in scripts are found at their lines.

In a script, ``# d2h`` and ``# h2d`` mark lines that copy. Copies to the host are compared exactly; there may be more
copies to the device, because libraries upload tables.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.harness.timeline.tracer import Tracer
from fluxperf.harness.timeline.transfers import Transfers
from tests.contracts import tree
from tests.witness.conftest import plugin

CUPY = """
    import cupy, cupyx, numpy, nvtx, threading
    x = cupy.asarray(numpy.arange(6, dtype=numpy.float32))  # h2d
    y = x * 2

    def reads(a):
        return float(a[0])  # d2h

    reads(y)
    y.sum().item()  # d2h
    cupy.asnumpy(y)  # d2h
    print(y)  # d2h
    y.tolist()  # d2h
    if (y > 3).any():  # d2h
        pass
    pinned = cupyx.empty_pinned(6, numpy.float32)
    y.get(out=pinned)  # d2h
    with nvtx.annotate("forward"):
        y += 1
        with nvtx.annotate("block"):
            y[1].item()  # d2h
    cupy.cuda.nvtx.RangePush("cupy's")
    y[2].item()  # d2h
    cupy.cuda.nvtx.RangePop()

    def work():
        with cupy.cuda.Stream(non_blocking=True):
            cupy.asnumpy(y)  # d2h

    threads = [threading.Thread(target=work) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    cupy.cuda.Device().synchronize()
    cupy.copyto(x, y)
"""

TORCH = """
    import torch
    x = torch.arange(6, dtype=torch.float32)
    y = x.cuda()  # h2d
    z = torch.tensor([1.0, 2.0], device="cuda")  # h2d
    y = y * 2
    y.cpu()  # d2h
    y.sum().item()  # d2h
    float(y[0])  # d2h
    print(y[:2].tolist())  # d2h
    if (y > 3).any():  # d2h
        pass
    y.to("cpu", non_blocking=True)  # d2h
    with torch.cuda.nvtx.range("torch's"):
        y[1].item()  # d2h
    torch.cuda.synchronize()
"""


def marked(script: str, word: str) -> set[int]:
    lines = textwrap.dedent(script).lstrip("\n").splitlines()
    return {number for number, line in enumerate(lines, start=1) if line.endswith(f"# {word}")}


@pytest.fixture
def witnessed(tmp_path: Path) -> Callable[..., tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]]:
    def run(script: str, *options: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
        path, rows = tmp_path / "script.py", tmp_path / "rows.jsonl"
        path.write_text(textwrap.dedent(script).lstrip("\n"))
        command = [sys.executable, "-m", "fluxperf", "witness", "-o", str(rows), *options, "--", "python", "script.py"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.ROOT), *filter(None, sys.path)])}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
        lines = rows.read_text().splitlines() if rows.exists() else []
        return done, [json.loads(line) for line in lines]

    return run


@pytest.fixture
def torch_on_gpu(gpu: CudaDevice) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs PyTorch built for CUDA")


def lines_of(rows: list[dict[str, Any]], name: str) -> set[int | None]:
    """Script lines with copies of one direction; ``None`` if a call site is missing or in another file."""
    return {
        row["line"] if str(row["file"]).endswith("/script.py") else None
        for row in rows
        if row["kind"] == "copy" and row["name"] == name
    }


def test_cupys_copies_are_found_at_their_lines(gpu, witnessed):
    done, rows = witnessed(CUPY)
    assert done.returncode == 0, done.stderr
    assert lines_of(rows, "d2h") == marked(CUPY, "d2h")
    assert lines_of(rows, "h2d") >= marked(CUPY, "h2d")
    down = [row for row in rows if row["name"] == "d2h"]
    assert {row["function"] for row in down} == {"<module>", "reads", "work"}
    assert sum(row["function"] == "work" for row in down) == 2
    assert {"forward", "block", "cupy's"} >= {name for row in down for name in row["ranges"]}
    assert [row["ranges"] for row in down if row["range"] == "block"] == [["forward", "block"]]
    assert sum(row["range"] == "cupy's" for row in down) == 1
    assert {row["source"] for row in down} == {"device"}
    assert {row["target"] for row in down} == {"pageable", "pinned"}
    assert [row["target"] for row in down if row["bytes"] == 24].count("pinned") == 1
    assert all(row["seconds"] > 0 for row in down)


def test_pytorchs_copies_are_found_at_their_lines(torch_on_gpu, witnessed):
    done, rows = witnessed(TORCH)
    assert done.returncode == 0, done.stderr
    assert lines_of(rows, "d2h") == marked(TORCH, "d2h")
    assert lines_of(rows, "h2d") >= marked(TORCH, "h2d")
    assert [row["bytes"] for row in rows if row["range"] == "torch's" and row["kind"] == "copy"] == [4]
    assert any(row["kind"] == "sync" for row in rows)


def test_a_guarded_range_fails(gpu, witnessed):
    done, _ = witnessed(CUPY, "--fail-on-copies-in", "forward")
    assert done.returncode == 1
    assert "script.py:20 in <module> in range forward" in done.stderr


def test_waits_are_reported_at_their_lines(gpu, witnessed):
    script = """
        import cupy
        x = cupy.ones(4)
        cupy.cuda.Stream.null.synchronize()
        cupy.cuda.Device().synchronize()
        event = cupy.cuda.Event()
        event.record()
        event.synchronize()
    """
    done, rows = witnessed(script)
    assert done.returncode == 0, done.stderr
    waits = {(row["name"], row["line"]) for row in rows if row["kind"] == "sync"}
    assert waits >= {("stream", 3), ("context", 4), ("event", 7)}
    assert not {line for _, line in waits} & {None}


def test_a_copy_in_a_graph_is_reported_at_its_launch(gpu, witnessed):
    script = """
        import cupy, cupyx, numpy
        stream = cupy.cuda.Stream(non_blocking=True)
        host = cupyx.empty_pinned(1024, numpy.float32)
        x = cupy.ones(1024, numpy.float32)
        cupy.cuda.Device().synchronize()
        with stream:
            stream.begin_capture()
            cupy.cuda.runtime.memcpyAsync(host.ctypes.data, x.data.ptr, 4096, 2, stream.ptr)
            graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    """
    done, rows = witnessed(script)
    assert done.returncode == 0, done.stderr
    assert [(row["line"], row["bytes"]) for row in rows if row["name"] == "d2h"] == [(10, 4096)]


def test_the_fixtures_own_wait_is_not_counted(gpu):
    cupy = pytest.importorskip("cupy")
    x = cupy.zeros(4)
    x += 1  # compiled and loaded before counting
    x[0].item()
    counted = Transfers()
    counted.start()
    try:
        assert (counted.d2h, counted.h2d, counted.syncs) == (0, 0, 0)
        x += 1
        assert (counted.d2h, counted.h2d, counted.syncs) == (0, 0, 0)
        assert x[0].item() == 2
        (copy,) = counted.copies
        assert (copy.name, copy.bytes) == ("d2h", 8)
        assert copy.call.site is not None
        assert copy.call.site.file == __file__
    finally:
        counted.stop()


def test_the_plugin_fails_a_test_that_copies(gpu, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import cupy, pytest\n\n@pytest.fixture\ndef x():\n    return cupy.asarray([1.0, 2.0])\n\n"
        "@pytest.mark.no_transfers\ndef test_clean(x):\n    x += 1\n\n"
        "@pytest.mark.no_transfers\ndef test_reads(x):\n    float(x[0])\n\n"
        "def test_counts(x, transfers):\n    x.get()\n    assert (transfers.d2h, transfers.d2h_bytes) == (1, 16)\n"
    )
    command = [sys.executable, "-m", "pytest", *plugin(), "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree.ROOT), *filter(None, sys.path)])}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "test_it.py:13 in test_reads" in done.stdout


def test_what_the_witness_costs(gpu, measure):
    """Prints the microseconds of a call with and without the witness, which has callbacks for copies
    but not for launches.
    """
    cupy = pytest.importorskip("cupy")
    x = cupy.ones(4)
    calls = {"launch": lambda: cupy.add(x, 1, out=x), "copy": x.get}

    def us(run: Callable[[], object], number: int = 2000) -> float:
        for _ in range(50):
            run()
        cupy.cuda.Device().synchronize()
        start = time.perf_counter()
        for _ in range(number):
            run()
        cupy.cuda.Device().synchronize()
        return (time.perf_counter() - start) / number * 1e6

    alone = {name: us(run) for name, run in calls.items()}
    tracer = Tracer()
    tracer.start()
    try:
        traced = {name: us(run) for name, run in calls.items()}
    finally:
        tracer.stop()
    assert sum(copy.name == "d2h" for copy in tracer.copies) == 2050
    for name in calls:
        measure("us of a call alone", name, alone[name])
        measure("us of a call under the witness", name, traced[name])
        assert traced[name] < alone[name] + 500
