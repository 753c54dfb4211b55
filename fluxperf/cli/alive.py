"""Options of the gate about its processes: whether they stay alive, and how they warm up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.cli.terminal import say
from fluxperf.engine.cache import KINDS, cache_root
from fluxperf.engine.device import open_device
from fluxperf.errors import ConfigError, NoGpuError
from fluxperf.harness.alive import SIDES
from fluxperf.harness.gate import Runner, Side
from fluxperf.harness.neighbours import Neighbours, Watched
from fluxperf.kernel_times import KERNELS
from fluxperf.workloads import too_large_for_the_host, workload_named

Warmup = Annotated[int | None, typer.Option(min=0, help="Warm-up generations of each process. Kernels take none.")]
Stay = Annotated[
    int | None,
    typer.Option(
        "--alive",
        min=1,
        help="Number of processes of each side that start once, stay alive and take turns. If not given, each turn "
        "starts a new process.",
    ),
]
Chained = Annotated[
    bool, typer.Option("--chained", help="Compare each turn twice: with the turn before it and with the turn after it.")
]
BaseCache = Annotated[
    Path | None,
    typer.Option(help="Cache folder with compiled kernels and chosen algorithms. The base starts with a copy of it."),
]
HeadCache = Annotated[Path | None, typer.Option(help="The same for the head.")]


def begins_with(alive: int | None, given: Sequence[Path | None] = (None, None)) -> dict[Side, Path]:
    """Cache folders of which each side gets a copy: the given ones, else the user's if processes stay alive.

    Args:
        alive: how many processes of each side stay alive.
        given: folder for the base, and for the head.

    Raises:
        ConfigError: a folder is not a cache.
    """
    users = cache_root() if alive and cache_root().is_dir() else None
    found: dict[Side, Path] = {}
    for side, folder in zip(SIDES, given, strict=True):
        if folder is not None and not _is_cache(folder):
            raise ConfigError(
                f"gate --{side}-cache {folder}: expected an empty folder or one that contains "
                f"{' or '.join(repr(kind) for kind in KINDS)}, such as {cache_root()}; found neither. Name the "
                "folder of a cache."
            )
        if (place := folder or users) is not None:
            found[side] = place
    return found


def _is_cache(folder: Path) -> bool:
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return False
    return not names or bool(names.intersection(KINDS))


def began_with(given: Sequence[Path | None]) -> list[str]:
    """Notes for the verdict about sides that started with another cache than the user's."""
    return [
        f"the {side} started with the kernels and choices of algorithms in {folder}"
        for side, folder in zip(SIDES, given, strict=True)
        if folder is not None
    ]


def check_alive(
    alive: int | None, workloads: Sequence[str], *, forked: bool, planted: bool, chained: bool = False
) -> None:
    """Refuses options that cannot be combined."""
    if alive and (forked or KERNELS in workloads):
        raise ConfigError(
            "gate --alive: expected a workload of generations and processes that are not forked. Leave out --alive "
            "or the other option."
        )
    if planted and not alive:
        raise ConfigError("gate calibrate --plant: expected processes that stay alive. Add --alive 8.")
    if planted and chained:
        raise ConfigError(
            "gate calibrate: expected --chained or --plant, got both. In a chain all turns run the same program. "
            "Leave one out."
        )


def check_device(workloads: Sequence[str]) -> None:
    """Refuses full-size models on the host, before hours are spent on times that are never judged.

    Raises:
        NoGpuError: there is no GPU, and a workload is a full-size model or consists of kernels.
        UnknownNameError: no workload has that name.
    """
    if has_times():
        return
    large = [name for name in workloads if name == KERNELS or too_large_for_the_host(workload_named(name))]
    if large:
        raise NoGpuError(
            f"gate --workload {large[0]}",
            "none",
            "Without a GPU, use --workload tiny or tiny-57: their counts and errors are judged. `fluxperf gate "
            "exact` counts every rung.",
        )


def calibrated(
    workloads: Sequence[str], alive: int | None, *, forked: bool, planted: bool, chained: bool = False
) -> str:
    """The workload to calibrate. Invalid requests are refused before minutes are spent on them.

    Raises:
        ConfigError: several workloads, or options that cannot be combined.
        NoGpuError: there is no GPU, so runs would be host twins.
    """
    name, *others = dict.fromkeys(workloads)
    if others:
        raise ConfigError(
            f"gate calibrate: expected one --workload, got {' and '.join(workloads)}. Calibrate each workload in a "
            "run of its own: a calibration holds one workload."
        )
    check_alive(alive, workloads, forked=forked, planted=planted, chained=chained)
    if not has_times():
        raise NoGpuError(
            "gate calibrate",
            "none",
            "Times of host twins are never gated, so there is nothing to calibrate. `fluxperf gate exact` counts "
            "on this machine.",
        )
    return name


@contextmanager
def watched(runner: Runner) -> Iterator[Runner]:
    """The runner with a check for other users of the GPU before each turn. Prints the notes at the end."""
    neighbours = Neighbours(open_device("auto").bus_id)
    yield Watched(runner, neighbours)
    neighbours.look()
    for note in neighbours.notes:
        say(f"Note: {note}.", err=True)


def has_times() -> bool:
    """Whether the gate judges times that were measured on this machine."""
    return open_device("auto").kind == "cuda"
