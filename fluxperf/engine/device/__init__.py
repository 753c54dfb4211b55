"""Devices: memory, the door and the clock. Two kinds: ``host`` (NumPy) and ``cuda`` (CuPy)."""

from __future__ import annotations

from fluxperf.engine.device import cuda
from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.errors import UnknownNameError

#: Every kind that ``--device`` takes, in order of preference of ``auto``.
KINDS = ("auto", "host", "cuda")


def open_device(kind: str) -> Device:
    """A device of that kind; ``auto`` takes the GPU where there is one that works.

    Raises:
        UnknownNameError: no such kind.
        DeviceError: the kind exists but is not to be had here.
    """
    if kind not in KINDS:
        raise UnknownNameError("device", kind, KINDS)
    if kind == "cuda" or (kind == "auto" and cuda.available()):
        return cuda.CudaDevice()
    return HostDevice()
