"""Planted faults, each in a range that names it. usage: planted.py [--um] [--child] [--kineto FILE]"""

import ctypes
import subprocess
import sys
import threading
import time

import torch
from common import DEVICE, cudart, driver, managed, nvtx, rng, spin

UM, CHILD = "--um" in sys.argv, "--child" in sys.argv
ALPHA, BETA = nvtx.get_domain("alpha"), nvtx.get_domain("beta")


def named(domain, name):
    return domain.get_event_attributes(message=name)


class State:
    def __init__(self):
        self.lib, self.driver = cudart(), driver()
        self.x = torch.randn(1024, 1024, device=DEVICE)
        self.y = torch.randn(1024, 1024, device=DEVICE)
        self.small = torch.ones(8, device=DEVICE)
        self.page = torch.empty(1024, 256)
        self.small_page = torch.empty(8)
        self.pinned = torch.empty(1024, 256, pin_memory=True)
        self.block = torch.randn(1024, 256, device=DEVICE)
        self.one, self.two = torch.cuda.Stream(), torch.cuda.Stream()
        self.events = [torch.cuda.Event() for _ in range(8)]
        self.graph = None


def forward(s):
    with rng("forward"):
        with rng("item loop"):
            for _ in range(5):
                (s.x * 2).sum().item()
        with rng("pageable reads"):
            for _ in range(4):
                s.page.copy_(s.block, non_blocking=True)
                s.small_page.copy_(s.small, non_blocking=True)
        with rng("pageable writes"):
            s.block.copy_(s.page)
        with rng("pinned reads"):
            s.pinned.copy_(s.block, non_blocking=True)
        with rng("small kernels"):
            for _ in range(24):
                s.small.add_(1)


def loops(s):
    with rng("sync loop"):
        for _ in range(5):
            s.x @ s.y
            torch.cuda.synchronize()
    with rng("stream sync loop"):
        for _ in range(5):
            with torch.cuda.stream(s.one):
                s.x @ s.y
            s.one.synchronize()
    with rng("polls"):
        for event in s.events[:5]:
            spin(400_000)
            event.record()
            while not event.query():
                pass
    with rng("event waits"):
        for event in s.events[:5]:
            spin(400_000)
            event.record()
            event.synchronize()
    with rng("stream order"):
        for _ in range(5):
            with torch.cuda.stream(s.one):
                spin(200_000)
            s.two.wait_stream(s.one)
            with torch.cuda.stream(s.two):
                spin(200_000)
        torch.cuda.current_stream().wait_stream(s.two)
    with rng("driver waits"):
        for _ in range(4):
            spin(400_000)
            s.driver.cuCtxSynchronize()
    with rng("blocking copies"):
        for _ in range(4):
            spin(400_000)
            s.lib.cudaMemcpy(
                ctypes.c_void_p(s.pinned.data_ptr()),
                ctypes.c_void_p(s.block.data_ptr()),
                ctypes.c_size_t(1 << 20),
                ctypes.c_int(2),
            )
    with rng("python between"):
        for _ in range(10):
            s.x.mul_(1.0)
            time.sleep(0.002)
        s.x.mul_(1.0)
    with rng("allocations"):
        for _ in range(6):
            address = ctypes.c_void_p()
            s.lib.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(256 << 20))
            s.x.mul_(1.0)
            s.lib.cudaFree(address)
        s.x.mul_(1.0)


def other_thread(s):
    """A thread allocates while the main one launches."""
    done = threading.Event()

    def allocate():
        while not done.is_set():
            address = ctypes.c_void_p()
            s.lib.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(512 << 20))
            s.lib.cudaFree(address)

    helper = threading.Thread(target=allocate, name="allocator")
    with rng("other thread"):
        helper.start()
        for _ in range(40):
            s.x.mul_(1.0)
        done.set()
        helper.join()


def domains(s):
    for turn in range(3):
        ALPHA.push_range(named(ALPHA, f"alpha {turn}"))
        s.x.mul_(1.0)
        BETA.push_range(named(BETA, f"beta {turn}"))
        s.x.add_(1.0)
        ALPHA.pop_range()
        s.x.mul_(1.0)
        BETA.pop_range()
    begun = nvtx.start_range("started here")
    s.x.mul_(1.0)
    ended = threading.Thread(target=nvtx.end_range, args=(begun,))
    ended.start()
    ended.join()


def graph(s):
    s.graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with rng("capturing"), torch.cuda.graph(s.graph):
        with rng("captured matmul"):
            z = s.x @ s.y
        with rng("captured adds"):
            for _ in range(3):
                z.add_(1)
    with rng("replay"):
        for _ in range(6):
            s.graph.replay()
    torch.cuda.synchronize()


def unified(s):
    tensor, host = managed(s.lib, 2 << 20)
    step = 1024  # one float of each page
    with rng("managed"):
        for _ in range(4):
            for at in range(0, len(host), step):
                host[at] = 1.0
            tensor.mul_(2.0)
            torch.cuda.synchronize()
            total = sum(host[at] for at in range(0, len(host), step))
    print(f"managed: {total} of {2.0 * len(host) / step}")


def cold(s):
    with rng("cold"):
        torch.lgamma(s.x)
        torch.fft.rfft(s.y)
        torch.sort(s.x[0])


def warm(s):
    for _ in range(2):
        forward(s)
    loops(s)
    with torch.cuda.stream(s.one):
        s.x @ s.y
    torch.cuda.synchronize()


def main():
    s = State()
    with rng("warm up"):
        warm(s)
    for turn in range(1 if CHILD else 4):
        with rng(f"iteration {turn}"):
            forward(s)
    torch.cuda.synchronize()
    loops(s)
    other_thread(s)
    domains(s)
    graph(s)
    if UM:
        unified(s)
    cold(s)
    torch.cuda.synchronize()
    if not CHILD and "--alone" not in sys.argv:
        more = ["--um"] if UM else []
        subprocess.run([sys.executable, __file__, "--child", *more], check=True)
    torch.cuda.nvtx.range_push("left open")
    s.x.mul_(1.0)
    torch.cuda.synchronize()


def kineto(path):
    s = State()
    warm(s)
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds, record_shapes=False) as profiler:
        for turn in range(2):
            with torch.profiler.record_function(f"iteration {turn}"), torch.profiler.record_function("forward"):
                with torch.profiler.record_function("item loop"):
                    for _ in range(5):
                        (s.x * 2).sum().item()
                with torch.profiler.record_function("pageable reads"):
                    for _ in range(4):
                        s.page.copy_(s.block, non_blocking=True)
                with torch.profiler.record_function("small kernels"):
                    for _ in range(24):
                        s.small.add_(1)
            profiler.step()
        with torch.profiler.record_function("sync loop"):
            for _ in range(5):
                s.x @ s.y
                torch.cuda.synchronize()
        with torch.profiler.record_function("python between"):
            for _ in range(10):
                s.x.mul_(1.0)
                time.sleep(0.002)
            s.x.mul_(1.0)
        with torch.profiler.record_function("cold"):
            torch.lgamma(s.x)
        torch.cuda.synchronize()
    profiler.export_chrome_trace(path)


if __name__ == "__main__":
    if "--kineto" in sys.argv:
        kineto(sys.argv[sys.argv.index("--kineto") + 1])
    else:
        main()
