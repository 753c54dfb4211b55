"""The checked arguments of the benchmark: names are known and the device can run them, before any work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.layers import LAYERS, QUANTIZED, layers_named
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import SyntheticWeights, WeightSource
from fluxperf.engine.config import config_named
from fluxperf.engine.device import open_device
from fluxperf.engine.phases import phase_named
from fluxperf.errors import BindError, ConfigError, UnknownNameError
from fluxperf.files import check_writable
from fluxperf.workloads import HEADLINE, Workload, obstacles, workload_named

RUNGS = ("fused", "captured", "fp8")
#: Forms of the peer; `benchmarks.quality.peer` defines them, but needs PyTorch.
PEERS = ("diffusers", "diffusers-exact", "diffusers-fp8", "diffusers-fp8-exact")
_NONE = "none"


@dataclass(frozen=True)
class Asked:
    """Checked arguments. ``device`` is a kind that works here, ``described`` names the device as in records."""

    workload: Workload
    source: WeightSource
    device: str
    described: dict[str, str]
    reference: str
    rungs: tuple[str, ...]
    layers: tuple[str, ...]
    peers: tuple[str, ...]
    seeds: int
    output: Path


def asked(description: str, words: Sequence[str] | None = None) -> Asked:
    """Parses and checks the command line.

    Raises:
        FluxperfError: an unknown name, nothing to measure, a device that is missing or unsuitable, unreadable weights,
            or an output that cannot be written.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=description)
    parser.add_argument("--workload", default=HEADLINE)
    parser.add_argument("--weights", type=Path, help="FLUX.1 checkpoint. Synthetic weights if not given.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--reference", default="batched", help="Rung, or oracle (float64, on the host).")
    for option, known in (("rung", RUNGS), ("layers", tuple(LAYERS)), ("peer", PEERS)):
        text = f"Repeat for several. By default {', '.join(known)}; {_NONE} for none."
        parser.add_argument(f"--{option}", action="append", help=text)
    parser.add_argument("--seeds", type=int, default=1, help="Number of inputs, drawn from seeds 0, 1, ...")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(words)
    rungs, layers, peers = (
        tuple(name for name in names or known if name != _NONE)
        for names, known in ((given.rung, RUNGS), (given.layers, LAYERS), (given.peer, PEERS))
    )
    _check_names(rungs, layers, peers)
    if given.seeds < 1:
        raise ConfigError(f"--seeds {given.seeds}: expected at least 1.")
    workload = workload_named(given.workload)
    with closing(open_device(given.device)) as device:
        kind, described = device.kind, device.describe()
    _check_rungs((given.reference, *rungs, *([QUANTIZED] if layers else [])), kind)
    source = Checkpoint(given.weights) if given.weights else SyntheticWeights(config_named(workload.model))
    check_writable(given.output)
    return Asked(workload, source, kind, described, given.reference, rungs, layers, peers, given.seeds, given.output)


def _check_names(rungs: Sequence[str], layers: Sequence[str], peers: Sequence[str]) -> None:
    for name in rungs:
        phase_named(name)
    for name in layers:
        layers_named(name)
    for name in peers:
        if name not in PEERS:
            raise UnknownNameError("peer", name, PEERS)
    if not (*rungs, *layers, *peers):
        raise ConfigError("quality: expected at least one rung, layer type or peer, got none. Name one.")


def _check_rungs(names: Sequence[str], kind: str) -> None:
    for name in dict.fromkeys(names):
        problems = obstacles(phase_named(name), kind) if (name, kind) != ("oracle", "host") else []
        if problems:
            raise BindError(name, kind, problems)
