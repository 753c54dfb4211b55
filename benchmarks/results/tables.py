"""The tables of results: the ladder with the mission's phases, peers, sizes, budgets, ops, errors and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.results.evidence import Evidence
from benchmarks.results.words import seconds, share, table, time_of, times
from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.climbs import climbs
from fluxperf.harness.facts.documents import Beside
from fluxperf.harness.facts.per_op import PerOp
from fluxperf.harness.facts.pictures import pictures_shown
from fluxperf.harness.facts.samples import speedup, summary_of
from fluxperf.harness.facts.study import Ladder
from fluxperf.harness.facts.sustained import sustained_of
from fluxperf.harness.facts.work import work_of
from fluxperf.harness.records import Record, variant
from fluxperf.harness.text import units

#: Rungs in the table of sizes.
_SIZED = ("captured", "fp8")

#: Number of ops of a profiled step that are listed.
_TOP = 8

#: Stages of a picture that are listed, as records name them.
_STAGES = ("text_encode", "denoise", "vae_decode", "png")

#: In the place of a speedup over a rung that is missing.
_UNKNOWN = "not measured"


def ladder(evidence: Evidence, workload: str, *, brief: bool = False) -> str:
    """Every rung: speedup of the phase that it completes, time, speedup over the baseline, copies; less if brief."""
    shown = evidence.ladder(workload)
    ends = {climb.after.rung: climb for climb in climbs(evidence.study, shown) if climb.after}
    named = {phase.after: phase.name.partition(":")[0] for phase in evidence.study.context.phases}
    rows = []
    for rung in shown.rungs:
        record, climb = rung.record, ends.get(rung.name)
        if record is None or rung.info is None:
            continue
        gave = ""
        if climb is not None:
            expected = f", expected {climb.expected[0]:g}-{climb.expected[1]:g}x" if climb.expected else ""
            gave = f"{named.get(rung.name, 'beyond')}: {times(climb.found) or _UNKNOWN}{expected}"
        over = "1x" if rung.name == shown.start else times(speedup(shown.baseline, record)) or _UNKNOWN
        row = [f"`{rung.name}`", gave, time_of(record), over, str(record.totals.d2h_copies + record.totals.h2d_copies)]
        if not brief:
            totals = record.totals
            row += [str(totals.launches or ""), f"{(totals.peak_bytes or 0) / 1e9:.1f}"]
            row.append("reference" if record.error is None else f"{record.error.relative:.1e}")
        rows.append(row)
    headings = ["rung", "what it gave", f"{shown.workload.steps} steps", "over baseline", "copies in a forward"]
    return table(headings if brief else [*headings, "launches", "GB", "error"], rows)


def work(evidence: Evidence, workload: str) -> str:
    """Seconds, cycles, clock and joules of a step of every rung that has them.

    Not within a memory budget, where the first step takes longer than the others: joules are those of a generation.
    """
    rows = []
    for rung in evidence.ladder(workload).rungs:
        found = work_of(rung.record) if rung.record and rung.info else None
        if found is not None:
            told = (
                (found.seconds, 1e3, ".2f"), (found.cycles, 1e-6, ".1f"), (found.clock_hz, 1e-9, ".2f"),
                (found.joules, 1, ".1f"), (found.joules_per_tflop, 1, ".3f"),
            )  # fmt: skip
            cells = ["" if value is None else format(value * scale, how) for value, scale, how in told]
            rows.append([f"`{rung.name}`", *cells])
    return table(["a step of", "ms", "Mcycles", "GHz", "J", "J/TFLOP"], rows)


def peers(evidence: Evidence, *workloads: str, brief: bool = False) -> str:
    """Each peer with the rung that was measured in turns with it; without eager diffusers if brief."""
    rows = []
    for name in workloads:
        ladder_ = evidence.ladder(name)
        tokens = f"{ladder_.workload.text_tokens} text tokens"
        for peer, ours, found in sorted(beside_peers(evidence.study, ladder_), key=lambda row: row[0].name):
            if brief and peer.name == evidence.study.context.published.peer_name:
                continue
            rows.append([tokens, f"`{ours.rung}`", time_of(ours), f"`{peer.name}`", time_of(peer.record), times(found)])
    return table(["", "rung", "4 steps", "in turns with", "4 steps", "as long as ours"], rows)


def sizes(evidence: Evidence) -> str:
    """Step times of two rungs at every size, and their ratio to the sustained bound."""
    rows = []
    for one in evidence.study.climbing:
        cells = [_size(one)]
        for name in _SIZED:
            record = one.at(name)
            found, near = summary_of(record), sustained_of(evidence.study.context, record)
            if record is None or found is None or near is None:
                break
            cells += [f"{found.median / one.workload.steps * 1e3:.1f}", share(near.share)]
        else:
            rows.append(cells)
    heads = [text for name in _SIZED for text in (f"`{name}`, ms/step", "of the sustained bound")]
    return table(["", *heads], rows)


def _size(one: Ladder) -> str:
    row = one.workload
    batch = f", batch {row.batch}" if row.batch > 1 else ""
    return f"{row.model}, {row.height} x {row.width}, {row.text_tokens} text tokens, {row.steps} steps{batch}"


def budgets(evidence: Evidence, workload: str) -> str:
    """Rungs with a memory budget, beside the same without one."""
    rows = [
        [
            f"`{record.rung}` in {record.settings['memory_gb']} GB",
            time_of(record),
            time_of(evidence.ladder(workload).at(record.rung)),
            f"{(record.totals.peak_bytes or 0) / 1e9:.1f}",
            f"{record.totals.h2d_bytes / 1e9:.2f}",
            f"{record.error.relative:.1e}" if record.error else "",
        ]
        for record in evidence.within(workload)
    ]
    return table(
        ["within a budget", "4 steps", "without a budget", "GB at most", "GB streamed behind a step", "error"], rows
    )


def profiled(document: PerOp) -> str:
    """The ops that take most of a profiled step."""
    lines = sorted(document.ops, key=lambda line: -line.gpu_ms)
    rows = [
        [
            f"`{line.op}`", line.section, str(line.calls_per_step or ""), f"{line.gpu_ms:.2f}",
            share(line.share_of_step),
            "" if line.tflop_per_s is None else f"{line.tflop_per_s:.0f}",
            "" if line.of_ceiling is None else share(line.of_ceiling),
        ]
        for line in lines[:_TOP]
    ]  # fmt: skip
    rest = lines[_TOP:]
    if rest:
        took = sum(line.gpu_ms for line in rest)
        rows.append([f"{len(rest)} more", "", "", f"{took:.2f}", share(took / document.step_ms), "", ""])
    return table(["op", "blocks", "calls", "ms of a step", "share", "TFLOP/s", "of its ceiling"], rows)


def pictures(evidence: Evidence) -> str:
    """Pictures from prompt to file, stage by stage, and peers in turns with fluxperf."""
    rows = [
        [f"`{variant(record)}`", time_of(record, "picture"), *(_stage(record, stage) for stage in _STAGES), ""]
        for record in pictures_shown(evidence.study)
    ]
    rows += [
        _beside(one) for _, document in evidence.documents.pictures for rung in document.rungs for one in rung.peers
    ]
    return table(["", "picture", *(f"`{stage}`" for stage in _STAGES), f"`{turned(evidence)}` in turns"], rows)


def turned(evidence: Evidence) -> str:
    """The rung whose pictures were made in turns with those of peers."""
    return next(rung.rung for _, document in evidence.documents.pictures for rung in document.rungs if rung.peers)


def starts(evidence: Evidence) -> str:
    """The first pictures of each rung's process, in the order of the processes' rungs, and how long loading takes."""
    rows = [
        [
            f"`{rung.rung}`",
            f"{rung.loads['ready'].bytes / 1e9:.1f} GB in {rung.loads['ready'].time_s:.1f} s",
            *(f"{value:.1f} s" for value in rung.pictures_s.values()),
        ]
        for _, document in evidence.documents.pictures
        for rung in document.rungs
    ]
    heads = {
        name: None for _, document in evidence.documents.pictures for rung in document.rungs for name in rung.pictures_s
    }
    return table(["", "loading", *heads], rows)


def _stage(record: Record, stage: str) -> str:
    found = summary_of(record, stage)
    return seconds(found.median) if found else ""


def _beside(one: Beside) -> list[str]:
    theirs, ours = median(one.picture_s), median(one.fluxperf_picture_s)
    stages = (seconds(median(one.stages_s[stage])) if stage in one.stages_s else "" for stage in _STAGES)
    return [
        f"`{one.name}`",
        _ranged(one.picture_s),
        *stages,
        f"{_ranged(one.fluxperf_picture_s)}, {theirs / ours:.2f}x as long",
    ]


def _ranged(samples: Sequence[float]) -> str:
    """The median of pictures of one process, and their range."""
    return f"{seconds(median(samples))} (~{min(samples) * 1e3:.1f}-{max(samples) * 1e3:.1f})"


def errors(evidence: Evidence) -> str:
    """Errors of rungs and peers against the reference, on the same weights."""
    rows = []
    for _, document in evidence.documents.quality:
        for row in document.rows:
            figures = row.figures or {}
            steps, latents = (
                [seed for seed in figures.get(name, []) if isinstance(seed, list)] for name in ("forward", "latents")
            )
            if row.group != "layers" and steps and latents:
                worst, final = max(map(max, steps)), max(seed[-1] for seed in latents)
                rows.append([f"`{row.name}`", row.precision, f"{worst * 100:.2f} %", f"{final * 100:.2f} %"])
    return table(["", "precision", "worst step", "final latents"], rows)


def explained(document: PerOp) -> str:
    """The share of a step that its ops explain, in words."""
    return f"{units.percent(document.explained)} of {document.step_ms:.1f} ms".replace(units.NBSP, " ")
