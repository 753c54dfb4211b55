"""Jobs: what a command is to make, one picture each, from a prompt, a file of prompts, or stored embeddings.

A picture does not depend on the others of its command: every prompt begins with the same seed, as if it were alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fluxperf.errors import ConfigError, reason
from fluxperf.pipeline.embeddings import Embedded
from fluxperf.pipeline.noise import seeds_of

#: Pictures of one command.
MOST_PICTURES = 100_000


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a JSON Lines file of prompts; what is left out is the command's own. ``output`` is a file's name."""

    prompt: str
    prompt_2: str | None = None
    seed: int | None = None
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance: float | None = None
    num_images: int | None = None
    output: str | None = None


class Defaults(NamedTuple):
    """A command's options for all its pictures."""

    height: int
    width: int
    steps: int | None
    guidance: float | None
    seed: int
    num_images: int


class Job(NamedTuple):
    """One picture: of a prompt, or of embeddings whose prompt is known or "", and where it goes."""

    prompt: str
    prompt_2: str | None
    embedded: Embedded | None
    seed: int
    height: int
    width: int
    steps: int | None
    guidance: float | None
    output: Path | None
    latents_out: Path | None


def read_prompts(path: Path) -> list[Line]:
    """Prompts in a file: JSON Lines in one that ends in ``.jsonl``, else a prompt per line.

    Lines that are empty or begin with ``#`` are skipped.

    Raises:
        ConfigError: the file cannot be read, has no prompt, or a line is none; names the line.
    """
    try:
        # A byte order mark is none of the text, and only line ends part lines: U+2028 and others may be in a prompt.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a text file of prompts, but: {reason(error)}.") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if path.suffix != ".jsonl":
            found.append(Line(prompt=line.strip()))
            continue
        try:
            found.append(msgspec.json.decode(line, type=Line))
        except (msgspec.DecodeError, RecursionError) as error:
            fields = ", ".join(field.encode_name for field in msgspec.structs.fields(Line))
            raise ConfigError(f"{path}, line {number}: expected an object with {fields}: {error}.") from error
    if not found:
        raise ConfigError(f"{path}: expected prompts, one per line, found none.")
    return found


def jobs_of(
    lines: Sequence[Line], embedded: Sequence[Embedded], given: Defaults, output: Path | None, latents_out: Path | None
) -> list[Job]:
    """Jobs in order, each with files of its own.

    Args:
        lines: prompts.
        embedded: embeddings of theirs, or nothing.
        given: the command's own values.
        output: where pictures go: a file, or a folder; several files get a number. ``None`` for no pictures.
        latents_out: the same for latents.

    Raises:
        ConfigError: two pictures would go into one file, or a file's name is none of a PNG.
    """
    found: list[Job] = []
    counts = [given.num_images if line.num_images is None else line.num_images for line in lines]
    if min(counts) < 1:
        raise ConfigError(f"--num-images {min(counts)}: expected at least 1.")
    total = sum(counts)
    if total > MOST_PICTURES:
        raise ConfigError(
            f"{len(lines)} prompts, {min(total, 10**30):.6g} pictures in all: expected at most {MOST_PICTURES} in one "
            "command. Check num_images, or part the prompts into several commands."
        )
    for position, (line, count) in enumerate(zip(lines, counts, strict=True)):
        seed = seeds_of(given.seed if line.seed is None else line.seed, 1)[0]
        for index in range(count):
            number = len(found) + 1
            named = None if line.output is None or output is None else _beside(output) / line.output
            picture = numbered(output, number, total, ".png") if named is None else numbered(named, index + 1, count)
            found.append(
                Job(
                    prompt=line.prompt,
                    prompt_2=line.prompt_2,
                    embedded=embedded[position] if embedded else None,
                    seed=seed + index,
                    height=given.height if line.height is None else line.height,
                    width=given.width if line.width is None else line.width,
                    steps=given.steps if line.steps is None else line.steps,
                    guidance=given.guidance if line.guidance is None else line.guidance,
                    output=picture,
                    latents_out=numbered(latents_out, number, total, ".safetensors"),
                )
            )
    _check_names(found)
    return found


def numbered(path: Path | None, number: int, total: int, suffix: str = "") -> Path | None:
    """Where one of several files goes: the path itself if it is the only one, else with its number from 1.

    Args:
        path: of a file, or of a folder (one that is there, or a name that has no suffix where one is expected).
        number: from 1.
        total: how many there are.
        suffix: of files in a folder.
    """
    if path is None:
        return None
    if is_folder(path) or (suffix and not path.suffix):
        return path / f"{number:04}{suffix}"
    return path if total == 1 else path.with_name(f"{path.stem}-{number:04}{path.suffix}")


def is_folder(path: Path) -> bool:
    """Whether a folder is there; a name that no file can have (too long, say) is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def check_suffix(option: str, path: Path, suffix: str) -> None:
    """Complains about a file whose name promises another format.

    Raises:
        ConfigError: it does not end in the suffix.
    """
    if path.suffix.lower() != suffix:
        raise ConfigError(f"{option} {path}: expected a name that ends in {suffix}, the one format there is.")


def _beside(output: Path) -> Path:
    return output if is_folder(output) or not output.suffix else output.parent


def _check_names(jobs: Sequence[Job]) -> None:
    for name, suffix, paths in (
        ("-o", ".png", [job.output for job in jobs]),
        ("--latents-out", ".safetensors", [job.latents_out for job in jobs]),
    ):
        known = [path for path in paths if path is not None]
        for path in known:
            check_suffix(name, path, suffix)
        twice = [path for path, count in Counter(known).items() if count > 1]
        if twice:
            raise ConfigError(f"{name} {twice[0]}: expected a file for each picture, got this one for two of them.")
