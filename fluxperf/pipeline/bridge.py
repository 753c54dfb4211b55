"""PyTorch and fluxperf on one device: they share a stream and memory, and all bytes from and to the host use the door.

PyTorch works on the device's own CUDA stream (`Bridge.work`), which first waits for the caller's stream. So all work is
in one order, and no event is needed where an array changes hands. Both allocators reuse memory in the order of the
stream that it was allocated on, so it is rewritten only after its last reader. Arrays cross by DLPack, as float32,
integers or 16-bit patterns: not every CuPy takes bfloat16 through DLPack, as NumPy has no such dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fluxperf.engine.device.base import Device
from fluxperf.errors import DeviceError
from fluxperf.pipeline.libraries import library, torch_device


class Bridge:
    """PyTorch on one of fluxperf's devices.

    Args:
        device: the device.

    Raises:
        DeviceError: PyTorch is not installed, or does not see the GPU.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.torch = library("torch")
        #: The device, as PyTorch names it.
        self.place = torch_device(device.kind, getattr(device, "ordinal", 0))

    @contextmanager
    def work(self) -> Iterator[None]:
        """A region in which PyTorch works on the device's stream and records no gradients.

        Raises:
            DeviceError: PyTorch has no memory left.
        """
        torch = self.torch
        try:
            with torch.inference_mode(), self._on_stream():
                yield
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"text encoders and VAE: expected room on the device, but its memory is full ({error}). Use a smaller "
                "picture, --t5 offload or --t5 free, or --t5-precision fp8."
            ) from error

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        if self.place.type == "cpu":
            yield
            return
        cuda = self.torch.cuda
        stream = cuda.ExternalStream(self.device.stream.ptr, device=self.place)  # type: ignore[attr-defined]
        stream.wait_stream(cuda.current_stream(self.place))  # a caller's tensors were written there
        with cuda.device(self.place), cuda.stream(stream):
            yield

    def tensor(self, array: Any) -> Any:
        """A device array as a tensor on the same memory; bfloat16 stays bfloat16."""
        lent = self.torch.from_dlpack(self.device.lend(array))
        return lent.view(self.torch.bfloat16) if str(array.dtype) == "bfloat16" else lent

    def array(self, tensor: Any) -> Any:
        """A tensor of this device as a device array on the same memory: float32, or integers."""
        return self.device.borrow(tensor.contiguous())

    def up(self, numbers: Any, label: str) -> Any:
        """Copies a host array to the device as a tensor: one crossing of the door."""
        return self.tensor(self.device.door.to_device(np.ascontiguousarray(numbers), label))

    def down(self, tensor: Any, label: str) -> Any:
        """Copies a tensor to the host as an array: one crossing of the door."""
        return self.device.door.to_host(self.array(tensor), label)
