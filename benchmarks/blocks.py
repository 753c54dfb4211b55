"""Runs the commands of README and docs that need a GPU once on a card, and records their output.

    python -m benchmarks.blocks -o reports/records/h200-blocks.json      # in a checkout, about four minutes
    python -m benchmarks.blocks -o blocks.json --device host             # those that need no GPU, on any machine

All commands run in one temporary folder, in order, so that a later one can read the output of an earlier one. A command
that takes minutes runs in a shortened form, which its row describes. A small folder of random weights replaces FLUX.1's
34 GB. Commands with results in other records are left out by name (`LEFT_OUT`). ``tests/contracts/test_blocks.py``
checks that every such command of a page is in one of the two lists.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import fluxperf
from fluxperf.engine.device import open_device
from fluxperf.errors import ConfigError
from fluxperf.files import check_writable, write_whole
from fluxperf.harness.measure.environment import commit, installed, machine
from fluxperf.harness.timeline.capturing import find_nsys
from fluxperf.lifeline import call, scratch

ROOT = Path(__file__).resolve().parents[1]

#: The folder of the small checkpoint, and links to it under the names that pages use: a folder and a hub name.
_MODEL, _HUB = "FLUX.1-schnell", "black-forest-labs/FLUX.1-schnell"
_SMALL = "a small model of random weights in place of FLUX.1"

#: Number of lines that a record keeps of a command's output, from its start and from its end.
_FIRST, _LAST = 48, 32

_LIBRARIES = ("cupti-python", "nvmath-python", "torch", "diffusers", "transformers", "nvtx", "pytest")


@dataclass(frozen=True)
class Block:
    """A command of a page.

    Attributes:
        page: file of the command; empty if it only prepares later commands.
        command: as on the page.
        run: a shorter command that runs instead; the same one if empty.
        shortened: description of the difference.
        python: words of a Python block of the page; its code is written to the last file that the command names.
        code: the expected exit code.
        limit_s: seconds after which it is stopped.
        host: whether it can run on the host device, with ``--device host`` if it has that option.
        needs: a program or distribution without which it is skipped.
    """

    page: str
    command: str
    run: str = ""
    shortened: str = ""
    python: str = ""
    code: int = 0
    limit_s: float = 60.0
    host: bool = False
    needs: str = ""


#: A program with a copy inside its range ``forward``, for the witness, and with some GPU work, for a profiler.
_SCRIPT = '''\
"""Four steps of which each reads one number back."""

import sys

import cupy
import nvtx

x = cupy.ones((512, 512), cupy.float32)
steps = int(sys.argv[sys.argv.index("--steps") + 1]) if "--steps" in sys.argv else 4
for _ in range(steps):
    with nvtx.annotate("forward"):
        x = x @ x / 512
        worst = float(abs(x).max())
print(steps, "steps, largest value", worst)
'''

_GENERATE = 'fluxperf generate "a red fox in the snow" --model'
_NSYS = "nsys profile -t cuda,nvtx --cuda-graph-trace=node --sample=none --cpuctxsw=none -o run python program.py"

#: The commands in order: short and important ones first, in case the time is not enough.
BLOCKS = (
    Block("README.md", "fluxperf doctor", host=True, limit_s=30),
    Block("README.md", "fluxperf run --all --workload schnell-1024 --time-limit-s 30 -o records.jsonl",
          run="fluxperf run --rung fused --rung fp8 --workload schnell-1024 --time-limit-s 4 -o records.jsonl",
          shortened="two rungs, at most 4 seconds of samples each: the baseline takes minutes", limit_s=75),
    Block("README.md", "fluxperf report records.jsonl --sample reports/sample -o page.html", limit_s=30),
    Block("README.md", "fluxperf witness --fail-on-copies-in forward -- python script.py",
          code=1, needs="cupti-python", limit_s=30),
    Block("docs/witness.md",
          "fluxperf witness -o copies.jsonl --fail-on-copies-in forward -- python script.py --steps 4",
          code=1, needs="cupti-python", limit_s=30),
    Block("docs/witness.md", "python -m pytest -rs test_cupy.py", python="no_transfers", needs="cupti-python",
          limit_s=30),
    Block("docs/witness.md", "python -m pytest -rs test_torch.py", python="import torch", needs="torch", limit_s=40),
    Block("docs/memory.md", "fluxperf run --workload schnell-1024 --rung fp8 --memory-gb 16 -o records.jsonl",
          run="fluxperf run --workload schnell-1024 --rung fp8 --memory-gb 16 --time-limit-s 4 -o within.jsonl",
          shortened="at most 4 seconds of samples"),
    Block("docs/timeline.md", "fluxperf profile --workload schnell-1024 --rung fused -o profiles/fused"),
    Block("docs/timeline.md", "fluxperf timeline profiles/fused.sqlite --by block",
          needs="nsys", limit_s=30),
    Block("docs/commands.md", "fluxperf kernels -o kernels.jsonl",
          run="fluxperf kernels --repeat 3 -o kernels.jsonl", shortened="three batches of each kernel"),
    Block("", f"python -m benchmarks.flux_folder {_MODEL} --model tiny", needs="diffusers", host=True),
    Block("README.md", f"{_GENERATE} {_HUB} -o fox.png", shortened=_SMALL, needs="diffusers", host=True),
    Block("docs/generate.md", f"{_GENERATE} {_HUB} --seed 7 -o fox.png", shortened=_SMALL, needs="diffusers",
          host=True),
    Block("docs/generate.md", f'fluxperf generate "a red fox" --model {_MODEL} --embeddings-out fox.safetensors',
          shortened=_SMALL, needs="diffusers", host=True),
    Block("docs/generate.md",
          f"fluxperf generate --embeddings fox.safetensors --model {_MODEL} --latents-out latents.safetensors",
          shortened=_SMALL, needs="diffusers", host=True),
    Block("docs/generate.md", f"fluxperf generate --decode latents.safetensors --model {_MODEL} -o fox.png",
          shortened=_SMALL, needs="diffusers", host=True),
    Block("docs/memory.md", f"{_GENERATE} {_MODEL} --rung fp8 --memory-gb 16 --t5 free -o fox.png",
          shortened=_SMALL, needs="diffusers", host=True),
    Block("docs/generate.md", "python program.py", python="Pipeline.from_pretrained(", shortened=_SMALL,
          needs="diffusers"),
    Block("docs/generate.md",
          "fluxperf run --end-to-end --weights DIR --workload schnell-1024 --rung fused -o records.jsonl",
          run=f"fluxperf run --end-to-end --weights {_MODEL} --workload tiny --rung fused --repeat 2 -o pictures.jsonl",
          shortened=f"{_SMALL}, at its own size, two pictures", needs="diffusers", host=True),
    Block("docs/timeline.md", _NSYS, run=_NSYS.replace("program.py", "script.py"),
          shortened="the program is the one that was witnessed", needs="nsys", limit_s=40),
    Block("docs/timeline.md", "nsys export --type sqlite -o run.sqlite run.nsys-rep", needs="nsys", limit_s=40),
    Block("docs/timeline.md", "fluxperf timeline run.sqlite", needs="nsys", limit_s=30),
    Block("docs/generate.md", "python -m benchmarks.end_to_end --folder DIR --rung fused -o end-to-end.json",
          run=f"python -m benchmarks.end_to_end --folder {_MODEL} --model tiny --workload tiny --peer diffusers "
          "--rung fused --repeat 2 -o end-to-end.json",
          shortened=f"{_SMALL}, at its own size, beside eager diffusers alone", needs="diffusers", host=True,
          limit_s=90),
)  # fmt: skip

#: Commands that take long or need two git revisions, with the committed record that shows their result.
LEFT_OUT = {
    "fluxperf gate --base main --head HEAD --workload schnell-1024-blocks --rung fused": "h200-gate-blocks.json",
    "fluxperf gate --base REF --head REF -w schnell-1024-blocks -r captured --alive 8": "h200-gate-captured.json",
    "fluxperf gate calibrate -w schnell-1024-blocks -r captured --alive 8 --comparisons 20 --plant 1 --plant 0.5 "
    "-o aa.json": "h200-aa.json",
    "fluxperf gate calibrate -w schnell-1024-blocks -r fused --comparisons 20 --pairs 8 --repeat 15 --warmup 3 "
    "-o aa.json": "h100-aa.json",
    'fluxperf gate --base main --head slow --workload kernels -r "norm_modulate (fused) bfloat16" --pairs 8 '
    "--repeat 15": "h100-gate-planted.json",
}


def prepared(folder: Path) -> None:
    """Writes the files that commands need: reports of the checkout, the witnessed program, the checkpoint's names."""
    (folder / _HUB).parent.mkdir()
    (folder / _HUB).symlink_to(folder / _MODEL)
    (folder / "reports").symlink_to(ROOT / "reports")
    (folder / "script.py").write_text(_SCRIPT, encoding="utf-8")


def words(block: Block, device: str) -> list[str]:
    """The arguments of a block's command, with this interpreter and the installed nsys."""
    found = shlex.split(block.run or block.command)
    if device == "host" and (found[1] in ("run", "generate") or "benchmarks.end_to_end" in found):
        found += ["--device", "host"]
    if found[0] == "fluxperf":
        return [sys.executable, "-m", *found]
    if found[0] == "nsys":
        found[0] = str(find_nsys())
    if "pytest" in found and installed("fluxperf") is None:  # fluxperf on PYTHONPATH has no entry points
        found += ["-p", "fluxperf.pytest_plugin"]
    if "python" in found and "witness" not in found:
        found[found.index("python")] = sys.executable
    return found


def lacking(block: Block, device: str) -> str:
    """Why a block cannot run here; empty if it can."""
    if device == "host" and not block.host:
        return "needs a GPU"
    there = find_nsys() if block.needs == "nsys" else not block.needs or installed(block.needs)
    return "" if there else f"{block.needs} is not installed"


def shown(text: str, folder: Path) -> list[str]:
    """Lines of an output as on a page: without colours and this machine's paths, shortened in the middle."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    for place, name in ((folder, "."), (Path(sys.executable), "python"), (ROOT, "."), (Path.home(), "~")):
        for written in (str(place), str(place.resolve())):
            text = text.replace(written, name) if len(written) > 1 else text  # a home folder may be /
    lines = [line.rpartition("\r")[2].rstrip() for line in text.rstrip().split("\n")]
    if len(lines) <= _FIRST + _LAST:
        return lines
    return [*lines[:_FIRST], f".. {len(lines) - _FIRST - _LAST} lines ..", *lines[-_LAST:]]


def run(block: Block, folder: Path, device: str, limit_s: float) -> dict[str, Any]:
    """Runs a block in a folder.

    Returns:
        Exit code (``None`` if it was stopped after ``limit_s`` seconds), seconds and lines of output.
    """
    if block.python:
        text = (ROOT / block.page).read_text(encoding="utf-8")
        codes = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        code = next(code for code in codes if block.python in code)
        (folder / shlex.split(block.command)[-1]).write_text(code, encoding="utf-8")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1"}
    start = time.perf_counter()
    try:
        done = call(words(block, device), folder, environment, limit_s)
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, said = None, late.output or b""
    took = time.perf_counter() - start
    said = said.decode(errors="replace") if isinstance(said, bytes) else said
    return {"exit_code": code, "seconds": round(took, 2), "output": shown(said, folder)}


def rows(blocks: Sequence[Block], device: str, budget_s: float) -> list[dict[str, Any]]:
    """Runs blocks one after another, within their own limits and the remaining budget.

    Args:
        blocks: in order.
        device: ``cuda`` or ``host``.
        budget_s: seconds for all of them; blocks that would start later are listed and not run.
    """
    until = time.perf_counter() + budget_s
    found: list[dict[str, Any]] = []
    with scratch("fluxperf-blocks-") as folder:
        prepared(folder)
        for block in blocks:
            row: dict[str, Any] = {"page": block.page, "command": block.command}
            row |= {"run": block.run} if block.run else {}
            row |= {"shortened": block.shortened} if block.shortened else {}
            left = until - time.perf_counter()
            why = lacking(block, device) or ("no time was left" if left < 1 else "")
            if why:
                row["not_run"] = why
            else:
                row["expected_exit_code"] = block.code
                row |= run(block, folder, device, min(block.limit_s, left))
            print(f"{row.get('exit_code', '-')!s:>4} {row.get('seconds', 0):6.1f} s  {block.command} {why}", flush=True)
            found.append(row)
    return found


def failed(found: Sequence[dict[str, Any]]) -> list[str]:
    """Commands with another result than expected."""
    return [row["command"] for row in found if "not_run" not in row and row["exit_code"] != row["expected_exit_code"]]


def main(arguments: list[str] | None = None) -> None:
    """Runs the blocks, prints a line for each, and writes a JSON file; exits with 1 if a result was unexpected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", choices=("auto", "cuda", "host"), default="auto")
    parser.add_argument("--budget", type=float, default=235, metavar="SECONDS", help="for all commands together")
    parser.add_argument("--only", action="append", help="commands that contain this; repeat for several")
    given = parser.parse_args(arguments)
    check_writable(given.output)
    kind = open_device(given.device).kind
    blocks = [block for block in BLOCKS if not given.only or any(word in block.command for word in given.only)]
    if not blocks:
        raise ConfigError(f"--only {', '.join(given.only)}: expected a part of a command in BLOCKS, found none.")
    found = rows(blocks, kind, given.budget)
    device = open_device(kind)
    revision, dirty = commit(Path(fluxperf.__file__).resolve().parent.parent)
    told = {
        "what": "commands of README and docs that need a GPU, each run once, with what they print",
        "commit": revision,
        "dirty": dirty,
        "machine": msgspec.to_builtins(machine(device.describe() if kind == "cuda" else None)),
        "libraries": {name: version for name in _LIBRARIES if (version := installed(name))},
        "blocks": found,
        "left_out": [{"command": command, "shown_by": record} for command, record in LEFT_OUT.items()],
    }
    write_whole(given.output, json.dumps(told, indent=1) + "\n")
    wrong = failed(found)
    print(f"{len(found)} commands, {sum('not_run' in row for row in found)} not run, {len(wrong)} not as expected.")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
