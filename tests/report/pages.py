"""Synthetic records, and a page parsed into the text that a reader sees."""

# The page writes ranges with an en dash and ratios with a multiplication sign.

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import msgspec

from fluxperf.harness.facts.inputs import Context, PhaseInfo, Published, RungInfo
from fluxperf.harness.records import (
    BlockRow,
    ErrorRow,
    LedgerRow,
    Machine,
    OpRow,
    Record,
    RecordsFile,
    Totals,
    WorkloadRow,
)
from fluxperf.harness.text import units

RUNGS = ("baseline", "broadcast", "batched", "tensorcore", "fused", "captured", "fp8")

CONTEXT = Context(
    ladder=(
        RungInfo("baseline", "start", "numpy round trips, batched matmul as a loop over heads, float32", None),
        RungInfo("broadcast", "Phase 1", "elementwise ops stay on the GPU: no copy in the forward", (10.0, 20.0)),
        RungInfo("batched", "Phase 2", "batched matmul is one strided-batched call", (1.2, 2.0)),
        RungInfo("tensorcore", "Phase 2", "bfloat16 operands, float32 accumulation", (1.5, 2.5)),
        RungInfo("fused", "Phase 3", "fused elementwise ops, flash attention", (1.5, 2.0)),
        RungInfo("captured", "beyond", "what does not depend on the image leaves the step; CUDA graph", None),
        RungInfo("fp8", "beyond", "e4m3 matrix products, quantization in the producing kernels", None),
    ),
    phases=(
        PhaseInfo("Phase 1", "baseline", "broadcast", (10.0, 20.0)),
        PhaseInfo("Phase 2", "broadcast", "tensorcore", (2.0, 3.0)),
        PhaseInfo("Phase 3", "tensorcore", "fused", (1.5, 2.0)),
    ),
    published=Published(
        baseline_s=420.0,
        peer_s=3.0,
        peer_name="diffusers",
        target_s=10.0,
        baseline_block_s=0.517,
        peer_block_s=0.005,
        d2h_copies=1374,
        h2d_copies=955,
        named_costs=(
            ("batched_matmul", "loop over heads", 0.058),
            ("layer_norm", "numpy", 0.015),
            ("gated_residual", "numpy", 0.011),
            ("modulate", "numpy", 0.009),
        ),
        source="the implementation's own published source and notes",
    ),
    headline_workload="schnell-1024",
    bases={"tiny": "tiny", "schnell": "schnell-1024"},
    command="fluxperf run --all --workload tiny -o tiny.jsonl",
)

LAPTOP = Machine(
    gpu=None,
    driver=None,
    cuda=None,
    cupy=None,
    cudnn=None,
    cpu="AMD EPYC 9R14",
    cores=16,
    memory_bytes=64 * 10**9,
    python="3.11.7",
    numpy="2.4.6",
    os="Linux 6.1",
)
H100 = msgspec.structs.replace(
    LAPTOP, gpu="NVIDIA H100 80GB HBM3", driver="580.95", cuda="13.0", cupy="14.0", cudnn="9.12"
)

# Copies of one block of the baseline: label, op, down, up. They add up to 38/28, 17/11, 2/2 and 4/3.
COPIES: dict[str, tuple[tuple[str, str, int, int], ...]] = {
    "embed": (("temb", "silu_linear", 2, 2),),
    "double": (
        ("adaln", "norm_modulate", 6, 12),
        ("concat", "concat_tokens", 6, 3),
        ("rope", "apply_rope", 6, 2),
        ("attention scale", "scale", 1, 1),
        ("split", "split_tokens", 1, 2),
        ("gate", "gated_residual", 6, 0),
        ("second half", "modulate", 12, 6),
        ("result", "add_broadcast", 0, 2),
    ),
    "single": (
        ("entry", "concat_tokens", 2, 0),
        ("before adaln", "norm_modulate", 0, 1),
        ("adaln", "norm_modulate", 3, 3),
        ("rope", "apply_rope", 6, 2),
        ("attention scale", "scale", 1, 1),
        ("halves", "gated_residual", 5, 0),
        ("joined", "concat_tokens", 0, 2),
        ("result", "add_broadcast", 0, 2),
    ),
    "final": (("final norm", "layer_norm", 4, 3),),
}


def workload(name: str = "tiny", **changes: Any) -> WorkloadRow:
    sizes = (1024, 512) if name == "schnell-1024" else (64, 7)
    row = WorkloadRow(
        name=name,
        model="schnell" if name == "schnell-1024" else "tiny",
        height=sizes[0],
        width=sizes[0],
        text_tokens=sizes[1],
        steps=4,
        batch=1,
        weights="synthetic (seed 0)",
    )
    return msgspec.structs.replace(row, **changes)


def rows_of(blocks: tuple[int, int], *, copying: bool) -> tuple[list[BlockRow], list[LedgerRow]]:
    """Blocks and ledger of one forward with given numbers of double and single blocks."""
    size = 16384
    counts = {"embed": 1, "double": blocks[0], "single": blocks[1], "final": 1}
    rows, entries = [], []
    for section, number in counts.items():
        down = sum(row[2] for row in COPIES[section]) if copying else 0
        up = sum(row[3] for row in COPIES[section]) if copying else 0
        rows += [
            BlockRow(
                section=section, index=i, d2h_copies=down, h2d_copies=up, d2h_bytes=down * size, h2d_bytes=up * size
            )
            for i in range(number)
        ]
        if copying:
            for label, op, *pair in COPIES[section]:
                entries += [
                    LedgerRow(
                        direction=way, label=label, op=op, count=n * number, bytes=n * number * size, section=section
                    )
                    for way, n in zip(("d2h", "h2d"), pair, strict=True)
                    if n
                ]
    return rows, entries


def totals_of(entries: list[LedgerRow], **changes: Any) -> Totals:
    def total(way: str, field: str) -> int:
        return sum(getattr(row, field) for row in entries if row.direction == way)

    row = Totals(
        d2h_copies=total("d2h", "count"),
        h2d_copies=total("h2d", "count"),
        d2h_bytes=total("d2h", "bytes"),
        h2d_bytes=total("h2d", "bytes"),
        launches=None,
        syncs=total("d2h", "count"),
        peak_bytes=25_600_000,
        allocations=812,
        op_calls=174,
    )
    return msgspec.structs.replace(row, **changes)


def implementations(rung: str) -> dict[str, str]:
    level = RUNGS.index(rung) if rung in RUNGS else 0
    table = {
        "layer_norm": ("roundtrip", "primitives", 1),
        "modulate": ("roundtrip", "primitives", 1),
        "concat_tokens": ("roundtrip", "primitives", 1),
        "batched_matmul": ("loop", "batched", 2),
        "linear": ("float32", "bfloat16", 3),
        "norm_modulate": ("composed", "fused", 4),
        "attention": ("composed", "flash", 4),
    }
    return {op: later if level >= at else first for op, (first, later, at) in table.items()}


def make(
    rung: str = "baseline",
    *,
    times: list[list[float]] | None = None,
    blocks: tuple[int, int] = (2, 2),
    copying: bool | None = None,
    **changes: Any,
) -> Record:
    """One record: a host twin of ``tiny`` unless told otherwise, with the baseline's copies at the baseline."""
    rows, entries = rows_of(blocks, copying=rung == "baseline" if copying is None else copying)
    level = RUNGS.index(rung) if rung in RUNGS else 0
    times = times or [[0.0812 / (1 + level) + 0.0007 * p + 0.0001 * i for i in range(5)] for p in range(3)]
    ops = [
        OpRow(op="norm_modulate", count=12, time_s=0.0041, bytes=1_270_000, flops=900_000, section="double"),
        OpRow(
            op="layer_norm",
            count=12,
            time_s=0.0023,
            bytes=830_000,
            flops=500_000,
            section="double",
            within="norm_modulate",
        ),
        OpRow(
            op="modulate",
            count=12,
            time_s=0.0015,
            bytes=440_000,
            flops=400_000,
            section="double",
            within="norm_modulate",
        ),
        OpRow(op="linear", count=38, time_s=0.0062, bytes=4_100_000, flops=1_230_000_000, section="double"),
        OpRow(op="attention", count=4, time_s=0.0054, bytes=2_300_000, flops=340_000_000, section="single"),
    ]
    record = Record(
        created_utc="2026-07-26T12:00:00Z",
        fluxperf="0.1.0",
        commit="3f2c9d81a0b4e6f7c8d9e0f1a2b3c4d5e6f70819",
        dirty=False,
        machine=LAPTOP,
        workload=workload(),
        implementation="fluxperf",
        rung=rung,
        ran_as="twin",
        phase_table=implementations(rung),
        times_s={"denoise": times, "step": [[value / 4 for value in samples] for samples in times]},
        totals=totals_of(entries),
        setup_totals=totals_of([], h2d_copies=97, h2d_bytes=12_400_000, syncs=0),
        blocks=rows,
        ledger=entries,
        ops=ops,
        error=ErrorRow(relative=0.0 if rung == "baseline" else 3.1e-7 * 10**level, against="float64 oracle"),
    )
    return msgspec.structs.replace(record, **changes)


def on_gpu(rung: str, seconds: float, **changes: Any) -> Record:
    """One record of the main workload on a GPU."""
    times = [[seconds * (1 + 0.004 * p + 0.001 * i) for i in range(3)] for p in range(6)]
    options: dict[str, Any] = {
        "machine": H100,
        "workload": workload("schnell-1024"),
        "ran_as": "kernel",
        "blocks": (19, 38),
        "times": times,
    }
    record = make(rung, **(options | changes))
    return msgspec.structs.replace(record, totals=msgspec.structs.replace(record.totals, launches=9120))


def files_of(*records: Record, problems: tuple[str, ...] = (), path: str = "tiny.jsonl") -> list[RecordsFile]:
    return [RecordsFile(path, list(records), list(problems))]


def twins(*without: str) -> list[Record]:
    return [make(rung) for rung in RUNGS if rung not in without]


GPU_SECONDS = dict(zip(RUNGS, (417.0, 31.2, 17.9, 8.4, 4.61, 3.07, 2.13), strict=True))


class Page(HTMLParser):
    """A page as elements, text by section, and table rows."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.figures: list[str] = []
        self._section = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag == "svg":
            self.figures.append("")
        if tag in ("td", "th", "svg", "script", "style"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._section = ""
        if self._inside and tag == self._inside[-1]:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        where = self._inside[-1] if self._inside else ""
        if where in ("td", "th"):
            self.rows[-1][-1] += data.replace(units.NBSP, " ")
        if where == "svg":
            self.figures[-1] += data.replace(units.NBSP, " ")
        if where not in ("script", "style"):
            text = data.replace(units.NBSP, " ")
            self.sections[self._section] = self.sections.get(self._section, "") + text

    def row(self, first: str, width: int) -> list[str]:
        """The row of ``width`` cells whose first cell begins with ``first``."""
        return next(row for row in self.rows if len(row) == width and row[0].startswith(first))


def hostile(text: str) -> Record:
    """A record with ``text`` in every field that may hold text."""
    record = make(rung=text, copying=True)
    return msgspec.structs.replace(
        record,
        commit=text,
        created_utc=text,
        implementation=text,
        machine=msgspec.structs.replace(LAPTOP, cpu=text, os=text),
        workload=workload(text, model=text, weights=text),
        phase_table={text: text},
        ledger=[msgspec.structs.replace(row, label=text, op=text, section=text) for row in record.ledger[:1]],
        blocks=[msgspec.structs.replace(row, section=text) for row in record.blocks[:1]],
        ops=[msgspec.structs.replace(row, op=text, within=text, section=text) for row in record.ops[:1]],
        error=ErrorRow(relative=0.1, against=text),
        settings={text: text},
    )
