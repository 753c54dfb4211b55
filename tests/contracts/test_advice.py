"""All commands that pages, help texts and messages advise exist: the real parsers read them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer

from fluxperf.cli import app
from fluxperf.cli.grammar import spelled
from tests.contracts import tree
from tests.contracts.tree import ROOT

#: Files are parsed once, by one worker.
pytestmark = pytest.mark.xdist_group("tree")

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[!.]*/README.md")])
CODE = [*tree.python_files("fluxperf"), *tree.python_files("benchmarks")]

#: Where each command of a page runs. Host commands of code blocks run in the named tests, on the files of those tests.
RUN_BY = {
    r"fluxperf (doctor|phases|ops)": "tests/cli/test_commands.py",
    r"fluxperf report .*--timeline": "tests/report/test_page_evidence.py",
    r"fluxperf report": "tests/cli/test_report_options.py",
    r"fluxperf history": "tests/cli/test_history_commands.py",
    r"fluxperf timeline": "tests/timeline/test_command.py",
    r"fluxperf gate (exact|accept)": "tests/cli/test_gate.py",
    r"fluxperf gate power": "tests/gate/test_operating_characteristics.py",
    r"fluxperf push": "tests/history/test_places.py",
    r"fluxperf evidence": "tests/cli/test_evidence.py",
    r"fluxperf import-asv|asv ": "tests/suite",
    r"python -m benchmarks.quality": "tests/quality",
    r"make ": "Makefile",
    r"python3 -m venv|\. \.venv|pip install": "tests/contracts/test_readme.py",
}
#: Commands that were run on GPU machines, with records of their results: no CI machine has a GPU.
NEEDS_GPU = (
    r"fluxperf run --all --workload schnell-1024",
    r"fluxperf (generate|profile|witness|kernels)",
    r"fluxperf run --(end-to-end|workload schnell-1024 --rung fp8 --memory-gb)",
    r"fluxperf gate (calibrate|--base)",
    r"python -m benchmarks\.(kernels|end_to_end|products|stamps|same_weights)",
    r"nsys ",
)


def blocks(text: str) -> Iterator[str]:
    """Commands of fenced blocks, without prompts, comments and output."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language not in ("", "sh", "console"):
            continue
        lines = block.replace("\\\n", " ").splitlines()
        prompts = [line for line in lines if line.startswith("$ ")]
        first = ("fluxperf ", "make ", "python", "pip ", "nsys ", "asv ", ". ")
        for line in prompts or [line for line in lines if line.startswith(first)]:
            command = re.sub(r"\s+#.*|; echo \$\?|\s\[.*?\]", "", line.removeprefix("$ "))
            if command != "echo $?":
                yield command


def inline(text: str) -> Iterator[str]:
    """Commands between backticks."""
    for command in re.findall(r"`((?:fluxperf|python -m benchmarks|make) ?[^`\n{}\"]*)`", text):
        yield re.sub(r"\[[^\]]*\]", "", command)


def wrong(path: Path) -> list[str]:
    """Commands that a file advises but that do not exist."""
    text = path.read_text(encoding="utf-8")
    whole = dict.fromkeys(blocks(text)) if path.suffix == ".md" else {}
    named = dict.fromkeys(inline(re.sub(r"(?ms)^```.*?^```", "", text) if whole else text))
    found = [(command, complaint(command)) for command in whole]
    found += [(command, complaint(command, whole=False)) for command in named]
    return [f"{command}: {why}" for command, why in found if why]


def parsed(words: list[str], command: object, context: object = None) -> None:
    """Raises the error that the command line would raise; runs nothing."""
    name = getattr(command, "name", "") or "fluxperf"
    made = command.make_context(name, list(words), parent=context, obj={})  # type: ignore[attr-defined]
    rest = [*made._protected_args, *made.args] if hasattr(made, "_protected_args") else [*made.args]
    if rest and hasattr(command, "get_command"):
        inner = command.get_command(made, rest[0])
        if inner is None:
            raise LookupError(f"no command {rest[0]!r}")
        parsed(rest[1:], inner, made)


def complaint(command: str, whole: bool = True) -> str:
    """Why an advised command does not exist; empty if it does.

    Args:
        command: a line.
        whole: whether it is complete. In a sentence, arguments and values may be missing.
    """
    words = [word for word in shlex.split(command.partition(" | ")[0]) if word not in ("..", "...")]
    # The completion option acts while it is parsed, on the home folder of whoever runs the tests.
    words = ["6" if word == "N" else word for word in words if word != "--install-completion"]
    if words[:2] == ["python", "-m"]:
        return _of_module(words[2], words[3:])
    if words[0] == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        return "" if len(words) == 1 or re.search(rf"(?m)^{words[1]}:", targets) else "no such target"
    if words[0] != "fluxperf" or len(words) == 1:
        return ""
    try:
        parsed(spelled(words[1:]), typer.main.get_command(app))
    except (typer.Exit, SystemExit):  # help and version
        return ""
    except Exception as error:  # noqa: BLE001 -- Typer's own Click is private
        said = f"{type(error).__name__}: {getattr(error, 'message', error)}"
        return "" if not whole and re.match("MissingParameter|.*requires an argument", said) else said
    return ""


def _of_module(module: str, words: list[str]) -> str:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return "no such module"
    folder = Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)
    files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    return ", ".join(f"no option {word}" for word in words if word.startswith("-") and f'"{word}"' not in source)


def test_what_is_advised_exists() -> None:
    tree.check([*PAGES, *CODE], wrong)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("fluxperf nothing", "no command"),
        ("fluxperf run --everything", "No such option"),
        ("fluxperf gate exact --base", "requires an argument"),
        ("fluxperf run --repeat many", "valid int"),
        ("python -m benchmarks.nothing", "no such module"),
        ("python -m benchmarks.kernels --nothing", "no option --nothing"),
        ("make nothing", "no such target"),
    ],
)
def test_what_does_not_exist_is_seen(command: str, why: str) -> None:
    assert why.lower() in complaint(command).lower()


def test_every_command_of_a_block_is_run_by_a_test_or_needs_a_gpu() -> None:
    commands = {command: path for path in PAGES for command in blocks(path.read_text(encoding="utf-8"))}
    assert len(commands) > 40
    places = [*NEEDS_GPU, *RUN_BY]
    lost = [f"{tree.name(path)}: {command}" for command, path in commands.items() if not any(
        re.match(place, command) for place in places)]  # fmt: skip
    assert not lost, "\n".join(lost)
    unused = [place for place in places if not any(re.match(place, command) for command in commands)]
    assert not unused
    assert all((ROOT / place).exists() for place in RUN_BY.values())


def lost(command: str) -> list[str]:
    """Committed files and folders that a command reads but that do not exist."""
    words = [word.split("#")[0] for word in shlex.split(command, comments=True)]
    written = {after for before, after in pairwise(words) if before in ("-o", "--chart", "--json")}
    return [
        word
        for word in words
        if re.match(r"(reports/(records|sample|baselines|policy)|benchmarks/|tests/|docs/)", word)
        and word not in written
        and not [*ROOT.glob(word.rstrip("/"))]
    ]


def test_committed_files_that_commands_name_exist() -> None:
    def of(path: Path) -> list[str]:
        text = path.read_text(encoding="utf-8")
        return [word for command in (*blocks(text), *inline(text)) for word in lost(command)]

    tree.check(PAGES, of)
    assert lost("fluxperf timeline reports/sample/gone.sqlite --by op") == ["reports/sample/gone.sqlite"]
    assert lost("fluxperf history reports/records --chart reports/sample/new.svg  # reports/sample/gone") == []
