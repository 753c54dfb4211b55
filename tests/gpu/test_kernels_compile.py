"""Kernels compile for every architecture, match their launchers, and are cached on disk. No GPU is needed."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from fluxperf.engine.nvrtc import loader
from fluxperf.engine.nvrtc.launch import Kernel, offsets
from fluxperf.engine.nvrtc.loader import OPTIONS, Kernels, compile_source, cuda_headers, default_cache
from fluxperf.engine.nvrtc.sources import kernels_folder, read_source
from fluxperf.engine.ops.cuda.entries import known
from fluxperf.errors import KernelError

ARCHITECTURES = ("sm_80", "sm_89", "sm_90a", "sm_100", "sm_120")

#: Environment variable with the architectures to compile for; ``all`` stands for every one, as in the nightly run.
VARIABLE = "FLUXPERF_TEST_ARCHITECTURES"


def chosen(wanted: str) -> tuple[str, ...]:
    """Architectures to compile for; by default the oldest one and the one of the records."""
    if wanted not in ("", "all"):
        raise ValueError(f"{VARIABLE}={wanted}: expected all, or nothing.")
    return ARCHITECTURES if wanted else ("sm_80", "sm_90a")


COMPILED = chosen(os.environ.get(VARIABLE, ""))
FOLDER = Path(str(kernels_folder()))
FILES = sorted(path.name for path in FOLDER.glob("*.cu"))


def missing() -> str:
    """Why nothing can be compiled here, or an empty string."""
    try:
        loader._nvrtc()
    except KernelError as error:
        return " ".join(str(error).split())
    return ""


MISSING = missing()
compiles = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def sections(code: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the sections of an ELF file."""
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count, names = struct.unpack_from("<HHH", code, 58)
    rows = [struct.unpack_from("<IIQQQQ", code, table + index * size) for index in range(count)]
    for name, kind, _, _, start, length in rows:
        begin = rows[names][4] + name
        content = b"" if kind == 8 else code[start : start + length]  # 8: takes no room in the file
        yield code[begin : code.index(b"\0", begin)].decode(), content


def parameters(info: bytes) -> list[tuple[int, int]]:
    """Offset and size of every parameter, from a kernel's ``.nv.info`` section (attribute 0x17)."""
    found, at = {}, 0
    while at < len(info):
        form, attribute, length = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != 4:  # the value is in the head
            continue
        if attribute == 0x17:
            _, ordinal, offset, flags = struct.unpack_from("<IHHI", info, at)
            found[ordinal] = (offset, flags >> 18)
        at += length
    return [found[ordinal] for ordinal in sorted(found)]


def entry_points(code: bytes) -> dict[str, list[tuple[int, int]]]:
    """Kernels in machine code, and the offsets of their parameters.

    Offsets are relative to the first parameter, because its own offset depends on the architecture.
    """
    head = ".nv.info."
    found = {name.removeprefix(head): parameters(info) for name, info in sections(code) if name.startswith(head)}
    return {name: [(start - places[0][0], size) for start, size in places] for name, places in found.items()}


def named(file: str) -> dict[str, list[tuple[int, int]]]:
    """Entry points that launchers declare, and their parameter offsets."""
    return {name: offsets(entry.layout) for name, entry in known().items() if entry.file == file}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of kernels: one that includes a header, which includes another."""
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "common").mkdir()
    (folder / "common/inner.cuh").write_text("#pragma once\n#define FACTOR 2.0f\n")
    (folder / "common/outer.cuh").write_text('#pragma once\n#include "common/inner.cuh"\n')
    (folder / "twice.cu").write_text(
        '#include "common/outer.cuh"\nextern "C" __global__ void twice(float* x) { *x *= FACTOR; }\n'
    )
    (folder / "broken.cu").write_text('extern "C" __global__ void broken(float* x) { *x = nothing_of_that_name; }\n')
    (folder / "astray.cu").write_text('#include "common/absent.cuh"\n')
    (folder / "toolkit.cu").write_text(
        "#include <cuda_bf16.h>\n"
        'extern "C" __global__ void toolkit(__nv_bfloat16* x) { *x = __float2bfloat16(1.0f); }\n'
    )
    return folder


@pytest.fixture
def editable(folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "kernels"))


def test_every_file_is_launched_by_somebody() -> None:
    assert {entry.file for entry in known().values()} == set(FILES)


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.cu*")), ids=lambda path: path.name)
def test_a_kernel_file_is_short_and_begins_with_its_comment(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 300
    assert lines[0].startswith("// ")
    if path.suffix == ".cu":
        head = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("//"))])
        assert "Versions" in head
        assert "float32" in head or "No arithmetic" in head
        assert path.stem in lines[0]


#: Access widths and rounding are the same for every architecture; the tests read the PTX of one.
READ = "sm_90a"


@cache
def compiled(file: str) -> tuple[bytes, str]:
    """A kernel file compiled for `READ`, once: machine code, and its PTX."""
    nvrtc, made = loader._nvrtc(), []

    def destroy(program: Any) -> None:
        ptx = nvrtc.getPTX(program)
        made.append(ptx if isinstance(ptx, str) else ptx.decode())
        nvrtc.destroyProgram(program)

    asked = {**vars(nvrtc), "destroyProgram": destroy}
    with mock.patch.object(loader, "_nvrtc", return_value=SimpleNamespace(**asked)):
        return compile_source(read_source(file), READ), made[0]


#: Tests that read the PTX of one file go to one worker.
BY_FILE = [pytest.param(file, marks=pytest.mark.xdist_group(f"ptx of {file}")) for file in FILES]


@compiles
@pytest.mark.parametrize("file", BY_FILE)
@pytest.mark.parametrize("architecture", COMPILED)
def test_compiles_and_takes_what_launchers_give(architecture: str, file: str) -> None:
    code = compiled(file)[0] if architecture == READ else compile_source(read_source(file), architecture)
    assert entry_points(code) == named(file)


def test_at_night_kernels_compile_for_every_architecture() -> None:
    yaml = pytest.importorskip("yaml", reason="reads workflows; PyYAML comes with the test extra")
    workflow = yaml.safe_load((Path(__file__).parents[2] / ".github/workflows/nightly.yml").read_text(encoding="utf-8"))
    assert workflow["on" if "on" in workflow else True]["schedule"]
    assert chosen(workflow["jobs"]["test"]["env"][VARIABLE]) == ARCHITECTURES
    assert len(chosen("")) == 2
    assert set(chosen("")) < set(ARCHITECTURES)
    with pytest.raises(ValueError, match="sm_80: expected all"):
        chosen("sm_80")


@compiles
@pytest.mark.parametrize("file", BY_FILE)
def test_wide_versions_move_sixteen_bytes_at_once(file: str) -> None:
    """In PTX, an entry for w4, w8 or b16 stores only vectors, and loads its activations as vectors."""
    ptx = compiled(file)[1]
    bodies = re.split(r"^(?:\.visible )?\.entry ", ptx, flags=re.MULTILINE)[1:]
    wide = {body[: body.index("(")]: body for body in bodies if re.match(r"\w+_(w4|w8|b16)\b|\w+_(w4|w8)_", body)}
    assert len(bodies) == len(named(file))
    for name, body in wide.items():
        stores, loads = (re.findall(rf"\b{what}\.global[\w.]*", body) for what in ("st", "ld"))
        assert stores, name
        whole = [store for store in stores if ".v4." in store or ".v2." in store]
        # What quantizes also stores a scale per row, or three.
        scales = 3 if "fp8" in name or name.startswith("quantize_rows") else 0
        assert whole or name == "quantize_rows_f32_w4", f"{name}: {stores}"  # four floats are one word of e4m3
        assert len(stores) - len(whole) <= scales, f"{name}: {stores}"
        assert any(".v4." in load or ".v2." in load for load in loads), f"{name}: {loads}"


@compiles
@pytest.mark.parametrize("file", BY_FILE)
def test_no_fast_math_and_no_flushing(file: str) -> None:
    assert not any("fast" in option or "ftz" in option for option in OPTIONS)
    assert not re.findall(r"\b(?:add|sub|mul|fma|div|sqrt)\.\w*\.?ftz\b", compiled(file)[1])


@compiles
def test_the_cache_is_used_again(folder: Path, tmp_path: Path) -> None:
    first = Kernels("sm_90a", tmp_path, folder)
    code = first.machine_code("twice.cu")
    assert (first.compiled, list(entry_points(code))) == (["twice.cu"], ["twice"])
    second = Kernels("sm_90a", tmp_path, folder)
    assert second.machine_code("twice.cu") == code
    assert second.compiled == []
    assert len(list(tmp_path.iterdir())) == 1, "a temporary file is left"


@compiles
@pytest.mark.parametrize("changed", ["twice.cu", "common/outer.cuh", "common/inner.cuh"])
def test_a_change_in_an_include_makes_a_new_entry(changed: str, editable: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    Kernels("sm_90a", cache, editable).machine_code("twice.cu")
    (editable / changed).write_text((editable / changed).read_text() + "// changed\n")
    kernels = Kernels("sm_90a", cache, editable)
    kernels.machine_code("twice.cu")
    assert kernels.compiled == ["twice.cu"]
    assert len(list(cache.iterdir())) == 2


@compiles
def test_architectures_do_not_share_an_entry(folder: Path, tmp_path: Path) -> None:
    codes = {Kernels(architecture, tmp_path, folder).machine_code("twice.cu") for architecture in ARCHITECTURES}
    assert len(codes) == len(list(tmp_path.iterdir())) == len(ARCHITECTURES)


@compiles
@pytest.mark.parametrize("damage", [b"", b"\0" * 400, None], ids=["empty", "zeros", "cut"])
def test_a_damaged_entry_is_rebuilt(damage: bytes | None, folder: Path, tmp_path: Path) -> None:
    code = Kernels("sm_90a", tmp_path, folder).machine_code("twice.cu")
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    kernels = Kernels("sm_90a", tmp_path, folder)
    assert kernels.machine_code("twice.cu") == code
    assert kernels.compiled == ["twice.cu"]
    assert Kernels("sm_90a", tmp_path, folder).machine_code("twice.cu") == code


@compiles
def test_no_reader_sees_half_an_entry(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that dies before the rename leaves nothing that a reader would use."""

    def die(*_: Any) -> None:
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(loader.os, "replace", die)
        Kernels("sm_90a", tmp_path, folder).machine_code("twice.cu")
    assert list(tmp_path.iterdir()) == []
    kernels = Kernels("sm_90a", tmp_path, folder)
    kernels.machine_code("twice.cu")
    assert kernels.compiled == ["twice.cu"]


@compiles
def test_a_cache_that_cannot_be_written_is_done_without(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert Kernels("sm_90a", tmp_path / "file", folder).machine_code("twice.cu").startswith(b"\x7fELF")


@compiles
def test_a_broken_kernel_says_file_architecture_options_and_log(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError) as caught:
        Kernels("sm_90a", tmp_path, folder).machine_code("broken.cu")
    for part in ("kernels/broken.cu", "sm_90a", *OPTIONS, "nothing_of_that_name", "broken.cu(1)"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@compiles
def test_an_unknown_architecture_is_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="sm_31"):
        Kernels("sm_31", tmp_path, folder).machine_code("twice.cu")


@compiles
def test_the_toolkits_headers_are_found_for_a_kernel_that_wants_them(folder: Path, tmp_path: Path) -> None:
    try:
        cuda_headers()
    except KernelError as error:
        pytest.skip(str(error))
    assert list(entry_points(Kernels("sm_90a", tmp_path, folder).machine_code("toolkit.cu"))) == ["toolkit"]


def test_no_kernel_of_ours_needs_them() -> None:
    assert not any(read_source(file).needs_cuda_headers for file in FILES)


def test_a_missing_file_and_a_missing_include_are_named(folder: Path) -> None:
    with pytest.raises(KernelError, match=r"kernel 'absent\.cu'"):
        read_source("absent.cu", folder)
    with pytest.raises(KernelError, match=r"include 'common/absent\.cuh' of 'astray\.cu'"):
        read_source("astray.cu", folder)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setenv("FLUXPERF_CACHE", "/own")
    assert default_cache() == Path("/own/kernels")
    monkeypatch.delenv("FLUXPERF_CACHE")
    assert default_cache() == Path("/somewhere/fluxperf/kernels")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache/fluxperf/kernels"


class Handle:
    """Replaces CuPy's function object."""

    ptr = 1


def test_parameters_are_packed_as_c_places_them() -> None:
    layout = "P i 2q i 4P2i f 3i d"
    assert offsets(layout) == [(0, 8), (8, 4), (16, 16), (32, 4), (40, 40), (80, 4), (84, 12), (96, 8)]
    kernel = Kernel("k", Handle(), layout)
    kernel.fill(1, 2, 3, -4, 5, 6, 7, 8, 9, 10, 11, 0.5, 12, 13, 14, 0.25)
    packed = kernel._buffer.raw
    assert struct.unpack_from("<Q", packed, 0) == (1,)
    assert struct.unpack_from("<qq", packed, 16) == (3, -4)
    assert struct.unpack_from("<4Q2i", packed, 40) == (6, 7, 8, 9, 10, 11)
    assert struct.unpack_from("<f3id", packed, 80) == (0.5, 12, 13, 14, 0.25)
