"""Timelines that a page must handle: all kinds of items, very many events, hostile names."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from fluxperf.harness.timeline.attribution import attribute
from fluxperf.harness.timeline.model import Call, Calls, Copy, Range, Ranges, Sync, Thread, Timeline, Waits, Work, Works

US = 1_000
MS = 1_000_000

UP = Copy("Host-to-Device", "host", "device", "Pageable", "Device", 1)
DOWN = Copy("Device-to-Host", "device", "host", "Device", "Pinned", 1)
WITHIN = Copy("Device-to-Device", "device", "device", "Device", "Device", 3)


def pid(number: int = 100) -> int:
    return 1 << 48 | number << 24


class Making:
    """Rows of a timeline; `done` attributes them to ranges."""

    def __init__(self, source: str = "made.sqlite") -> None:
        self.source = source
        self.ranges: list[Range] = []
        self.calls: list[Call] = []
        self.work: list[Work] = []
        self.syncs: list[Sync] = []
        self.gpus: dict[int, str] = {}
        self._correlation = 0

    def range(
        self, name: str, start: int, end: int, *, process: int = 100, thread: int = 1, pushed: bool = True
    ) -> None:
        where = pid(process) | thread
        self.ranges.append(Range(name, "fluxperf", start, end, where, where, pushed))

    def call(self, name: str, start: int, end: int, *, process: int = 100, thread: int = 1) -> int:
        self._correlation += 1
        where = pid(process) | thread
        self.calls.append(Call(name, "runtime", start, end, where, self._correlation))
        return self._correlation

    def run(
        self,
        name: str,
        call_at: int,
        run_at: int,
        lasts: int,
        kind: Any = "kernel",
        *,
        process: int = 100,
        thread: int = 1,
        gpu: int = 0,
        stream: int = 7,
        copy: Copy | None = None,
        size: int = 0,
        called_for: int = 2 * US,
    ) -> None:
        """Adds a launch call and its work."""
        number = self.call("cudaLaunchKernel", call_at, call_at + called_for, process=process, thread=thread)
        shape = (64, 1, 1, 128, 1, 1) if kind == "kernel" else ()
        full = f"void {name}<float>(float*)" if kind == "kernel" else ""
        self.gpus.setdefault(gpu, "Example GPU")
        self.work.append(
            Work(
                kind,
                name,
                run_at,
                run_at + lasts,
                pid(process),
                gpu,
                stream,
                number,
                bytes=size,
                full_name=full,
                shape=shape,
                copy=copy,
            )
        )

    def wait(self, name: str, start: int, end: int, *, blocks: bool = True, process: int = 100) -> None:
        # A call of this name proves nothing, so the record's own words and type are used.
        number = self.call("cudaDoes", start, end, process=process)
        self.syncs.append(Sync(name, blocks, start, end, pid(process), 0, 7, number))

    def done(self) -> Timeline:
        threads = sorted({(row.process, row.thread) for rows in (self.calls, self.ranges) for row in rows})
        timeline = Timeline(
            source=self.source,
            product="2025.1.1.100",
            schema="3.24.14",
            graph_mode="Node",
            processes={process: "python" for process, _ in threads},
            threads=[Thread(process, thread, "main") for process, thread in threads],
            gpus=self.gpus,
            ranges=Ranges.of(self.ranges),
            calls=Calls.of(self.calls),
            work=Works.of(sorted(self.work, key=lambda row: (row.start_ns, row.end_ns))),
            syncs=Waits.of(self.syncs),
            notes=[],
        )
        attribute(timeline)
        return timeline


def everything(text: str = "") -> Timeline:
    """Three steps with every kind of item: the second has the median GPU time. ``text`` is part of every name."""
    made = Making(f"everything{text}.sqlite")
    made.gpus[1] = f"Second GPU{text}"
    for step in range(3):
        at = step * 2 * MS
        made.range(f"step {step}", at, at + 1800 * US)
        made.range("double 0", at + 10 * US, at + 1700 * US)
        made.range(f"qkv_heads{text}", at + 20 * US, at + 600 * US)
        made.range(f"attention{text}", at + 610 * US, at + 1600 * US)
        made.range(f"started{text}", at + 400 * US, at + 900 * US, pushed=False)
        made.run(f"Host-to-Device{text}", at + 30 * US, at + 40 * US, 100 * US, "copy", copy=UP, size=4_000_000)
        made.run(f"qkv{text}", at + 50 * US, at + 150 * US, (200 + 10 * step) * US)
        made.run(f"overlap{text}", at + 60 * US, at + 200 * US, 80 * US)
        made.run(f"memset{text}", at + 65 * US, at + 380 * US, 30 * US, "memset", size=4096)
        made.run(f"beside{text}", at + 70 * US, at + 100 * US, 500 * US, stream=13)
        made.run(f"flash{text}", at + 700 * US, at + 710 * US, 300 * US)
        made.run(f"Device-to-Device{text}", at + 720 * US, at + 1010 * US, 60 * US, "copy", copy=WITHIN, size=10_000)
        made.run(f"graph{text}", at + 730 * US, at + 1080 * US, 100 * US, "graph")
        made.run(f"Device-to-Host{text}", at + 740 * US, at + 1200 * US, 50 * US, "copy", copy=DOWN, size=4)
        made.run(f"other gpu{text}", at + 750 * US, at + 760 * US, 90 * US, gpu=1, process=200)
        made.wait(f"Stream sync{text}", at + 800 * US, at + 1260 * US)
        made.wait(f"Stream wait{text}", at + 1270 * US, at + 1272 * US, blocks=False)
    return made.done()


def many(kernels: int, steps: int = 4, seed: int = 0, per_op: int = 16) -> Timeline:
    """Steps of 57 blocks and six ops each, with a given number of launches; some are copies with waits."""
    rng = random.Random(seed)
    made = Making("many.sqlite")
    names = [f"gemm_bf16_{a}x{b}_stages_{c}" for a in (64, 128) for b in (64, 256) for c in (3, 4)]
    host = gpu = launched = 0
    made.range("forward", 0, 10**15)
    for step in range(steps):
        begun, block = host, 0
        while launched < kernels * (step + 1) // steps:
            block_at, block = host, block + 1
            for op in ("norm_modulate", "linear", "qkv_heads", "attention", "linear_gelu", "linear_gated_residual"):
                op_at = host
                for _ in range(per_op):
                    launched += 1
                    called = rng.randint(1500, 5000)
                    start = max(host + called + rng.randint(300, 1500), gpu + rng.randint(0, 800))
                    lasts = rng.choice((1500, 2500, 9000, 30_000)) + rng.randint(0, 999)
                    stream, kind = rng.choice((7, 7, 7, 13)), rng.random()
                    if kind < 0.01:
                        made.run("Device-to-Host", host, start, lasts, "copy", copy=DOWN, size=4, stream=stream)
                        made.wait("Stream sync", host + called, start + lasts)
                        host = start + lasts
                    elif kind < 0.02:
                        made.run("Host-to-Device", host, start, lasts, "copy", copy=UP, size=10**6, stream=stream)
                    else:
                        made.run(rng.choice(names), host, start, lasts, stream=stream, called_for=called)
                    host, gpu = host + called + rng.randint(100, 2500), start + lasts
                made.range(op, op_at, host)
                host += 1500
            made.range(f"double {block}", block_at, host)
        made.range(f"step {step}", begun, host)
        host += 40_000
    made.ranges[0] = msgspec.structs.replace(made.ranges[0], end_ns=max(host, gpu))
    return made.done()


def events(timeline: Timeline) -> int:
    return len(timeline.ranges) + len(timeline.calls) + len(timeline.work) + len(timeline.syncs)
