"""An error of a GPU or its libraries gives one message that says what to do, and exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest

from fluxperf.engine.device import gpu
from fluxperf.engine.device.cublaslt import CublasLt
from fluxperf.engine.device.cuda import CudaDevice
from fluxperf.engine.device.cudnn import Cudnn
from fluxperf.errors import DeviceError


class CudaError(RuntimeError):
    """Replaces CuPy's error of a CUDA call."""


class FullError(Exception):
    """Replaces CuPy's error of an allocation."""


def _stand_in(
    monkeypatch: pytest.MonkeyPatch, capability=(9, 0), failure: str = "", full: bool = False, limit: int = 0
) -> None:
    """A CuPy without a GPU, with everything that opening a device needs."""

    def check(*_: Any) -> Any:
        if failure:
            raise CudaError(failure)
        return SimpleNamespace(use=lambda: None)

    def empty(*_: Any) -> Any:
        if full:
            raise FullError
        return None

    runtime = SimpleNamespace(
        CUDARuntimeError=CudaError,
        getDeviceProperties=lambda _: {
            "major": capability[0], "minor": capability[1], "name": b"Stand-in", "multiProcessorCount": 1,
        },
        getDeviceCount=check,
        memGetInfo=lambda: (1_000_000_000, 80_000_000_000),
    )  # fmt: skip
    cuda = SimpleNamespace(runtime=runtime, Device=check, memory=SimpleNamespace(OutOfMemoryError=FullError))
    pool = lambda: SimpleNamespace(get_limit=lambda: limit)  # noqa: E731
    monkeypatch.setattr(gpu, "cupy", lambda: SimpleNamespace(cuda=cuda, empty=empty, get_default_memory_pool=pool))


def _without(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    """Makes the import of a package and of its modules fail."""

    class Failing:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == package:
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Failing, *sys.meta_path])


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, "cupy", ImportError("No module named 'cupy'"))
    with pytest.raises(DeviceError, match=r"expected CuPy.*cuda12 or cuda13 .*fluxperf doctor.*--device host"):
        CudaDevice()


@pytest.mark.parametrize(
    "failure",
    [
        "cudaErrorNoDevice: no CUDA-capable device is detected",
        "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    ],
)
def test_without_a_driver_or_with_one_of_another_cuda(monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    _stand_in(monkeypatch, failure=failure)
    assert not gpu.available()
    with pytest.raises(DeviceError, match=rf"{failure}.*nvidia-smi.*matches the driver.*--device host"):
        CudaDevice()


def test_an_architecture_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch, capability=(7, 5))
    with pytest.raises(DeviceError, match=r"expected compute capability 8\.0 or newer, got 7\.5 \(Stand-in\)"):
        CudaDevice()


def test_memory_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch, full=True)
    with pytest.raises(DeviceError, match=r"room for bfloat16 \(7, 3\).*1\.0 of 80\.0 GB free.*smaller workload"):
        gpu.Gpu().empty((7, 3), "bfloat16")
    with (
        pytest.raises(DeviceError, match=r"room for random numbers of float32 \(5,\).*full"),
        gpu.Gpu().room("random numbers of float32 (5,)"),
    ):
        raise FullError


def test_a_memory_budget_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch, full=True, limit=15_000_000_000)
    with pytest.raises(DeviceError, match=r"room for bfloat16 \(7, 3\).*the 15\.0 GB that remain of the memory budget"):
        gpu.Gpu().empty((7, 3), "bfloat16")


@pytest.mark.parametrize(
    ("library", "package", "error"),
    [
        (CublasLt, "nvmath", ImportError("No module named 'nvmath'")),
        (CublasLt, "nvmath", RuntimeError("libcublasLt.so.13 is not found")),
        (Cudnn, "cudnn", ImportError("No module named 'cudnn'")),
        (Cudnn, "cudnn", OSError("libcudnn.so.9: cannot open shared object file")),
    ],
)
def test_libraries_that_are_missing(monkeypatch: pytest.MonkeyPatch, library: Any, package: str, error: Exception):
    _without(monkeypatch, package, error)
    with pytest.raises(DeviceError) as caught:
        library(SimpleNamespace())
    for part in (str(error), "expected", "fluxperf[cuda12] or fluxperf[cuda13]", "fluxperf doctor"):
        assert part in str(caught.value)


@pytest.mark.skipif(find_spec("cupy") is None, reason="imports CuPy")
@pytest.mark.parametrize(
    "call",
    ["device.gpu import available", "device import load_libraries", "nvrtc.loader import _nvrtc"],
)
def test_cupy_is_imported_where_the_home_folder_cannot_be_written(tmp_path, monkeypatch, call):
    """CuPy creates a folder for its cache when it is imported."""
    (tmp_path / "file").write_text("")
    program = f"import sys; from fluxperf.engine.{call}; {call.split()[-1]}(); print('cupy' in sys.modules)"
    monkeypatch.delenv("CUPY_CACHE_DIR", raising=False)
    environment = {**os.environ, "HOME": str(tmp_path / "file" / "home")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"
