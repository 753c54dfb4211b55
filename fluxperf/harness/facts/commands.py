"""Commands that reproduce each part of the page, as far as the records contain their settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from fluxperf.harness.facts.beside_peers import beside_peers
from fluxperf.harness.facts.samples import usable
from fluxperf.harness.facts.study import Ladder, Study
from fluxperf.harness.records import Record
from fluxperf.harness.text.escape import shown
from fluxperf.words import whole_in

#: Path of a captured step: a stem of several files. The trace exists for every capture tool.
_CAPTURE = "profiles/step"


def run_command(
    ladder: Ladder,
    rungs: Sequence[str] = (),
    processes: int = 0,
    budget: str | None = None,
    like: Record | None = None,
) -> str:
    """The command that measures a ladder, or some of its rungs, with the settings of a record like it, or the newest.

    With a memory budget it is the command for the rungs that were measured within it. The first rung takes minutes on a
    GPU. Without a record of it, the command has a time limit instead of numbers of samples, which a single generation
    exceeds.
    """
    alike = [record for record in ladder.records if record.settings.get("memory_gb") == budget]
    record = like or (alike or ladder.records)[-1]
    if budget is not None:
        rungs = [one.rung for one in alike]
    elif not rungs and any(not rung.record for rung in ladder.rungs):  # a baseline on a GPU takes minutes
        rungs = [rung.name for rung in ladder.measured if rung.info]
    samples = usable(record)
    parts = ["fluxperf run", *_workload(ladder)]
    parts += [f"--rung {_word(name)}" for name in rungs] or ["--all"]
    if ladder.start in rungs and not ladder.baseline and not ladder.twin:
        parts.append("--time-limit-s 30")
    else:
        parts += [f"--processes {max(processes, len(samples))}"] if max(processes, len(samples)) > 1 else []
        parts += [f"--repeat {len(samples[0])}"] if samples else []
    if "rest_s" in record.settings:
        parts.append(f"--rest-s {_word(record.settings['rest_s'])}")
    if budget is not None:
        parts.append(f"--memory-gb {_word(budget)}")
    if ladder.twin:
        parts.append("--device host")
    return " ".join([*parts, "-o FILE.jsonl"])


def _workload(ladder: Ladder) -> list[str]:
    """Options for a workload, for sizes that are not its own, and for weights other than those of seed 0."""
    row, words = ladder.workload, [f"--workload {_word(ladder.base)}"] if ladder.base else []
    if row.name == "custom":
        sizes = {"height": row.height, "width": row.width, "text-tokens": row.text_tokens, "steps": row.steps}
        words += [f"--{name} {value}" for name, value in sizes.items()]
        words += [f"--batch {row.batch}"] if row.batch != 1 else []
    named = re.fullmatch(r"synthetic \(seed (\d+)\)", row.weights)
    seed = whole_in(named[1]) if named else None
    if seed is None:
        words.append("--weights DIR")
    elif seed:
        words.append(f"--seed {seed}")
    return words


def calibrate_command(ladder: Ladder, rung: str = "") -> str:
    """The command that calibrates a ladder's machine for its workload, for all rungs or one."""
    command = f"fluxperf gate calibrate --workload {_word(ladder.base or ladder.workload.name)}"
    return f"{command} --rung {_word(rung)}" if rung else command


def profile_command(study: Study, ladder: Ladder | None = None) -> str:
    """The command that captures a step of a ladder's quickest rung, by default of the first ladder on a GPU.

    Without such a ladder it is the last rung of the headline workload, as only a GPU can be profiled.
    """
    ladder = ladder or next((one for one in study.climbing if not one.twin and one.best), None)
    if ladder and ladder.best:
        words = [*_workload(ladder), f"--rung {_word(ladder.best.name)}"]
    else:
        last = [f"--rung {_word(info.name)}" for info in study.context.ladder[-1:]]
        words = [f"--workload {_word(study.context.headline_workload)}", *last]
    return " ".join(["fluxperf profile", *words, "-o", _CAPTURE])


def _word(text: str) -> str:
    return shlex.quote(shown(text, 80))


def _runs(study: Study) -> list[str]:
    """The commands of suites that records are from; those of ladders, with one for all rungs of as many samples."""
    found = [one.command for one in study.extras.suites]
    for ladder in study.climbing:
        for budget in dict.fromkeys(record.settings.get("memory_gb") for record in ladder.records):
            groups: dict[tuple[int, ...], list[Record]] = {}
            for rung in ladder.rungs:
                if budget is None and rung.record and rung.info:
                    groups.setdefault(tuple(map(len, usable(rung.record))), []).append(rung.record)
            if len(groups) > 1:
                found += [run_command(ladder, [one.rung for one in group], like=group[-1]) for group in groups.values()]
            else:
                found.append(run_command(ladder, budget=budget))
    return list(dict.fromkeys(found)) or ["fluxperf run --all -o FILE.jsonl"]


def _peers(study: Study) -> list[str]:
    found = []
    for ladder in study.climbing:
        beside = {peer.name: ours for peer, ours, _ in beside_peers(study, ladder)}
        peers: dict[str, list[str]] = {}
        for peer in study.peers_of(ladder):
            ours = beside.get(peer.name) or (ladder.best.record if ladder.best else None)
            if ours:
                command = run_command(ladder, [ours.rung], like=ours).removesuffix(" -o FILE.jsonl")
                peers.setdefault(command, []).append(f"--peer {_word(peer.name)}")
        found += [" ".join([command, *options, "-o FILE.jsonl"]) for command, options in peers.items()]
    return found


def _with(page: str, option: str, value: str) -> str:
    """The page's command with one more option, unless it has that option."""
    return page if f" {option} " in page else f"{page} {option} {value}"


def commands(study: Study, section: str) -> list[str]:
    """The commands that reproduce a section of the page, in the order in which to run them."""
    first = next((ladder for ladder in study.climbing if not ladder.twin), None)
    workload = _word(first.workload.name) if first else "WORKLOAD"
    page = study.extras.command or "fluxperf report RECORDS -o PAGE.html"
    known = {
        "verdict": [f"fluxperf gate --base REF --head REF --workload {workload} --json verdict.json"],
        "machines": ["fluxperf doctor"],
        "headline": [*_runs(study)[:3], *_peers(study)[:3]],
        "ladder": _runs(study)[:6],
        "samples": [*_runs(study)[:2], *([calibrate_command(first)] if first else [])],
        "timeline": [
            profile_command(study),
            _with(page, "--timeline", f"{_CAPTURE}.json"),
        ],
        "ledger": ["fluxperf gate exact", *_runs(study)[:3]],
        "ops": [*_runs(study)[:3], "fluxperf kernels -o kernels.jsonl"],
        "roofline": ["python -m benchmarks.kernels -o kernels.json", _with(page, "--ceilings", "kernels.json")],
        "gaps": [profile_command(study), _with(page, "--timeline", f"{_CAPTURE}.json")],
        "history": ["fluxperf history FOLDER", _with(page, "--history", "FOLDER")],
        "raw": [page],
    }
    return [shown(command, 600) for command in known.get(section, [])]
