"""Devices: memory, the door and the clock. Two kinds: ``host`` (NumPy) and ``cuda`` (CuPy)."""

from __future__ import annotations

from fluxperf.engine.device.base import Device
from fluxperf.engine.device.host import HostDevice
from fluxperf.errors import DeviceError, UnknownNameError

#: Every kind that ``--device`` takes, in order of preference of ``auto``.
KINDS = ("auto", "host", "cuda")


def open_device(kind: str) -> Device:
    """A device of that kind; ``auto`` takes the best one that this release and this machine have.

    Raises:
        UnknownNameError: no such kind.
        DeviceError: the kind exists but is not to be had here.
    """
    if kind not in KINDS:
        raise UnknownNameError("device", kind, KINDS)
    if kind == "cuda":
        raise DeviceError(
            "device 'cuda': expected a release with CUDA kernels, but this one runs on the host device only. "
            "Use --device host (every rung runs there as a host twin)."
        )
    return HostDevice()
