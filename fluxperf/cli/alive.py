"""Options of the gate about processes: whether they stay alive, and how they warm up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from fluxperf.engine.cache import cache_root
from fluxperf.engine.device import open_device
from fluxperf.errors import ConfigError, NoGpuError
from fluxperf.kernel_times import KERNELS

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


def begins_with(alive: int | None) -> Path | None:
    """The user's kernels and choices, where processes stay alive: both sides begin with a copy of the same."""
    return cache_root() if alive and cache_root().is_dir() else None


def check_alive(alive: int | None, workloads: Sequence[str], *, forked: bool, planted: bool) -> None:
    """Refuses what does not go together."""
    if alive and (forked or KERNELS in workloads):
        raise ConfigError("gate --alive: expected a workload of generations in processes that are not forked.")
    if planted and not alive:
        raise ConfigError("gate calibrate --plant: expected processes that take turns. Give --alive 8.")


def calibrated(workloads: Sequence[str], alive: int | None, *, forked: bool, planted: bool) -> str:
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
    check_alive(alive, workloads, forked=forked, planted=planted)
    if not has_times():
        raise NoGpuError(
            "gate calibrate",
            "none",
            "Times of host twins are never gated, so there is nothing to calibrate; `fluxperf gate exact` counts here.",
        )
    return name


def has_times() -> bool:
    """Whether runs on this machine have times that the gate judges."""
    return open_device("auto").kind == "cuda"
