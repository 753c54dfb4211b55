"""The ``fluxperf`` command: one file per command, parsing and wiring only."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import fluxperf
from fluxperf.cli.grammar import plain_help, spelled
from fluxperf.errors import FluxperfError
from fluxperf.lifeline import Stopped, follow, stoppable

#: Commands in the order of the help. Each is a file of this folder, and in it a function of the same name, or an
#: ``app`` with commands of its own; dashes are underscores there.
COMMANDS = (
    "generate", "run", "kernels", "evidence", "report", "history", "push", "import-asv", "phases", "ops", "profile",
    "timeline", "doctor", "witness", "gate",
)  # fmt: skip


class _Commands(TyperGroup):
    """Imports the file of a command only when the command is used.

    Each command needs libraries that the others do not, so a run starts sooner.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # An unknown name is compared with all others, to suggest one.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = _made(name)
        return super().get_command(ctx, cmd_name)


def _made(name: str) -> Any:
    """The command object of that name, imported from its file."""
    word = name.replace("-", "_")
    module = import_module(f"fluxperf.cli.{word}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        # Everything after the program's name belongs to the program, options included.
        settings = {"allow_interspersed_args": False} if name == "witness" else None
        app.command(name, context_settings=settings)(getattr(module, word))
    made = typer.main.get_command(app)
    made.name = name
    for command in (made, *getattr(made, "commands", {}).values()):
        plain_help(command)
    return made


app = typer.Typer(
    cls=_Commands,
    name="fluxperf",
    help="FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fluxperf {fluxperf.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    with_traceback: Annotated[
        bool, typer.Option("--traceback", help="Print a Python traceback after an unexpected error.")
    ] = False,
) -> None:
    context.obj["traceback"] = with_traceback


#: The shell sets this variable when it asks for completions of a word.
_COMPLETE = "_FLUXPERF_COMPLETE"

#: The exception for an invalid command line. Newer releases of Typer contain a Click of their own.
_MISUSE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

#: Exit code of a program whose output is no longer read, as in ``fluxperf ops | head -1``.
_NO_READER = 128 + signal.SIGPIPE


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line. An expected error prints one message and ends with exit code 2.

    Every other failure also ends with 2. Exit code 1 is reserved for the result of a command, such as a regression, and
    never means a crash. A signal ends the program with 128 plus its number, after a message about which results were
    saved. A closed output ends it with 141 and no message. Characters that the encoding of an output lacks are written
    as escapes.

    Args:
        words: arguments after the program's name; those of this process if not given.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    follow()
    options: dict[str, bool] = {}
    try:
        with stoppable():
            code = _ended(spelled(sys.argv[1:] if words is None else words), options)
            if sys.stdout is not None:
                sys.stdout.flush()
    except FluxperfError as error:
        _complain(" ".join([str(error), *getattr(error, "__notes__", [])]))
        sys.exit(2)
    except _MISUSE as error:
        _misused(error)
    except KeyboardInterrupt as error:
        name, number = (str(error), error.number) if isinstance(error, Stopped) else ("SIGINT", signal.SIGINT)
        kept = " ".join(getattr(error, "__notes__", []))
        _complain(f"stopped by {name}.{f' {kept}' if kept else ''}")
        sys.exit(128 + number)
    except OSError as error:
        _unprinted(error)
    except SystemExit as error:
        # Rich, and therefore Typer, exits with 1 when the reader of a pipe is gone.
        if isinstance(error.__context__, BrokenPipeError):
            _unprinted(error.__context__)
        raise
    except Exception as error:  # noqa: BLE001 -- whatever crashes must not end with 1, which says "a regression"
        _crashed(error, options.get("traceback", False))
    sys.exit(code if isinstance(code, int) else 0)


def _ended(words: list[str], options: dict[str, bool]) -> Any:
    """Runs a command and returns its value or exit code. Typer itself would exit with 1 when an output is closed."""
    command = typer.main.get_command(app)
    plain_help(command)
    if _COMPLETE in os.environ:
        return command.main(words, prog_name="fluxperf", obj=options)
    try:
        with command.make_context("fluxperf", words, obj=options) as context:
            return command.invoke(context)
    except typer.Exit as end:
        return end.exit_code


def _complain(what: object) -> None:
    from fluxperf.cli.terminal import Console

    Console(stderr=True, highlight=False).print(f"fluxperf: {what}", style="red", soft_wrap=True)


def _misused(error: Any) -> NoReturn:
    """Explains the correct use of a command line and exits with 2; after the help if there were no arguments."""
    context: Any = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(context.get_help(), err=True)
    else:
        command = f"{context.command_path} ".partition(" ")[2].strip() if context else ""
        _complain(f"{command and f'{command}: '}{error.format_message()}")
        if context:
            typer.echo(f"Try '{context.command_path} -h' for help.", err=True)
    sys.exit(error.exit_code)


def _crashed(error: Exception, with_traceback: bool) -> NoReturn:
    """Exits with 2 after one message about an unexpected exception: its type, text and place."""
    if with_traceback:
        traceback.print_exc()
    else:
        at = traceback.extract_tb(error.__traceback__)[-1]
        _complain(
            f"{type(error).__name__}: {str(error)[:1000]} ({Path(at.filename).name}, line {at.lineno}). This is a "
            f"bug in fluxperf. Run fluxperf --traceback {' '.join(sys.argv[1:2])} .. and report its output."
        )
    sys.exit(2)


def _unprinted(error: OSError) -> NoReturn:
    """Exits with 2, or with 141 if the reader of the output is gone, without a second message from Python itself."""
    # The rest of its buffer has no reader. Python must not try to write it again at exit.
    sys.stdout = None
    if isinstance(error, BrokenPipeError):
        sys.stderr = None
        sys.exit(_NO_READER)
    with suppress(OSError):
        named = f"{error.filename}: " if error.filename else ""
        print(
            f"fluxperf: {named}{error.strerror or error}. Expected files and outputs that can be read and written.",
            file=sys.stderr,
        )
    sys.exit(2)
