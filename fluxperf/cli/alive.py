"""Options of the gate about processes: whether they stay alive, and how they warm up."""

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

Warmup = Annotated[int | None, typer.Option(min=0, help="Warm-up generations of each process; kernels have none.")]
Stay = Annotated[
    int | None,
    typer.Option(
        "--alive",
        min=1,
        help="Processes of each side that start once, stay alive and take turns. If not given, each turn has a fresh "
        "one.",
    ),
]
Chained = Annotated[
    bool, typer.Option("--chained", help="Compare each turn twice, with the one before and the one after.")
]
BaseCache = Annotated[
    Path | None,
    typer.Option(help="Kernels and choices of algorithms that the base begins with a copy of: a cache's folder."),
]
HeadCache = Annotated[Path | None, typer.Option(help="The same of the head.")]


def begins_with(alive: int | None, given: Sequence[Path | None] = (None, None)) -> dict[Side, Path]:
    """Kernels and choices that each side begins with a copy of: what is given, else the user's where processes stay.

    Args:
        alive: how many processes of each side stay alive.
        given: folder of the base, and of the head.

    Raises:
        ConfigError: a folder that is no cache.
    """
    users = cache_root() if alive and cache_root().is_dir() else None
    found: dict[Side, Path] = {}
    for side, folder in zip(SIDES, given, strict=True):
        if folder is not None and not _is_cache(folder):
            raise ConfigError(
                f"gate --{side}-cache {folder}: expected a folder that is empty or has a folder "
                f"{' or '.join(repr(kind) for kind in KINDS)}, such as {cache_root()}; it is neither."
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
    """Notes of a verdict on sides that did not begin with the user's kernels and choices."""
    return [
        f"the {side} began with kernels and choices of algorithms in {folder}"
        for side, folder in zip(SIDES, given, strict=True)
        if folder is not None
    ]


def check_alive(
    alive: int | None, workloads: Sequence[str], *, forked: bool, planted: bool, chained: bool = False
) -> None:
    """Refuses what does not go together."""
    if alive and (forked or KERNELS in workloads):
        raise ConfigError("gate --alive: expected a workload of generations in processes that are not forked.")
    if planted and not alive:
        raise ConfigError("gate calibrate --plant: expected processes that take turns. Give --alive 8.")
    if planted and chained:
        raise ConfigError("gate calibrate: expected --chained or --plant, got both: a chain's turns are all alike.")


def check_device(workloads: Sequence[str]) -> None:
    """Refuses models of full width on the host, before hours are spent on times that nobody judges.

    Raises:
        NoGpuError: no GPU, and a workload is that large or is one of kernels.
        UnknownNameError: no workload has that name.
    """
    if has_times():
        return
    large = [name for name in workloads if name == KERNELS or too_large_for_the_host(workload_named(name))]
    if large:
        raise NoGpuError(
            f"gate --workload {large[0]}",
            "none",
            "Without one take --workload tiny or tiny-57, whose counts and errors are judged; `fluxperf gate exact` "
            "counts every rung.",
        )


def calibrated(
    workloads: Sequence[str], alive: int | None, *, forked: bool, planted: bool, chained: bool = False
) -> str:
    """The workload that is calibrated. What cannot be is refused before minutes are spent on it.

    Raises:
        ConfigError: several workloads, or options that do not go together.
        NoGpuError: runs would be host twins.
    """
    name, *others = dict.fromkeys(workloads)
    if others:
        raise ConfigError(
            f"gate calibrate: expected one --workload, got {' and '.join(workloads)}. Calibrate each by itself: what "
            "is stored of a machine is by workload, and another one replaces nothing."
        )
    check_alive(alive, workloads, forked=forked, planted=planted, chained=chained)
    if not has_times():
        raise NoGpuError(
            "gate calibrate",
            "none",
            "Times of host twins are never gated, so there is nothing to calibrate; `fluxperf gate exact` counts here.",
        )
    return name


@contextmanager
def watched(runner: Runner) -> Iterator[Runner]:
    """The runner, whose turns each come behind a look at who else uses the card; who did is told in the end."""
    neighbours = Neighbours(open_device("auto").bus_id)
    yield Watched(runner, neighbours)
    neighbours.look()
    for note in neighbours.notes:
        say(f"Note: {note}.", err=True)


def has_times() -> bool:
    """Whether runs on this machine have times that the gate judges."""
    return open_device("auto").kind == "cuda"
