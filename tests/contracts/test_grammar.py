"""One grammar for all commands: a short option has one meaning everywhere, and common options have one spelling."""

from __future__ import annotations

import re
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


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def helped(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit):
        main([*name.split(), "-h"])
    return capsys.readouterr().out


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns_and_breaks_no_name(name: str, capsys: pytest.CaptureFixture[str]):
    text = helped(name, capsys)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert not [
        line
        for line in lines
        if line.endswith("…") or re.search(r"\w-$", line) or (line.endswith("...") and "Usage" not in line)
    ]
    assert not set(text) & set("│╭"), "no box"
    assert "\\b" not in text
    assert "``" not in text
    words = set(text.split())
    command = COMMANDS.get(name)
    for option in options(command) if command else ():
        shown = [*option.opts, *option.secondary_opts]
        assert option.hidden or {word.rstrip(",") for word in words} >= set(shown), shown


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_has_one_word_for_each_kind_of_value_and_none_for_a_flag(name: str, capsys: pytest.CaptureFixture[str]):
    text = helped(name, capsys)
    assert not re.findall(r"<[^>]*>|\b(?:INTEGER|FLOAT)\b|list\[", text), "types as a release of Typer names them"
    for flag in ("-h, --help", "--version", "--all", "--install-completion"):
        for line in text.splitlines():
            if line.startswith(f"  {flag}"):
                assert line[len(flag) + 2 :].startswith("  "), line


def test_choices_are_shown_as_choices():
    def shown(name: str, option: str) -> str:
        return next(row.metavar for row in options(COMMANDS[name]) if option in row.opts)

    assert shown("run", "--device") == shown("generate", "--device") == "auto|host|cuda"
    assert shown("profile", "--tool") == "auto|nsys|cupti"
    assert shown("timeline", "--by") == shown("profile", "--by") == "op|block|step|range|kernel"
    assert shown("generate", "--t5") == "keep|offload|free"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--colour"], "fluxperf: run: No such option: --colour"),
        (["gate", "accept"], "fluxperf: gate accept: Missing argument 'METRIC'."),
        (["runn"], "fluxperf: No such command 'runn'. Did you mean 'run'?"),
        (["run", "--repeat", "0"], "fluxperf: run: Invalid value for '--repeat'"),
    ],
)
def test_a_wrong_command_line_is_one_message_and_where_help_is(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(said)
    assert second.startswith("Try 'fluxperf")


def test_the_list_of_commands_has_whole_sentences(capsys: pytest.CaptureFixture[str]):
    text = " ".join(helped("", capsys).split())
    for name, command in COMMANDS.items():
        if " " not in name:
            assert " ".join(command.help.split("\n\n")[0].split()).rstrip(".") in text, name


def test_a_workload_is_repeatable_wherever_several_can_be_measured():
    several = {
        name for name, command in COMMANDS.items() for row in options(command) if "-w" in row.opts and row.multiple
    }
    assert several == {"run", "profile", "gate", "gate exact", "gate calibrate"}, "only `gate accept` names one row"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fluxperf im", "import-asv"),
        ("fluxperf gate ca", "calibrate"),
        ("fluxperf run --rung to", None),
        ("fluxperf run --rung fu", "fused"),
        ("fluxperf run -w tiny-5", "tiny-57"),
        ("fluxperf run --device ho", "host"),
        ("fluxperf generate --t5-precision f", "fp8"),
    ],
)
def test_a_shell_completes_commands_and_values(
    line: str, found: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("_FLUXPERF_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    with pytest.raises(SystemExit) as stop:
        main([])
    assert not stop.value.code
    words = capsys.readouterr().out.split()
    assert found in words if found else not words
