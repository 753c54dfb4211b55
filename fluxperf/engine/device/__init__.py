"""Devices: memory, the door and the clock. There are two kinds: ``host`` (NumPy) and ``cuda`` (CuPy)."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from threadpoolctl import threadpool_limits

from fluxperf.engine.device import bindings, cuda, gpu
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.errors import DeviceError, UnknownNameError

#: Every kind that ``--device`` accepts. ``auto`` tries them in this order.
KINDS = ("auto", "host", "cuda")


def open_device(kind: str) -> Device:
    """A device of that kind; ``auto`` opens the GPU if one works, else the host.

    The host device limits the BLAS of this process to one thread. Its matrix products are tiny, so more threads would
    mostly wait for each other, and the last digit of a sum would depend on the number of cores.

    Raises:
        UnknownNameError: no such kind.
        DeviceError: the device does not exist or does not work here, or a GPU other than the first is named.
    """
    kind = "cuda" if kind == "cuda:0" else kind
    if kind.startswith("cuda:") and kind[5:].isdecimal():
        raise DeviceError(
            f"device {kind!r}: expected 'cuda', the first GPU that the process sees; fluxperf uses no other. Start "
            f"the process with CUDA_VISIBLE_DEVICES={kind[5:]} to select that GPU."
        )
    if kind not in KINDS:
        raise UnknownNameError("device", kind, KINDS)
    if kind == "cuda" or (kind == "auto" and cuda.available()):
        return cuda.CudaDevice()
    threadpool_limits(limits=1, user_api="blas")
    return HostDevice()


def load_libraries() -> None:
    """Loads the libraries that a GPU needs, without touching a GPU.

    A missing library is reported only when it is used.
    """
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
