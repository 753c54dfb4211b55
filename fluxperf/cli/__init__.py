"""The ``fluxperf`` command: one file per command, parsing and wiring only."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.rich_utils import rich_format_error

import fluxperf
from fluxperf.errors import FluxperfError
from fluxperf.lifeline import follow

#: Commands in the order of the help. Each is a file of this folder, and in it a function of the same name, or an
#: ``app`` with commands of its own; dashes are underscores there.
COMMANDS = (
    "generate", "run", "kernels", "report", "history", "import-asv", "phases", "ops", "profile", "timeline", "doctor",
    "witness", "gate",
)  # fmt: skip


class _Commands(TyperGroup):
    """Imports a command when it is asked for: each needs libraries that the others do not, and a run starts sooner."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        # A name that is unknown is compared with all others, to suggest one.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = _made(name)
        return super().get_command(ctx, cmd_name)


def _made(name: str) -> Any:
    """The command of that name, from its file."""
    word = name.replace("-", "_")
    module = import_module(f"fluxperf.cli.{word}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        # What follows the program's name is the program's own, options too.
        settings = {"allow_interspersed_args": False} if name == "witness" else None
        app.command(name, context_settings=settings)(getattr(module, word))
    made = typer.main.get_command(app)
    made.name = name
    return made


app = typer.Typer(
    cls=_Commands,
    name="fluxperf",
    help="FLUX.1 fast on NVIDIA GPUs without PyTorch, and the harness that proves every step of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fluxperf {fluxperf.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


#: What a command line that means nothing raises. Newer releases of Typer have a Click of their own inside.
_MISUSE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line. An error that fluxperf raises on purpose is one message, and exit code 2.

    So is everything else that goes wrong, with a traceback: exit code 1 is what a command itself says, such as a
    regression, and never a crash. Characters that an output's encoding lacks are written as escapes.

    Args:
        words: of the command, after the program's name; those that this program was called with if not given.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    follow()
    try:
        code = app(words, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except FluxperfError as error:
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(f"fluxperf: {error}", style="red", markup=False)
        sys.exit(2)
    except _MISUSE as error:
        rich_format_error(error)
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        print("Aborted.", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        _unprinted(error)
    except Exception:  # noqa: BLE001 -- whatever crashes must not end with 1, which says "a regression"
        traceback.print_exc()
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _unprinted(error: OSError) -> NoReturn:
    """Ends with 2; if a standard output is the matter, without a second complaint when Python closes it."""
    # What is left in its buffer has no reader: Python must not try again when it ends.
    sys.stdout = None
    with suppress(OSError):
        print(f"fluxperf: {error.strerror or error}. Expected outputs that can be written to.", file=sys.stderr)
    sys.exit(2)
