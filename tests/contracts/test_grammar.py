"""One grammar for all commands: a short option means the same everywhere, and what many have is spelled alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from fluxperf.cli import app, main
from fluxperf.cli.grammar import spelled

#: The one meaning of each short option.
SHORT = {"-o": "--output", "-w": "--workload", "-r": "--rung", "-m": "--metric", "-h": "--help"}


def commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "list_commands"):
            for name in command.list_commands(None):
                yield from walk(command.get_command(None, name), (*path, name))
        if path:
            yield " ".join(path), command

    return walk(typer.main.get_command(app), ())


COMMANDS = dict(commands())


def options(command: Any) -> list[Any]:
    return [row for row in command.params if row.param_type_name == "option"]


def test_short_options_mean_one_thing_and_long_ones_that_have_one_have_it_everywhere():
    wrong = []
    for name, command in COMMANDS.items():
        for option in options(command):
            short, long = [[word for word in option.opts if word.startswith("--") == kind] for kind in (False, True)]
            expected = [key for key, word in SHORT.items() if word in long]
            if short != expected:
                wrong.append(f"{name} {long}: {short}, expected {expected}")
    assert not wrong


def test_json_is_one_option():
    found = {name: row for name, command in COMMANDS.items() for row in options(command) if "--json" in row.opts}
    assert set(found) == {"report", "history", "timeline", "witness", "gate", "gate exact"}
    assert len({(row.metavar, row.help) for row in found.values()}) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_by_both_names(name: str, capsys: pytest.CaptureFixture[str]):
    for word in ("-h", "--help"):
        with pytest.raises(SystemExit) as stop:
            main([*name.split(), word])
        assert not stop.value.code
        assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("history folder --json", "history folder --json=-"),
        ("history --json folder", "history --json=- folder"),
        ("timeline a.json --json b.json", "timeline a.json --json=- b.json"),
        ("gate exact --json out/gate.json --github", "gate exact --json=out/gate.json --github"),
        ("gate exact --json --github", "gate exact --json=- --github"),
        ("report a.jsonl --json -", "report a.jsonl --json=-"),
        ("report a.jsonl --json=x.json", "report a.jsonl --json=x.json"),
        ("generate fox -m DIR", "generate fox --model DIR"),
        ("history . -m times", "history . -m times"),
        ("witness --json -- python a.py --json", "witness --json=- -- python a.py --json"),
    ],
)
def test_spellings_of_before_mean_what_they_did(given: str, meant: str):
    assert spelled(given.split()) == meant.split()


def test_flags_are_shown_as_flags_and_choices_as_choices():
    def shown(name: str, option: str) -> str:
        return next(row.metavar for row in options(COMMANDS[name]) if option in row.opts)

    flags = [(name, row) for name, command in COMMANDS.items() for row in options(command) if row.is_flag]
    assert len(flags) > 15
    assert {row.metavar for _, row in flags} == {""}
    assert shown("run", "--device") == shown("generate", "--device") == "auto|host|cuda"
    assert shown("profile", "--tool") == "auto|nsys|cupti"
    assert shown("timeline", "--by") == shown("profile", "--by") == "op|block|step|range|kernel"
    assert shown("generate", "--t5") == "keep|offload|free"


def test_a_workload_is_repeatable_wherever_several_can_be_measured():
    several = {
        name for name, command in COMMANDS.items() for row in options(command) if "-w" in row.opts and row.multiple
    }
    assert several == {"run", "profile", "gate", "gate exact", "gate calibrate"}, "only `gate accept` names one row"
