"""Models by their names on the hub: found in the local cache first, downloaded where that does not have them.

huggingface_hub does both; its environment (``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN``, ``HF_HUB_OFFLINE``) holds.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluxperf.errors import CheckpointError, ConfigError, DeviceError
from fluxperf.installing import install_command
from fluxperf.pipeline.folder import open_folder

#: An organization and a model; a name of the hub has no other form.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: Ends of files' names; no model's name has one.
_FILES = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".bin")


def found(
    model: str | Path,
    parts: Sequence[str],
    revision: str | None = None,
    local_only: bool = False,
    variant: str | None = None,
) -> Path:
    """The folder of a model: a path that is there, or a snapshot in the hub's cache, downloaded where it must be.

    Args:
        model: path of a folder, or a name such as ``black-forest-labs/FLUX.1-schnell``.
        parts: subfolders that are needed; no other ones are downloaded.
        revision: branch, tag or commit of a name; ``main`` if none.
        local_only: look in the cache alone.
        variant: word in the names of the files that are wanted.

    Raises:
        ConfigError: a revision of a path.
        CheckpointError: the cache does not have it whole, and it cannot be downloaded; says why and what to do.
        DeviceError: huggingface_hub is not installed.
    """
    path, name = Path(model).expanduser(), str(model)
    # Beside a folder that is there, and of a file's kind, it is a path that was misspelt.
    if path.exists() or path.parent.is_dir() or path.suffix in _FILES or not _NAME.fullmatch(name):
        if revision is not None:
            raise ConfigError(
                f"revision {revision!r}: expected a model by its name on the hub, such as "
                f"black-forest-labs/FLUX.1-schnell, got the path {path}. Leave the revision out."
            )
        return path
    hub = _library()
    try:
        snapshot = Path(hub.snapshot_download(name, revision=revision, local_files_only=True))
        open_folder(snapshot, tuple(parts), variant)
        return snapshot
    except hub.errors.LocalEntryNotFoundError:
        missing = "the local cache does not have it"
    except CheckpointError as error:
        missing = f"what the local cache has of it is not whole: {error}"
    except ValueError as error:
        raise CheckpointError(f"{name}: expected a model's name on the hub, but {error}.") from error
    what = name if revision is None else f"{name}, revision {revision!r}"
    if local_only or hub.constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{what}: {missing}. Nothing is downloaded offline: get it with a network first (hf download {name}), or "
            "give a folder."
        )
    patterns = ["model_index.json", *(part if "/" in part else f"{part}/*{end}" for part in parts for end in _WANTED)]
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # of the hub, the network or the disk, by many libraries
        raise CheckpointError(f"{what}: {missing}, and {_why(hub, error, name)}") from error


#: Ends of the files that a part has. Single files of the whole model lie beside the parts and are left out.
_WANTED = (".json", ".safetensors", ".txt", ".model")


def _why(hub: Any, error: Exception, name: str) -> str:
    """Why a download failed, and what to do."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return (
            "it is gated: its license must be accepted on the model's page, and the token must be that of who accepted "
            "it. Then hf auth login, or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision. Check the name of the branch or tag, or give a whole commit hash."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or a private one. Check the name; for a private one hf auth login."
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"it cannot be downloaded ({first[:160]}). Check network and room on the disk, or get it elsewhere "
        f"(hf download {name}) and give the folder."
    )


def _library() -> Any:
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DeviceError(
            f"a model by its name: expected huggingface_hub, but it does not import ({error}). Install the extra "
            f"({install_command('pipeline')}), or give the model's folder."
        ) from error
