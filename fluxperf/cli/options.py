"""Options for what to run, shared by all commands that run a workload."""

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
        help=f"One of {', '.join(WORKLOADS)}; repeat for several. The size options below replace sizes of the "
        "workload.",
    ),
]
DeviceKind = Annotated[
    str, choice(KINDS, help="Device to run on: auto uses a working GPU if there is one, else the host.")
]
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
#: Sizes of a picture. They replace those of the workload.
Pixels = Annotated[int, _PIXELS]
OwnPixels = Annotated[int | None, _PIXELS]
TextTokens = Annotated[int | None, typer.Option(help="Length of the text sequence in tokens.")]
Steps = Annotated[int | None, typer.Option(help="Euler steps.")]
Batch = Annotated[int | None, typer.Option(help="Images in a batch.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="FLUX.1 checkpoint: diffusers folder, single file, or a model's name on the hub. Synthetic weights if "
        "not given."
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub; main if not given.")]
Variant = Annotated[str | None, typer.Option(help="Variant of the files, such as fp16, as it appears in their names.")]
MemoryGb = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        help="Device memory for the transformer, in 10^9 bytes. Weights that do not fit stay in pinned host memory "
        "and are streamed during compute.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of synthetic weights and inputs.")]


@dataclass(frozen=True)
class WorkloadOptions:
    """Options of a run: workloads, sizes that replace theirs, and weights."""

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
            FluxperfError: no workload has a name, or a size is invalid.
        """
        return [
            workload_named(
                name, height=self.height, width=self.width, text_tokens=self.text_tokens, steps=self.steps,
                batch=self.batch,
            )
            for name in dict.fromkeys(self.workload)
        ]  # fmt: skip

    def only(self, command: str) -> Workload:
        """The workload, for a command that accepts only one.

        Raises:
            FluxperfError: several workloads, or an error of `chosen`.
        """
        first, *others = self.chosen()
        if others:
            names = " and ".join(self.workload)
            raise ConfigError(f"{command}: expected one --workload, got {names}. Run the command once for each.")
        return first

    def source(self, workload: Workload) -> WeightSource:
        """The weights of a workload, from a checkpoint or drawn from the seed.

        Raises:
            FluxperfError: errors of `place` and `Checkpoint`.
        """
        place = self.place(("transformer",))
        if place is None:
            return SyntheticWeights(config_named(workload.model), self.seed)
        return Checkpoint(place, self.variant)

    def place(self, parts: tuple[str, ...]) -> Path | None:
        """The path of the weights; None for synthetic weights.

        A name on the hub is found in the hub's cache or downloaded.

        Args:
            parts: subfolders that are needed.

        Raises:
            ConfigError: a revision or a variant without --weights.
            CheckpointError: the hub's cache does not hold all files, and they cannot be downloaded.
        """
        if self.weights is not None:
            return found(self.weights, parts, self.revision, variant=self.variant)
        for name, value in (("revision", self.revision), ("variant", self.variant)):
            if value is not None:
                raise ConfigError(
                    f"--{name} {value}: expected --weights as well, got none. Add it, or leave out --{name}."
                )
        return None


@dataclass(frozen=True)
class ReferenceOptions:
    """Latents to compute errors against, other than those of the oracle or of a rung of the same run."""

    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", help="Compute errors against the latents in this file, which --reference-to wrote."
        ),
    ] = None
    reference_to: Annotated[
        Path | None,
        typer.Option(
            "--reference-to",
            help="Write the final latents of the first rung to this file, for --reference of other runs.",
        ),
    ] = None

    def check(self, rungs_alone: bool) -> None:
        """Checks the options before anything is measured.

        Args:
            rungs_alone: whether the run measures only rungs of one workload, from latents to latents, once.

        Raises:
            ConfigError: the run is of another kind.
            RecordError: the file cannot be written.
        """
        if (self.reference or self.reference_to) and not rungs_alone:
            raise ConfigError(
                "run --reference, --reference-to: expected rungs of one workload, with neither --in-turns nor "
                "--end-to-end. Leave these options out, or run one workload."
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
            help="Generations before the timed ones. On a GPU, warm-up continues until clock and cycles are steady, "
            "for at most 10 s.",
        ),
    ] = 1
    precision: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Take samples until the confidence interval of the median is within this many percent; --repeat is "
            "the minimum.",
        ),
    ] = None
    time_limit_s: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Limit of the sampling time of a rung, in seconds. Warm-up may take another third of it. If one "
            "generation alone exceeds it, it is measured once, without warm-up. If not given: no limit, or 60 "
            "with --precision.",
        ),
    ] = None
    rest_s: Annotated[
        float, typer.Option(min=0, help="Idle seconds before each generation. Without a pause a GPU lowers its clock.")
    ] = 0.0

    def sampling(self) -> Sampling:
        """A fixed number of samples without a time limit, or as many as the precision needs within a time limit."""
        until, limit_s = None, self.time_limit_s
        if self.precision is not None:
            limit_s = 60.0 if limit_s is None else limit_s
            until = Until(self.precision / 100, most_s=limit_s, warmup_s=limit_s / 3)
        elif limit_s is not None:
            # With a time limit, the given number of samples is the maximum, not the minimum.
            until = Until(0.0, most=self.repeat, most_s=limit_s, warmup_most=self.warmup, warmup_s=limit_s / 3)
        return Sampling(self.repeat, self.warmup, until, self.rest_s)
