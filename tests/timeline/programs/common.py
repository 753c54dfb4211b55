"""Shared parts of the programs: runtime and driver functions, and ranges."""

import ctypes
import re

import nvtx
import torch

DEVICE = torch.device("cuda")


def _loaded(word):
    with open("/proc/self/maps") as maps:
        found = sorted({line.split()[-1] for line in maps if re.search(rf"/{word}[^/]*$", line.strip())})
    return found[0] if found else None


def cudart():
    torch.zeros(1, device=DEVICE)
    return ctypes.CDLL(_loaded("libcudart") or "libcudart.so.13")


def driver():
    return ctypes.CDLL("libcuda.so.1")


class Pointer:
    """Memory in the form that PyTorch takes."""

    def __init__(self, address, number):
        self.__cuda_array_interface__ = {"shape": (number,), "typestr": "<f4", "data": (address, False), "version": 2}


def managed(lib, number):
    """A tensor of managed memory, and the host's view of it."""
    address = ctypes.c_void_p()
    code = lib.cudaMallocManaged(ctypes.byref(address), ctypes.c_size_t(4 * number), ctypes.c_uint(1))
    if code:
        raise RuntimeError(f"cudaMallocManaged: {code}")
    host = (ctypes.c_float * number).from_address(address.value)
    return torch.as_tensor(Pointer(address.value, number), device=DEVICE), host


def rng(name):
    return torch.cuda.nvtx.range(name)


def spin(cycles=2_000_000):
    """A kernel of about a millisecond."""
    torch.cuda._sleep(cycles)


__all__ = ["DEVICE", "Pointer", "cudart", "driver", "managed", "nvtx", "rng", "spin"]
