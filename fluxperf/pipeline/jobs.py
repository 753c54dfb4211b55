"""Jobs of a command, one per picture: from a prompt, a file of prompts, or stored embeddings.

A picture does not depend on the command's other pictures: every prompt starts with the same seed.
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

#: Largest number of pictures of one command.
MOST_PICTURES = 100_000


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a JSON Lines file of prompts. Omitted fields have the command's values. ``output`` is a file name."""

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
    """The options of a command for all its pictures."""

    height: int
    width: int
    steps: int | None
    guidance: float | None
    seed: int
    num_images: int


class Job(NamedTuple):
    """One picture and its output files: from a prompt, or from embeddings with their prompt ("" if unknown)."""

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
    """Prompts from a file: JSON Lines if its name ends in ``.jsonl``, else one prompt per line.

    Empty lines and lines that begin with ``#`` are skipped.

    Raises:
        ConfigError: the file cannot be read or has no prompt, or a line is invalid; the message names the line.
    """
    try:
        # Drops a byte order mark. Splits only at line feeds, as prompts may contain U+2028 and similar characters.
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
        raise ConfigError(f"{path}: expected prompts, one per line, found none. Write at least one line.")
    return found


def jobs_of(
    lines: Sequence[Line], embedded: Sequence[Embedded], given: Defaults, output: Path | None, latents_out: Path | None
) -> list[Job]:
    """Jobs in order, each with output files of its own.

    Args:
        lines: prompts.
        embedded: embeddings of the prompts; empty if they are to be encoded.
        given: the command's options.
        output: file or folder for pictures; the names of several files get a number. ``None`` for no pictures.
        latents_out: the same for latents.

    Raises:
        ConfigError: two pictures have the same file, or a file name is not that of a PNG file.
    """
    found: list[Job] = []
    counts = [given.num_images if line.num_images is None else line.num_images for line in lines]
    if min(counts) < 1:
        raise ConfigError(f"--num-images {min(counts)}: expected at least 1.")
    total = sum(counts)
    if total > MOST_PICTURES:
        raise ConfigError(
            f"{len(lines)} prompts, {min(total, 10**30):.6g} pictures in all: expected at most {MOST_PICTURES} in "
            "one command. Check num_images, or split the prompts over several commands."
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
    """Path of one of several files: the given path if it is the only one, else with its number.

    Args:
        path: of a file, or of a folder (an existing one, or a name without suffix where files have one).
        number: counted from 1.
        total: number of files.
        suffix: of the files in a folder.
    """
    if path is None:
        return None
    if is_folder(path) or (suffix and not path.suffix):
        return path / f"{number:04}{suffix}"
    return path if total == 1 else path.with_name(f"{path.stem}-{number:04}{path.suffix}")


def is_folder(path: Path) -> bool:
    """Whether a folder exists; false for a name that no file can have, such as one that is too long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def check_suffix(option: str, path: Path, suffix: str) -> None:
    """Raises if a file name has the suffix of another format.

    Raises:
        ConfigError: it does not end in the suffix.
    """
    if path.suffix.lower() != suffix:
        raise ConfigError(f"{option} {path}: expected a name that ends in {suffix}, the only supported format.")


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
            raise ConfigError(
                f"{name} {twice[0]}: expected a different file for each picture, got this one for two of them. Change "
                "the names in the file of prompts."
            )
