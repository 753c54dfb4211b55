"""CONTRIBUTING's steps for adding an op with a kernel are right: the test adds one to a copy of the tree and runs its
tests.

The op is softsign, x / (1 + |x|). Each edit is what a person would write in that file, and no other file changes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contracts import tree

KERNEL = r"""// softsign: out = x / (1 + |x|).
//
// Shapes: x [..] as `silu`; out [..] contiguous.
// Numerics: float32; rounds once.
//
// Versions: w8, w4 and w1, as `silu`.
#include "common/map.cuh"

struct Softsign {
    __device__ __forceinline__ float operator()(float x) const { return x / (1.0f + fabsf(x)); }
};

#define SOFTSIGN(NAME, T, W)                                                                                  \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) NAME(                                           \
        const T* __restrict__ x, T* __restrict__ out, const Extents extents, const Strides strides,           \
        int packs, int tiles                                                                                  \
    ) {                                                                                                       \
        map_one<W>(x, out, extents, strides, packs, tiles, Softsign());                                       \
    }

SOFTSIGN(softsign_f32_w1, float, 1)
SOFTSIGN(softsign_f32_w4, float, 4)
SOFTSIGN(softsign_bf16_w1, bf16, 1)
SOFTSIGN(softsign_bf16_w8, bf16, 8)
"""

#: For each file, the lines to insert and the line that they follow.
EDITS = {
    "fluxperf/engine/ops/specs/primitives.py": (
        "PRIMITIVES = (\n",
        """    Spec(
        "softsign",
        "primitive",
        "x / (1 + |x|)",
        "x [..] -> [..]",
        {"": case(normal("B L D"))},
        per_element(3),
        ELEMENTWISE,
        timed=("",),
    ),
""",
    ),
    "fluxperf/engine/ops/reference.py": (
        "    return np.asarray(x).astype(np.float64)\n",
        '''

def softsign(x: Numbers) -> Numbers:
    """``x / (1 + |x|)``."""
    return _f64(x) / (1 + np.abs(_f64(x)))
''',
    ),
    "fluxperf/engine/ops/table.py": ("    # primitives\n", "    softsign: Op\n"),
    "fluxperf/engine/ops/host/primitives.py": (
        "    return x.astype(np.float32, copy=False)\n",
        '''

@twin("softsign", "primitives")
def softsign(x: Any) -> Any:
    """Any shape."""
    return (_f32(x) / (1 + np.abs(_f32(x)))).astype(x.dtype)
''',
    ),
    "fluxperf/engine/ops/cuda/primitives.py": (
        '    return element(op, "x", layout).name\n',
        '''

family("softsign", MAP, "f32_w1 f32_w4 bf16_w1 bf16_w8")


@implements("softsign", "primitives", device="cuda")
def softsign(device: Any, x: Any) -> Any:
    """x [..]."""
    return _elementwise(device, "softsign", x)
''',
    ),
    "fluxperf/engine/phases.py": (
        '        "numpy round trips for the fallback ops, batched matmul as a loop over heads, float32",\n        {\n',
        '            "softsign": "primitives",\n',
    ),
    "fluxperf/engine/model/blocks.py": (
        "    hidden = ops.linear(features, mlp.first.weight, mlp.first.bias)\n",
        "    hidden = ops.softsign(hidden)\n",
    ),
}
NEW = {"kernels/softsign.cu": KERNEL}

#: Folders and files that a copy needs to run its tests of ops, as git has them.
COPIED = ("fluxperf", "kernels", "benchmarks", "tests", "pyproject.toml", "asv.conf.json", "Makefile")

#: Generated tests that must exist for the new op, by file: how a test's name begins. The last needs NVRTC.
FOLLOWS = {
    "tests/ops/test_against_oracle.py": "test_is_within_tolerance_of_the_oracle[softsign-primitives-bfloat16-odd]",
    "tests/ops/test_properties.py": "test_any_sizes[softsign-primitives-float32]",
    "tests/ops/test_tolerances.py": "test_the_largest_error_uses_a_fair_part_of_the_tolerance[softsign-bfloat16]",
    "tests/ops/test_operands.py": "test_an_operand_that_is_read_wrongly_fails[softsign-float32]",
    "tests/ops/test_launches.py": "test_what_is_launched_fits_its_kernel[softsign-primitives]",
    "tests/pure/test_kernel_times.py": "test_every_kernel_runs_on_sets_of_its_own[softsign (misaligned)-bfloat16]",
    "tests/suite/test_suite.py": "test_every_op_runs[softsign]",
    "tests/gpu/test_kernels_compile.py": "test_compiles_and_takes_what_launchers_give[sm_90a-softsign.cu]",
}
#: Tests of the whole vocabulary that the new op must not break.
KEPT = {
    "tests/ops/test_against_oracle.py": "test_vocabulary_and_table_have_the_same_ops_in_the_same_order",
    "tests/ops/test_launches.py": "test_every_entry_point_of_a_launcher_is_reached",
    "tests/suite/test_suite.py": "test_names_of_the_suite_are_those_of_the_engine",
    "tests/gpu/test_kernels_compile.py": "test_every_file_is_launched_by_somebody",
}
GENERATION = """
from fluxperf.workloads import prepare, workload_named
prepare("fused", workload_named("tiny"), device="host").denoise()
"""


def plant(root: Path) -> list[str]:
    """Adds the op to a tree; returns the changed files."""
    for file, (line, lines) in EDITS.items():
        text = (root / file).read_text()
        assert text.count(line) == 1, f"{file}: {line!r} is there {text.count(line)} times"
        (root / file).write_text(text.replace(line, line + lines))
    for file, text in NEW.items():
        (root / file).write_text(text)
    return [*EDITS, *NEW]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    for path in tree.tracked():
        name = tree.name(path)
        if name.split("/")[0] in COPIED and path.suffix in (
            "",
            ".py",
            ".cu",
            ".cuh",
            ".toml",
            ".json",
            ".typed",
            ".j2",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, root / name)
    plant(root)
    return root


def run(root: Path, *words: str) -> str:
    """Output of Python in a copy, from which it imports."""
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def test_contributing_names_the_files_that_an_op_touches() -> None:
    (row,) = re.findall(
        r"^\| an op with a kernel \| (.*?) \|", (tree.ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    places = re.findall(r"`(\S+)`", row)
    touched = [*EDITS, *NEW]
    assert len(touched) <= 8
    assert sorted(place for file in touched for place in places if file.startswith(place)) == sorted(places)
    assert len(places) == len(touched)


def test_all_that_follows_by_itself_follows(planted: Path) -> None:
    wanted = [f"{file}::{name}" for tests in (FOLLOWS, KEPT) for file, name in tests.items()]
    options = "-q", "-rA", "-p", "no:cacheprovider", "-p", "no:xdist"
    printed = run(planted, "-m", "pytest", *options, *wanted)
    without_compiler = {test for test in wanted if "sm_90a" in test and "NVRTC" in printed}
    assert {test for test in wanted if f"PASSED {test}" not in printed} == without_compiler, printed[-4000:]


def test_the_model_may_call_it(planted: Path) -> None:
    run(planted, "-c", GENERATION)
