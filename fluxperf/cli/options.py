"""Options that say what is run, the same in every command that runs a workload."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.grammar import choice
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.sources import SyntheticWeights, WeightSource
from fluxperf.engine.config import config_named
from fluxperf.engine.device import KINDS
from fluxperf.engine.phases import PHASES
from fluxperf.errors import ConfigError
from fluxperf.files import check_writable
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.measure.stopping import Until
from fluxperf.pipeline.hub import found
from fluxperf.workloads import WORKLOADS, Workload, workload_named

RUNGS = [phase.name for phase in PHASES]

_PIXELS = typer.Option(help="Pixels, a multiple of 16.")


WorkloadNames = Annotated[
    list[str],
    typer.Option(
        "--workload",
        "-w",
        metavar="NAME",
        autocompletion=lambda: list(WORKLOADS),
        help=f"One of {', '.join(WORKLOADS)}; repeat for several. The sizes below replace its own.",
    ),
]
DeviceKind = Annotated[str, choice(KINDS, help="Device to run on: auto takes a working GPU, else the host.")]
Rungs = Annotated[
    list[str] | None,
    typer.Option(
        "--rung",
        "-r",
        metavar="NAME",
        autocompletion=lambda: RUNGS,
        help=f"One of {', '.join(RUNGS)}; repeat for several. All if not given.",
    ),
]
#: Of a picture, and in place of a workload's own.
Pixels = Annotated[int, _PIXELS]
OwnPixels = Annotated[int | None, _PIXELS]
TextTokens = Annotated[int | None, typer.Option(help="Length of the text sequence.")]
Steps = Annotated[int | None, typer.Option(help="Euler steps.")]
Batch = Annotated[int | None, typer.Option(help="Images in a batch.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="FLUX.1 checkpoint: diffusers folder, single file, or a model's name on the hub. Synthetic weights if not "
        "given."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub; main if not given.")]
Variant = Annotated[str | None, typer.Option(help="Variant of the files, such as fp16: a part of their names.")]
MemoryGb = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        help="Device memory that the transformer may take, in 10^9 bytes. Weights that do not fit stay in "
        "pinned host memory and are streamed during compute.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of synthetic weights and inputs.")]


@dataclass(frozen=True)
class WorkloadOptions:
    """Options of a run: workloads, sizes in place of their own, and weights."""

    workload: WorkloadNames = field(default_factory=lambda: ["tiny"])
    height: OwnPixels = None
    width: OwnPixels = None
    text_tokens: TextTokens = None
    steps: Steps = None
    batch: Batch = None
    weights: Weights = None
    revision: Revision = None
    variant: Variant = None
    seed: Seed = 0

    def chosen(self) -> list[Workload]:
        """The workloads, in the order in which they were named.

        Raises:
            FluxperfError: there is none of a name, or a size cannot be.
        """
        return [
            workload_named(
                name, height=self.height, width=self.width, text_tokens=self.text_tokens, steps=self.steps,
                batch=self.batch,
            )
            for name in dict.fromkeys(self.workload)
        ]  # fmt: skip

    def only(self, command: str) -> Workload:
        """The workload, for a command that takes one.

        Raises:
            FluxperfError: several, or as `chosen`.
        """
        first, *others = self.chosen()
        if others:
            names = " and ".join(self.workload)
            raise ConfigError(f"{command}: expected one --workload, got {names}. Run it once for each.")
        return first

    def source(self, workload: Workload) -> WeightSource:
        """The weights of a workload, of a checkpoint or drawn from the seed.

        Raises:
            FluxperfError: see `place` and `Checkpoint`.
        """
        place = self.place(("transformer",))
        if place is None:
            return SyntheticWeights(config_named(workload.model), self.seed)
        return Checkpoint(place, self.variant)

    def place(self, parts: tuple[str, ...]) -> Path | None:
        """Where the weights are, in files; a name on the hub is found in its cache or downloaded. None if synthetic.

        Args:
            parts: subfolders that are needed.

        Raises:
            ConfigError: a revision or a variant of no files.
            CheckpointError: the hub's cache does not have it whole, and it cannot be downloaded.
        """
        if self.weights is not None:
            return found(self.weights, parts, self.revision, variant=self.variant)
        for name, value in (("revision", self.revision), ("variant", self.variant)):
            if value is not None:
                raise ConfigError(f"--{name} {value}: expected --weights beside it, got none. Leave it out.")
        return None


@dataclass(frozen=True)
class ReferenceOptions:
    """Latents that errors are stated against, if they are neither the oracle's nor those of a rung of the same run."""

    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Take errors against the latents in this file, which --reference-to wrote."),
    ] = None
    reference_to: Annotated[
        Path | None,
        typer.Option(
            "--reference-to", help="Write the first rung's final latents to this file, for --reference of other runs."
        ),
    ] = None

    def check(self, rungs_alone: bool) -> None:
        """Complains before anything is measured.

        Args:
            rungs_alone: whether the run is one of rungs of one workload, from latents to latents, once.

        Raises:
            ConfigError: it is not.
            RecordError: the file cannot be written.
        """
        if (self.reference or self.reference_to) and not rungs_alone:
            raise ConfigError(
                "run --reference, --reference-to: expected a run of rungs of one workload, with neither --in-turns nor "
                "--end-to-end. Leave them out."
            )
        if self.reference_to is not None:
            check_writable(self.reference_to)


@dataclass(frozen=True)
class SamplingOptions:
    """How often a rung is timed."""

    repeat: Annotated[int, typer.Option(min=1, help="Timed generations per rung.")] = 5
    warmup: Annotated[
        int,
        typer.Option(
            min=0,
            help="Generations before the timed ones. On a GPU, warm-up goes on until clock and cycles are "
            "steady, for at most 10 s.",
        ),
    ] = 1
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Sample until the median is known to within this many percent; --repeat is the minimum."
        ),
    ] = None
    time_limit_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Limit of the sampling time of a rung, in seconds; warm-up may take a third of it in "
            "addition. A generation that exceeds it alone is measured once, without warm-up. No limit if "
            "not given; with --precision 60.",
        ),
    ] = None
    rest_s: Annotated[
        float, typer.Option(min=0, help="Idle seconds before each generation. Without a pause a GPU lowers its clock.")
    ] = 0.0

    def sampling(self) -> Sampling:
        """A fixed number of samples without a bound in time, or as many as the precision needs within one."""
        until, limit_s = None, self.time_limit_s
        if self.precision is not None:
            limit_s = 60.0 if limit_s is None else limit_s
            until = Until(self.precision / 100, most_s=limit_s, warmup_s=limit_s / 3)
        elif limit_s is not None:
            # The numbers asked for are the most that is sampled, not the least.
            until = Until(0.0, most=self.repeat, most_s=limit_s, warmup_most=self.warmup, warmup_s=limit_s / 3)
        return Sampling(self.repeat, self.warmup, until, self.rest_s)
