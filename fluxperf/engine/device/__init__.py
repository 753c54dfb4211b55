"""Devices: memory, the door and the clock. Two kinds: ``host`` (NumPy) and ``cuda`` (CuPy)."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from threadpoolctl import threadpool_limits

from fluxperf.engine.device import bindings, cuda, gpu
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.errors import DeviceError, UnknownNameError

#: Every kind that ``--device`` takes, in order of preference of ``auto``.
KINDS = ("auto", "host", "cuda")


def open_device(kind: str) -> Device:
    """A device of that kind; ``auto`` takes the GPU where there is one that works.

    The host device is opened with one thread of the BLAS in this process: its products are tiny, so threads would wait
    for each other most of the time, and the number of cores would show in the last digit of a sum.

    Raises:
        UnknownNameError: no such kind.
        DeviceError: the kind exists but is not to be had here, or another GPU than the first is named.
    """
    kind = "cuda" if kind == "cuda:0" else kind
    if kind.startswith("cuda:") and kind[5:].isdecimal():
        raise DeviceError(
            f"device {kind!r}: expected 'cuda', the first GPU that the process sees, which is the only one it uses. "
            f"Start it with CUDA_VISIBLE_DEVICES={kind[5:]} for that GPU."
        )
    if kind not in KINDS:
        raise UnknownNameError("device", kind, KINDS)
    if kind == "cuda" or (kind == "auto" and cuda.available()):
        return cuda.CudaDevice()
    threadpool_limits(limits=1, user_api="blas")
    return HostDevice()


def load_libraries() -> None:
    """Loads what a GPU needs, and touches no GPU. What is not installed is missed when it is used."""
    with suppress(DeviceError, OSError, RuntimeError):
        gpu.cupy()
    for module in ("cudnn", "pynvml", "cuda.bindings.driver"):
        with suppress(ImportError, OSError, RuntimeError):
            import_module(module)
    with suppress(ImportError, OSError, RuntimeError):
        bindings.cublaslt()
    for library in ("cublasLt", "nvrtc"):
        with suppress(ImportError, OSError, RuntimeError):
            import_module("cuda.pathfinder").load_nvidia_dynamic_lib(library)
