"""Spellings that all commands share, and those of before, which still work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fluxperf.cli.terminal import harmless_json, say
from fluxperf.files import write_whole

#: Of an output: to standard output.
STDOUT = Path("-")

#: In every command that has it: printed without a value, written to ``--json=FILE``.
Json = Annotated[
    Path | None, typer.Option("--json", metavar="[=FILE]", help="Print the result as JSON, or write it to a file.")
]

#: Commands whose ``--json`` took the next word as its file.
_TOOK_A_FILE = ("report", "gate")


def choice(names: Sequence[str], *spelled: str, **how: Any) -> Any:
    """An option that takes one of a few names: help shows them in the place of a type, and shells complete them."""
    return typer.Option(*spelled, metavar="|".join(names), autocompletion=lambda: list(names), **how)


def plain_flags(command: Any) -> None:
    """Takes the word for a type from options that have no value: they are on or off."""
    for option in command.params:
        if getattr(option, "is_flag", False):
            option.metavar = ""


def spelled(words: Sequence[str]) -> list[str]:
    """A command line in today's spelling: an option takes a value or none, as its command declares it.

    Args:
        words: after the program's name. What follows ``--`` belongs to another program.
    """
    end = list(words).index("--") if "--" in words else len(words)
    own, others = list(words[:end]), list(words[end:])
    command = next((word for word in own if not word.startswith("-")), "")
    found: list[str] = []
    while own:
        word = own.pop(0)
        if word == "--json":
            file = own and command in _TOOK_A_FILE and (own[0] == "-" or not own[0].startswith("-"))
            word = f"--json={own.pop(0)}" if file else "--json=-"
            if file and word != "--json=-":
                _hint(word)
        elif word == "-m" and command == "generate":
            word = "--model"
            _hint(word)
        found.append(word)
    return found + others


def _hint(word: str) -> None:
    """Names today's spelling to a person; a script's output stays as it was."""
    if sys.stderr is not None and sys.stderr.isatty():
        say(f"Hint: this is spelled {word} now.", err=True)


def deliver(text: str, place: Path) -> None:
    """Prints a JSON document or writes it to its file, and says where."""
    if place == STDOUT:
        print(harmless_json(text))
    else:
        write_whole(place, text + "\n")
        say(f"JSON -> {place}", err=True)
