"""Errors of rungs against a float32 run on the same inputs, which e4m3 layers cause them, and diffusers' errors.

    python -m benchmarks.quality --workload schnell-1024 -o reports/records/h100-quality.json

The reference runs first, alone, then float32 rungs, each alone on the device. All other runs share the same bfloat16
weights in memory: diffusers, rungs, and the rung before ``fp8`` with one layer type at a time in e4m3. ``--workload
tiny --device host`` runs on any machine. The file is rewritten after every run.
"""

from __future__ import annotations

import datetime
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.quality.asked import Asked, asked
from benchmarks.quality.figures import Figures, Result, Row, compared, ratios, sentences, view
from benchmarks.quality.layers import PLAIN, QUANTIZED, layers_named, partly
from benchmarks.quality.runs import Ours, Reference, alone, references
from fluxperf.engine.checkpoints.sources import SharedWeights, WeightSource
from fluxperf.engine.device import open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.phases import phase_named
from fluxperf.errors import FluxperfError
from fluxperf.files import write_whole
from fluxperf.harness.measure.environment import commit, installed, machine
from fluxperf.record_rows import workload_row
from fluxperf.workloads import placed

#: Order of the rows in the table; the order of measurement differs.
_GROUPS = ("rung", "layers", "peer")
_LIBRARIES = ("torch", "diffusers", "ml_dtypes")

Rows = Iterator[Row]
Measure = Callable[[], Figures | str]


def float32_rungs(names: Sequence[str], source: WeightSource, device: str, expected: Sequence[Reference]) -> Rows:
    """Rows of rungs with weights of their own, one after the other."""
    for name in names:
        if phase_named(name).activations == "float32":
            with alone(name, source, open_device(device)) as (_, run):
                row = _of_rung(name, lambda run=run: compared(run, expected))
            yield row


def shared_rungs(names: Sequence[str], shared: WeightSource, device: Device, expected: Sequence[Reference]) -> Rows:
    """Rows of rungs in bfloat16 and e4m3, on the same bfloat16 weights."""

    def figures(name: str) -> Figures | str:
        rung = placed(name, shared, device)
        return compared(Ours(device, rung.sampler, rung), expected)

    for name in names:
        if phase_named(name).activations != "float32":
            yield _of_rung(name, lambda name=name: figures(name))
            gc.collect()


def layer_rows(names: Sequence[str], shared: WeightSource, device: Device, expected: Sequence[Reference]) -> Rows:
    """Rows of layer types in e4m3, one after the other."""

    def figures(name: str) -> Figures | str:
        sampler, model = partly(shared, device, layers_named(name))
        return compared(Ours(device, sampler, model, one_by_one=True), expected)

    for name in names:
        projections, ops = layers_named(name)
        what = f"{', '.join((*projections, *ops))} as in {QUANTIZED}, the rest as in {PLAIN}"
        yield _row(name, "layers", "e4m3", what, lambda name=name: figures(name))
        gc.collect()


def peer_rows(names: Sequence[str], shared: WeightSource, device: Device, expected: Sequence[Reference]) -> Rows:
    """Rows of forms of diffusers; a form that cannot run here has the reason instead of figures."""
    if not names:
        return
    try:
        from benchmarks.quality import peer
    except ImportError as error:
        reason = f"its libraries cannot be imported ({error}). Install torch and diffusers in fluxperf's environment."
        yield from (Row(name=name, group="peer", precision="", what="", reason=reason) for name in names)
        return
    for e4m3, precision in ((False, "bfloat16"), (True, "e4m3")):
        chosen = {name: peer.FORMS[name] for name in names if peer.FORMS[name].e4m3 == e4m3}
        reason = peer.obstacle(e4m3, device) if chosen else "no form was requested"
        if reason is not None:
            for name, form in chosen.items():
                yield Row(name=name, group="peer", precision=precision, what=form.what, reason=reason)
            continue
        with peer.opened(e4m3, shared, device) as model:
            for name, form in chosen.items():
                run = peer.Theirs(model, form.exact, device)
                yield _row(name, "peer", precision, form.what, lambda run=run: compared(run, expected))


def measured(how: Asked, expected: Sequence[Reference]) -> Rows:
    """All rows in order of measurement.

    The peer is first, because PyTorch returns its memory and CuPy's pool would not.
    """
    yield from float32_rungs(how.rungs, how.source, how.device, expected)
    shared = SharedWeights(how.source)
    with closing(open_device(how.device)) as device:
        device.prepare()
        yield from peer_rows(how.peers, shared, device, expected)
        yield from shared_rungs(how.rungs, shared, device, expected)
        yield from layer_rows(how.layers, shared, device, expected)


def results(how: Asked) -> Iterator[Result]:
    """The file's content after every row."""
    start = time.perf_counter()
    expected = references(how.reference, how.source, open_device(how.device), how.workload, how.seeds)
    seconds = time.perf_counter() - start
    print(f"reference {how.reference}: {seconds:.1f} s", flush=True)
    revision, dirty = commit(Path(__file__).resolve().parents[2])
    result = Result(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=revision,
        dirty=dirty,
        machine=machine(how.described),
        versions={name: version for name in _LIBRARIES if (version := installed(name))},
        device=how.device,
        workload=workload_row(how.workload, how.source),
        reference=how.reference,
        reference_s=seconds,
        seeds=list(range(how.seeds)),
    )
    for row in measured(how, expected):
        print(f"{row.group} {row.name}: {row.time_s:.1f} s", flush=True)
        rows = sorted([*result.rows, row], key=lambda row: _GROUPS.index(row.group))
        result = msgspec.structs.replace(result, rows=rows, ratios=list(ratios(rows)))
        yield result


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes a JSON file; exit code 1 if results of fluxperf are not finite."""
    try:
        how = asked(__doc__.partition("\n")[0], words)
        for result in results(how):
            write_whole(how.output, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    except FluxperfError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    Console().print(view(result))
    for sentence in sentences(result):
        print(sentence)
    if any(row.figures is None and row.group != "peer" for row in result.rows):
        sys.exit(1)


def _of_rung(name: str, run: Measure) -> Row:
    phase = phase_named(name)
    return _row(name, "rung", "e4m3" if phase.e4m3 else phase.activations, phase.change, run)


def _row(name: str, group: str, precision: str, what: str, run: Measure) -> Row:
    start = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - start
    figures, reason = (None, found) if isinstance(found, str) else (found, None)
    return Row(name=name, group=group, precision=precision, what=what, figures=figures, reason=reason, time_s=seconds)


if __name__ == "__main__":
    main()
