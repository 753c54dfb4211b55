"""Grouped options: the command line has each option, the command function gets them as one value."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from fluxperf.cli import profile as profile_command
from fluxperf.cli import run as run_command
from fluxperf.cli.grouped import grouped
from fluxperf.cli.options import SamplingOptions, WorkloadOptions
from fluxperf.errors import ConfigError
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.measure.stopping import Until


@dataclass(frozen=True)
class Colours:
    """Two options."""

    front: Annotated[str, typer.Option(help="Of the letters.")]
    back: Annotated[str, typer.Option("--back", "-b", help="Of the paper.")] = "white"


SEEN: list[object] = []


@grouped
def paint(name: str, colours: Colours, *, times: Annotated[int, typer.Option(min=1)] = 1) -> None:
    """Paint a name."""
    SEEN.append((name, colours, times))


APP = typer.Typer()
APP.command()(paint)


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("Ada --front red", ("Ada", Colours("red"), 1)),
        ("Ada --front red -b blue --times 3", ("Ada", Colours("red", "blue"), 3)),
    ],
)
def test_values_arrive_in_their_group(words: str, seen: object) -> None:
    SEEN.clear()
    done = CliRunner().invoke(APP, words.split())
    assert (done.exit_code, SEEN) == (0, [seen]), done.output


def test_help_and_errors_are_those_of_single_options() -> None:
    told = CliRunner().invoke(APP, ["--help"], env={"COLUMNS": "120"}).output
    assert "Of the letters." in told
    assert "Paint a name." in told
    assert "Missing option '--front'" in CliRunner().invoke(APP, ["Ada"]).output


def test_commands_take_few_values() -> None:
    """Commands have few parameters of their own; the command line still has all options."""
    for command, own, options in ((run_command.run, 15, 29), (profile_command.profile, 15, 24)):
        assert len(inspect.signature(command.__wrapped__).parameters) == own
        assert len(inspect.signature(command).parameters) == options


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        (SamplingOptions(), Sampling(5)),
        (SamplingOptions(repeat=3, warmup=0, rest_s=1.0), Sampling(3, 0, None, 1.0)),
        (SamplingOptions(precision=2.0), Sampling(5, 1, Until(0.02, most_s=60.0, warmup_s=20.0))),
        (SamplingOptions(precision=2.0, time_limit_s=3.0), Sampling(5, 1, Until(0.02, most_s=3.0, warmup_s=1.0))),
        (
            SamplingOptions(repeat=4, warmup=2, time_limit_s=6.0),
            Sampling(4, 2, Until(0.0, most=4, most_s=6.0, warmup_most=2, warmup_s=2.0)),
        ),
    ],
)
def test_how_often_is_a_value(options: SamplingOptions, sampling: Sampling) -> None:
    assert options.sampling() == sampling


def test_sizes_replace_a_workloads_own() -> None:
    (chosen,) = WorkloadOptions(["tiny"], height=256, steps=2).chosen()
    assert (chosen.name, chosen.height, chosen.width, chosen.steps) == ("custom", 256, 128, 2)


def test_a_command_of_one_workload_says_so() -> None:
    assert WorkloadOptions(["tiny-57", "tiny-57"]).only("profile").name == "tiny-57"
    with pytest.raises(ConfigError, match="profile: expected one --workload, got tiny and tiny-57"):
        WorkloadOptions(["tiny", "tiny-57"]).only("profile")
