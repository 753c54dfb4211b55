"""Options and spellings that all commands share. Earlier spellings still work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fluxperf.cli.terminal import harmless_json, say
from fluxperf.files import write_whole

#: As the value of an output option: standard output.
STDOUT = Path("-")

#: The same in every command: ``--json`` prints, ``--json=FILE`` writes to a file.
Json = Annotated[
    Path | None, typer.Option("--json", metavar="[=FILE]", help="Print the result as JSON, or write it to a file.")
]

#: Commands whose ``--json`` used to take the next word as its file.
_TOOK_A_FILE = ("report", "gate")


def choice(names: Sequence[str], *spelled: str, **how: Any) -> Any:
    """An option with a fixed set of names as values. Help shows the names, and shells complete them."""
    return typer.Option(*spelled, metavar="|".join(names), autocompletion=lambda: list(names), **how)


#: Placeholder for the value in help, by a word in the type's name. Releases of Typer name types differently.
_VALUES = (("int", "N"), ("float", "NUMBER"), ("path", "PATH"), ("str", "TEXT"), ("text", "TEXT"))

#: Replaces hyphens while help is wrapped, so that no option, file or finding is broken at one.
_HYPHEN = "\ue000"


def plain_help(command: Any) -> None:
    """Gives a command the same help under every release of Typer: kinds of values, and whole sentences.

    Args:
        command: a command of Typer; changed in place.
    """
    if command.help:
        paragraphs = command.help.replace("``", "`").split("\n\n")
        # Click would shorten the line of a command in the list of commands.
        command.short_help = " ".join(paragraphs[0].split())
        # An indented paragraph is a command line: it is not wrapped.
        command.help = "\n\n".join(f"\b\n{text}" if text.startswith("  ") else text for text in paragraphs)
    command.context_class = _whole_words(type(command).context_class)
    for row in command.params:
        if row.param_type_name == "argument":
            _plain_argument(row)
        elif getattr(row, "is_flag", False):
            row.metavar = ""
        elif row.metavar is None:
            kind = row.type.name if hasattr(row, "type") else row.bare_type()
            row.metavar = next((name for word, name in _VALUES if word in kind.lower()), None)


def _plain_argument(row: Any) -> None:
    """Shows an argument by its name alone: in brackets if it is optional, with dots if it repeats."""
    name = row.metavar or row.name.upper()
    dots = "..." if row.nargs != 1 else ""
    row.metavar = name
    row.display_type_rich = lambda ctx: ""
    row.get_usage_pieces = lambda ctx: [f"{name}{dots}" if row.required else f"[{name}]{dots}"]


def _whole_words(context: Any) -> Any:
    """A context of a command whose help breaks lines between words only, not at hyphens."""

    class Formatter(context.formatter_class):  # type: ignore[misc]
        def write_text(self, text: str) -> None:
            wrap = super().write_text
            wrap(text.replace("-", _HYPHEN))

        def write_dl(self, rows: Sequence[tuple[str, str]], *widths: int, **how: int) -> None:
            super().write_dl([(first, second.replace("-", _HYPHEN)) for first, second in rows], *widths, **how)

        def getvalue(self) -> str:
            return str(super().getvalue()).replace(_HYPHEN, "-")

    return type("Context", (context,), {"formatter_class": Formatter})


def spelled(words: Sequence[str]) -> list[str]:
    """Translates a command line with earlier spellings to today's.

    Args:
        words: arguments after the program's name. Those after ``--`` belong to another program.
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
    """Shows the current spelling on a terminal. The output of scripts does not change."""
    if sys.stderr is not None and sys.stderr.isatty():
        say(f"Hint: the current spelling is {word}.", err=True)


def deliver(text: str, place: Path) -> None:
    """Prints a JSON document, or writes it to its file and prints the path."""
    if place == STDOUT:
        print(harmless_json(text))
    else:
        write_whole(place, text + "\n")
        say(f"JSON -> {place}", err=True)
