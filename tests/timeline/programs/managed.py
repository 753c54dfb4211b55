"""Managed memory that host and device access in turn, in ranges; one process."""

import ctypes
import sys

import torch
from common import DEVICE, cudart, managed, rng


class Location(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("id", ctypes.c_int)]


def main():
    lib = cudart()
    tensor, host = managed(lib, 1 << 19)  # 2 MiB
    x = torch.randn(1024, 1024, device=DEVICE)
    x.mul_(2.0)
    tensor.mul_(1.0)
    torch.cuda.synchronize()
    for turn in range(3):
        with rng(f"iteration {turn}"):
            with rng("host writes"):
                for at in range(0, len(host), 1024):
                    host[at] = 1.0
            with rng("forward"):
                x.mul_(1.0)
                tensor.mul_(2.0)
                torch.cuda.synchronize()
            with rng("host reads"):
                total = sum(host[at] for at in range(0, len(host), 1024))
    with rng("prefetch"):
        address, gpu = ctypes.c_void_p(ctypes.addressof(host)), Location(1, 0)
        code = lib.cudaMemPrefetchAsync(address, ctypes.c_size_t(1 << 21), gpu, ctypes.c_uint(0), ctypes.c_void_p(0))
        torch.cuda.synchronize()
    print(f"managed: {total} of {2.0 * len(host) / 1024}; prefetch {code}")
    sys.stdout.flush()


main()
