"""Models by their hub names: looked up in the local cache first, and downloaded if they are not there.

huggingface_hub does both, so its environment variables apply (``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN``,
``HF_HUB_OFFLINE``).
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

#: Pattern of a hub name: an organization and a model.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: File suffixes, which no model name has.
_FILES = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".bin")


def found(
    model: str | Path,
    parts: Sequence[str],
    revision: str | None = None,
    local_only: bool = False,
    variant: str | None = None,
) -> Path:
    """The folder of a model: an existing path, or a snapshot in the hub's cache, which is downloaded if necessary.

    Args:
        model: path of a folder, or a name such as ``black-forest-labs/FLUX.1-schnell``.
        parts: subfolders that are needed; only these are downloaded.
        revision: branch, tag or commit of a name; ``main`` if ``None``.
        local_only: use only the cache.
        variant: word in the file names.

    Raises:
        ConfigError: a revision was given for a path.
        CheckpointError: the cache does not have the whole model, and it cannot be downloaded; the message says why.
        DeviceError: huggingface_hub is not installed.
    """
    path, name = Path(model).expanduser(), str(model)
    # If its parent folder exists, or it has a file suffix, it is a misspelt path and not a hub name.
    if path.exists() or path.parent.is_dir() or path.suffix in _FILES or not _NAME.fullmatch(name):
        if revision is not None:
            raise ConfigError(
                f"revision {revision!r}: expected a model name on the hub, such as black-forest-labs/FLUX.1-schnell, "
                f"got the path {path}. Leave the revision out."
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
        missing = f"the model in the local cache is incomplete: {error}"
    except ValueError as error:
        raise CheckpointError(f"{name}: expected a model's name on the hub, but {error}.") from error
    what = name if revision is None else f"{name}, revision {revision!r}"
    if local_only or hub.constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"{what}: {missing}. Downloads are off (offline): download it where there is a network (hf download "
            f"{name}), or give a folder."
        )
    patterns = ["model_index.json", *(part if "/" in part else f"{part}/*{end}" for part in parts for end in _WANTED)]
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # errors of the hub, the network or the disk, from many libraries
        raise CheckpointError(f"{what}: {missing}, and {_why(hub, error, name)}") from error


#: Suffixes of a part's files. Single-file checkpoints next to the parts are not downloaded.
_WANTED = (".json", ".safetensors", ".txt", ".model")


def _why(hub: Any, error: Exception, name: str) -> str:
    """Why a download failed, and what to do."""
    errors = hub.errors
    if isinstance(error, errors.GatedRepoError):
        return (
            "it is gated: accept its license on the model's page, with the account that the token belongs to. Then "
            "run hf auth login, or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return "the hub has no such revision. Check the branch or tag, or give a full commit hash."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the hub has no such model, or it is private. Check the name; for a private model run hf auth login."
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"it cannot be downloaded ({first[:160]}). Check the network and the free space on the disk, or download it "
        f"elsewhere (hf download {name}) and give the folder."
    )


def _library() -> Any:
    try:
        importlib.import_module("huggingface_hub.errors")
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise DeviceError(
            f"a model name: expected huggingface_hub, but it cannot be imported ({error}). Install the extra "
            f"({install_command('pipeline')}), or give the model's folder."
        ) from error
