"""How far rungs are from a float32 run on the same numbers, which layers in e4m3 that is due to, and diffusers beside.

    python -m benchmarks.quality --workload schnell-1024 -o reports/records/h100-quality.json

The reference runs first, by itself, then float32 rungs, each with the device to itself. All else has the same bfloat16
weights in the same memory: diffusers, rungs, and the rung before ``fp8`` with one type of layer at a time in e4m3.
``--workload tiny --device host`` shows the same on any machine. The file is written anew after every run.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.quality.figures import Figures, Result, Row, compared, ratios, sentences, view
from benchmarks.quality.layers import LAYERS, PLAIN, QUANTIZED, layers_named, partly
from benchmarks.quality.runs import Ours, Reference, alone, references
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import SharedWeights, SyntheticWeights, WeightSource
from fluxperf.engine.config import config_named
from fluxperf.engine.device import open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.phases import phase_named
from fluxperf.errors import BindError, FluxperfError, UnknownNameError
from fluxperf.harness.files import check_writable, write_whole
from fluxperf.harness.measure.environment import commit, installed, machine
from fluxperf.harness.records import WorkloadRow
from fluxperf.workloads import HEADLINE, Workload, obstacles, placed, workload_named

REFERENCE, RUNGS = "batched", ("fused", "captured", "fp8")
#: Forms of the peer; `benchmarks.quality.peer` says what they are, and needs PyTorch.
PEERS = ("diffusers", "diffusers-exact", "diffusers-fp8", "diffusers-fp8-exact")
NONE = "none"
_LIBRARIES = ("torch", "diffusers", "ml_dtypes")

Rows = Iterator[Row]


def of_rung(name: str, run: Callable[[], Figures]) -> Row:
    """Row of a rung of the ladder."""
    phase = phase_named(name)
    return _row(name, "rung", "e4m3" if phase.e4m3 else phase.activations, phase.change, run)


def float32_rungs(names: Sequence[str], source: WeightSource, device: str, expected: Sequence[Reference]) -> Rows:
    """Rows of rungs with weights of their own, one after the other."""
    for name in names:
        if phase_named(name).activations == "float32":
            with alone(name, source, open_device(device)) as (_, run):
                row = of_rung(name, lambda run=run: compared(run, expected))
            yield row


def shared_rungs(names: Sequence[str], shared: WeightSource, device: Device, expected: Sequence[Reference]) -> Rows:
    """Rows of rungs in bfloat16 and e4m3, on the same bfloat16 weights."""

    def figures(name: str) -> Figures:
        rung = placed(name, shared, device)
        return compared(Ours(device, rung.sampler, rung), expected)

    for name in names:
        if phase_named(name).activations != "float32":
            yield of_rung(name, lambda name=name: figures(name))
            gc.collect()


def layer_rows(names: Sequence[str], shared: WeightSource, device: Device, expected: Sequence[Reference]) -> Rows:
    """Rows of types of layers in e4m3, one after the other."""

    def figures(name: str) -> Figures:
        sampler, model = partly(shared, device, layers_named(name))
        return compared(Ours(device, sampler, model, one_by_one=True), expected)

    for name in names:
        projections, ops = layers_named(name)
        what = f"{', '.join((*projections, *ops))} as in {QUANTIZED}, the rest as in {PLAIN}"
        yield _row(name, "layers", "e4m3", what, lambda name=name: figures(name))
        gc.collect()


def peer_rows(names: Sequence[str], shared: WeightSource, device: Device, expected: Sequence[Reference]) -> Rows:
    """Rows of forms of diffusers; one that cannot run here has the reason instead of figures."""
    if not names:
        return
    try:
        from benchmarks.quality import peer
    except ImportError as error:
        reason = f"its libraries do not import ({error}). Install torch and diffusers beside fluxperf."
        yield from (Row(name=name, group="peer", precision="", what="", skipped=reason) for name in names)
        return
    for e4m3 in (False, True):
        chosen = {name: peer.FORMS[name] for name in names if peer.FORMS[name].e4m3 == e4m3}
        precision = "e4m3" if e4m3 else "bfloat16"
        if not chosen:
            continue
        reason = peer.obstacle(next(iter(chosen.values())), device)
        if reason is not None:
            for name, form in chosen.items():
                yield Row(name=name, group="peer", precision=precision, what=form.what, skipped=reason)
            continue
        with peer.opened(e4m3, shared, device) as model:
            for name, form in chosen.items():
                run = peer.Theirs(model, form.exact, device)
                yield _row(name, "peer", precision, form.what, lambda run=run: compared(run, expected))
                del run


def measured(arguments: argparse.Namespace, workload: Workload, source: WeightSource) -> Iterator[list[Row]]:
    """All rows so far, again after every run; in the order in which they are shown."""
    expected = references(arguments.reference, source, open_device(arguments.device), workload, arguments.seeds)
    groups: dict[str, list[Row]] = {"rung": [], "layers": [], "peer": []}

    def rows() -> Rows:
        yield from float32_rungs(arguments.rung, source, arguments.device, expected)
        shared = SharedWeights(source)
        with closing(open_device(arguments.device)) as device:
            device.prepare()
            yield from peer_rows(arguments.peer, shared, device, expected)
            yield from shared_rungs(arguments.rung, shared, device, expected)
            yield from layer_rows(arguments.layers, shared, device, expected)

    for row in rows():
        groups[row.group].append(row)
        yield [row for group in groups.values() for row in group]


def result_of(arguments: argparse.Namespace, workload: Workload, source: WeightSource, described: dict[str, str],
              rows: list[Row]) -> Result:  # fmt: skip
    """The file's contents."""
    revision, dirty = commit(Path(__file__).resolve().parents[2])
    return Result(
        created_utc=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=revision,
        dirty=dirty,
        machine=machine(described),
        versions={name: version for name in _LIBRARIES if (version := installed(name))},
        device=arguments.device,
        workload=WorkloadRow(**{**vars(workload), "model": source.config.name, "weights": source.description}),
        reference=arguments.reference,
        seeds=list(range(arguments.seeds)),
        rows=rows,
        ratios=list(ratios(rows)),
    )


def asked(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with every name known and everything asked for possible on the device.

    Raises:
        FluxperfError: an unknown name, a device that is not to be had or cannot, a place that cannot be written to.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.partition("\n")[0])
    parser.add_argument("--workload", default=HEADLINE)
    parser.add_argument("--weights", type=Path, help="FLUX.1 checkpoint. Synthetic weights if not given.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--reference", default=REFERENCE, help="Rung, or oracle (float64, on the host).")
    parser.add_argument("--rung", action="append", help=f"Repeat for several; by default {', '.join(RUNGS)}. Or none.")
    parser.add_argument("--layers", action="append", help=f"Type of layer, repeat for several: {', '.join(LAYERS)}; "
                        "by default all of them. Or none.")  # fmt: skip
    parser.add_argument("--peer", action="append", help=f"Repeat for several: {', '.join(PEERS)}. By default all.")
    parser.add_argument("--seeds", type=int, default=1, help="How many inputs are drawn, from seeds 0, 1, ...")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args(words)
    for field, known in (("rung", RUNGS), ("layers", tuple(LAYERS)), ("peer", PEERS)):
        given = getattr(arguments, field) or known
        setattr(arguments, field, [name for name in given if name != NONE])
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds}: expected at least 1.")
    _check(arguments)
    return arguments


def main(words: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes a JSON file."""
    try:
        arguments = asked(words)
        workload = workload_named(arguments.workload)
        source: WeightSource
        source = Checkpoint(arguments.weights) if arguments.weights else SyntheticWeights(config_named(workload.model))
        opened = open_device(arguments.device)
        arguments.device, described = opened.kind, opened.describe()
        opened.close()
        del opened
        result, seen, start = None, set(), time.perf_counter()
        for rows in measured(arguments, workload, source):
            (row,) = [row for row in rows if (row.group, row.name) not in seen]
            seen.add((row.group, row.name))
            print(f"{row.group} {row.name}: {row.time_s:.1f} s", flush=True)
            result = result_of(arguments, workload, source, described, rows)
            write_whole(arguments.output, msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    except FluxperfError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if result is None:
        print("nothing to do: no rung, type of layer or peer is left", file=sys.stderr)
        sys.exit(2)
    Console().print(view(result))
    for sentence in sentences(result):
        print(sentence)
    print(f"{time.perf_counter() - start:.0f} s in all")


def _check(arguments: argparse.Namespace) -> None:
    """Complains before any work."""
    workload_named(arguments.workload)
    device = open_device(arguments.device)
    kind = device.kind
    device.close()
    for name in arguments.layers:
        layers_named(name)
    for name in arguments.peer:
        if name not in PEERS:
            raise UnknownNameError("peer", name, PEERS)
    needed = [*arguments.rung, *([QUANTIZED] if arguments.layers else [])]
    needed += [arguments.reference] if arguments.reference != "oracle" else []
    for name in dict.fromkeys(needed):
        problems = obstacles(phase_named(name), kind)
        if problems:
            raise BindError(name, kind, problems)
    check_writable(arguments.output)


def _row(name: str, group: str, precision: str, what: str, run: Callable[[], Figures]) -> Row:
    start = time.perf_counter()
    figures = run()
    seconds = time.perf_counter() - start
    return Row(name=name, group=group, precision=precision, what=what, figures=figures, time_s=seconds)


if __name__ == "__main__":
    main()
