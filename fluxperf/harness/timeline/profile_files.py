"""The files of one profile: they appear together when all are complete, and replace existing files only on request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fluxperf.errors import ConfigError, RecordError
from fluxperf.files import place
from fluxperf.lifeline import scratch


class ProfileFiles(NamedTuple):
    """Paths of one profile: report and export of nsys, trace, and the ledger of the run."""

    report: Path
    export: Path
    trace: Path
    ledger: Path

    def there(self) -> list[Path]:
        """The paths that exist."""
        return [path for path in self if path.exists()]


def files_of(stem: Path) -> ProfileFiles:
    """Paths that begin with a folder and a name.

    Raises:
        ConfigError: the name is missing.
    """
    if not stem.name or stem.is_dir():
        raise ConfigError(
            f"profile --output {stem}: expected FOLDER/NAME, to which .nsys-rep, .sqlite, .json and .ledger.json "
            "are added, got a folder. Add a name."
        )
    return ProfileFiles(*(stem.with_name(stem.name + end) for end in (".nsys-rep", ".sqlite", ".json", ".ledger.json")))


@contextmanager
def staged(final: ProfileFiles, overwrite: bool) -> Iterator[ProfileFiles]:
    """Temporary paths in a folder beside the final ones. At the end the files are moved to their final paths.

    After an error nothing is left behind, and existing files are unchanged.

    Raises:
        ConfigError: one of the files exists.
        RecordError: the folder cannot be written to.
    """
    before = final.there()
    if before and not overwrite:
        raise ConfigError(
            f"profile: expected no file at {', '.join(map(str, before))}, but it exists. Choose another --output, "
            "or add --overwrite."
        )
    folder = final.trace.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch(".fluxperf-profile-", folder) as beside:
            made = ProfileFiles(*(beside / path.name for path in final))
            yield made
            for path, target in zip(made, final, strict=True):
                if path.exists():
                    place(path, target)
                else:
                    target.unlink(missing_ok=True)  # from an older profile
    except OSError as error:
        raise RecordError(
            f"profile: cannot write to {folder}: {error.strerror}. Expected a writable folder with space for the "
            "capture. Choose another --output."
        ) from error
