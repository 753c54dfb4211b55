"""Compiles kernels with NVRTC, keeps the machine code on disk, and loads it when an entry point is first requested.

The cache key is a digest of source, includes, options, architecture and NVRTC version, so entries cannot be stale. The
cache survives processes and may be deleted. CuPy is imported only when something is compiled or loaded.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from fluxperf.engine.cache import cache_folder, let_cupy_import, recall, remember
from fluxperf.engine.nvrtc.launch import Kernel
from fluxperf.engine.nvrtc.sources import Folder, Source, read_source
from fluxperf.errors import KernelError

#: No fast math and no flush to zero: kernels must meet the tolerances of the specification.
OPTIONS = ("--std=c++17", "-lineinfo")

#: Bytes of dynamic shared memory that any kernel may use, and the driver's attribute that raises the limit
#: (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES).
_PLAIN_SHARED, _MOST_SHARED = 48 << 10, 8


def default_cache() -> Path:
    """Folder of cached machine code; see `cache.cache_folder`."""
    return cache_folder("kernels")


class Kernels:
    """Kernels for one architecture, compiled and loaded on first use.

    Args:
        architecture: NVRTC's name for it, such as ``"sm_90a"``.
        cache: folder for machine code; `default_cache` unless given.
        folder: folder of the sources; the package's own unless given.
    """

    def __init__(self, architecture: str, cache: Path | None = None, folder: Folder | None = None) -> None:
        self.architecture = architecture
        self.cache = cache if cache is not None else default_cache()
        #: Number of files that this object compiled; files from the cache do not count.
        self.compiled: list[str] = []
        self._folder = folder
        self._modules: dict[str, Any] = {}
        self._kernels: dict[str, Kernel] = {}

    def get(self, file: str, entry: str, layout: str, shared: int = 0) -> Kernel:
        """The entry point of that name, ready to be launched.

        Args:
            file: of `kernels/`, such as ``"modulate.cu"``.
            entry: such as ``"modulate_bf16_w8"``; unique over all files.
            layout: its parameters, as `Kernel` describes them.
            shared: bytes of dynamic shared memory per block.

        Raises:
            KernelError: the file does not compile or has no such entry point, or the GPU has too little shared memory.
        """
        kernel = self._kernels.get(entry)
        if kernel is None:
            kernel = self._kernels[entry] = self._load(file, entry, layout, shared)
        return kernel

    def machine_code(self, file: str) -> bytes:
        """CUBIN of a kernel file; from the cache if it is there and intact.

        Raises:
            KernelError: it does not compile.
        """
        source = read_source(file, self._folder)
        options = (*OPTIONS, *_header_options(source))
        path = self.cache / f"{Path(file).stem}-{_key(source, options, self.architecture)}.cubin"
        code = recall(path)
        if code is None:
            code = compile_source(source, self.architecture, options)
            self.compiled.append(file)
            remember(path, code)
        return code

    def _load(self, file: str, entry: str, layout: str, shared: int) -> Kernel:
        from cupy.cuda import driver, function

        if file not in self._modules:
            module = function.Module()
            try:
                module.load(self.machine_code(file))
            except driver.CUDADriverError as error:
                raise KernelError(
                    f"kernel {file!r}: the driver cannot load its machine code for {self.architecture} ({error}). "
                    "Check that the driver is at least as new as the NVRTC of the installed CuPy (`fluxperf doctor`)."
                ) from error
            self._modules[file] = module
        try:
            found = self._modules[file].get_function(entry)
        except driver.CUDADriverError as error:
            raise KernelError(
                f"kernel {file!r}: expected an entry point {entry!r}, but the file has none ({error}). Correct "
                "ops/cuda/entries.py."
            ) from error
        try:
            if shared > _PLAIN_SHARED:
                driver.funcSetAttribute(found.ptr, _MOST_SHARED, shared)
        except driver.CUDADriverError as error:
            raise KernelError(
                f"kernel {entry!r}: expected {shared} bytes of shared memory per block on {self.architecture}, but "
                f"the driver allows fewer ({error}). Use an entry point with smaller tiles."
            ) from error
        return Kernel(entry, found, layout, shared)


def compile_source(source: Source, architecture: str, options: tuple[str, ...] = OPTIONS) -> bytes:
    """CUBIN of a source for a real architecture (``sm_..``), PTX for a virtual one (``compute_..``).

    Raises:
        KernelError: it does not compile; the message has the file, the architecture, the options and the compiler's
            log.
    """
    nvrtc = _nvrtc()
    program = nvrtc.createProgram(
        source.text.decode(), source.name, list(source.includes.values()), [name.encode() for name in source.includes]
    )
    try:
        nvrtc.compileProgram(program, (f"-arch={architecture}", *options))
        code: Any = nvrtc.getCUBIN(program) if architecture.startswith("sm_") else nvrtc.getPTX(program)
    except nvrtc.NVRTCError as error:
        log = nvrtc.getProgramLog(program).strip()
        raise KernelError(
            f"kernel kernels/{source.name}: expected it to compile for {architecture}, but NVRTC {_version()} refuses "
            f"({error}). Correct the source by the log. If NVRTC does not know the architecture, install a newer CuPy "
            "(`fluxperf doctor`).\n"
            f"options: {' '.join(options)}\n{log or 'the compiler wrote no log: it may not know the architecture.'}"
        ) from error
    finally:
        nvrtc.destroyProgram(program)
    return code if isinstance(code, bytes) else str(code).encode()


def cuda_headers() -> tuple[Path, ...]:
    """Folders with the CUDA toolkit's headers: from wheels, else below ``CUDA_PATH``, ``CUDA_HOME`` or /usr/local/cuda.

    Raises:
        KernelError: no folder has them.
    """
    for folder in _header_places():
        if (folder / "cuda_bf16.h").is_file():
            inside = folder / "cccl"  # location of the headers that cuda_bf16.h includes, in CUDA 13
            return (folder, inside) if inside.is_dir() else (folder,)
    raise KernelError(
        "CUDA headers: expected cuda_bf16.h in the wheel nvidia-cuda-runtime, or under CUDA_PATH, CUDA_HOME or "
        "/usr/local/cuda, found none. Install the extra fluxperf[cuda12] or fluxperf[cuda13], or set CUDA_PATH."
    )


def _header_places() -> list[Path]:
    places = []
    with suppress(ImportError):
        pathfinder: Any = importlib.import_module("cuda.pathfinder")
        found = pathfinder.find_nvidia_header_directory("cudart")
        places += [Path(found)] if found else []
    roots = (os.environ.get("CUDA_PATH"), os.environ.get("CUDA_HOME"), "/usr/local/cuda")
    return places + [Path(root) / "include" for root in roots if root]


def _header_options(source: Source) -> tuple[str, ...]:
    return tuple(f"-I{folder}" for folder in cuda_headers()) if source.needs_cuda_headers else ()


def _nvrtc() -> Any:
    """CuPy's NVRTC.

    Raises:
        KernelError: CuPy or the library is not installed.
    """
    let_cupy_import()
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        raise KernelError(
            f"NVRTC: expected CuPy with its compiler, got: {error}. Install the extra fluxperf[cuda12] or "
            "fluxperf[cuda13] (`fluxperf doctor` says which)."
        ) from error
    return nvrtc


@cache
def _version() -> str:
    return ".".join(map(str, _nvrtc().getVersion()))


def _key(source: Source, options: tuple[str, ...], architecture: str) -> str:
    parts = (source.digest, *options, architecture, _version())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
