"""Waits of every kind, each a known number of times. usage: waits.py [--recorder FILE]"""

import ctypes
import os
import sys

import torch
from common import DEVICE, cudart, driver, rng, spin


def work(lib, cuda, s):
    def many(name, number, wait, cycles=2_000_000):
        with rng(name):
            for _ in range(number):
                spin(cycles)
                wait()

    stream = torch.cuda.current_stream()

    def event(wait):
        def inner():
            made = torch.cuda.Event()
            made.record()
            wait(made)

        return inner

    def polled(made):
        while not made.query():
            pass

    def blocking():
        lib.cudaMemcpy(
            ctypes.c_void_p(s["pinned"].data_ptr()),
            ctypes.c_void_p(s["block"].data_ptr()),
            ctypes.c_size_t(1 << 20),
            ctypes.c_int(2),
        )

    many("streams", 7, stream.synchronize)
    many("devices", 5, torch.cuda.synchronize)
    many("events", 3, event(lambda made: made.synchronize()))
    many("items", 11, lambda: s["one"].item())
    many("pageable", 4, lambda: s["page"].copy_(s["block"]))
    many("pageable async", 4, lambda: s["page"].copy_(s["block"], non_blocking=True))
    many("contexts", 2, cuda.cuCtxSynchronize)
    many("blocking", 2, blocking)
    many("polls", 3, event(polled))
    many("orders", 3, lambda: s["other"].wait_stream(stream))


def main():
    lib, cuda = cudart(), driver()
    s = {
        "one": torch.ones(1, device=DEVICE),
        "block": torch.ones(1 << 18, device=DEVICE),
        "page": torch.empty(1 << 18),
        "pinned": torch.empty(1 << 18, pin_memory=True),
        "other": torch.cuda.Stream(),
    }
    work(lib, cuda, s)
    torch.cuda.synchronize()
    if "--recorder" not in sys.argv:
        with rng("measured"):
            work(lib, cuda, s)
        return
    from fluxperf.files import write_whole
    from fluxperf.harness.timeline.recorder import Recorder
    from fluxperf.harness.timeline.trace import trace_parts

    path = sys.argv[sys.argv.index("--recorder") + 1]
    recorder = Recorder(os.getpid())
    recorder.start()
    work(lib, cuda, s)
    recorder.stop()
    from pathlib import Path

    write_whole(Path(path), trace_parts(recorder.timeline(path, {0: torch.cuda.get_device_name()}, "python3")))


main()
