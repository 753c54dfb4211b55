"""A program without findings: forwards are queued, each as two graph launches or products; one pinned
read at the end.
"""

import sys

import torch
from common import DEVICE, rng


def main():
    x = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    w = [torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(4)]
    out = torch.empty_like(x)
    host = torch.empty(8192, 8192, dtype=torch.bfloat16, pin_memory=True)

    def forward():
        y = x
        for turn in range(10):
            with rng(f"layer {turn}"):
                y = torch.nn.functional.gelu(y @ w[turn % 4])
        out.copy_(y)

    for _ in range(3):
        forward()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    graph.replay()
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStart()
    for turn in range(6):
        with rng(f"iteration {turn}"), rng("forward"):
            forward()
    if "--graph" in sys.argv:
        for turn in range(6, 12):
            with rng(f"iteration {turn}"), rng("forward"):
                graph.replay()
    with rng("result"):
        host.copy_(out, non_blocking=True)
        torch.cuda.synchronize()
    torch.cuda.cudart().cudaProfilerStop()


main()
