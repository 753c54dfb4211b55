"""Model folders: which pipeline they belong to, whether they are the hub's cache, and which weights they hold."""

from __future__ import annotations

import re
from pathlib import Path

from fluxperf.engine.checkpoints.files import CACHED, COMMITS, is_file, read_json
from fluxperf.engine.checkpoints.strangers import told_by_class
from fluxperf.errors import CheckpointError

#: Diffusers pipelines with the transformer and the other parts of FLUX.1 schnell and dev.
_PIPELINES = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
_GONE = "is a link to a file that does not exist: its download did not finish"


def check_pipeline(path: Path) -> None:
    """Raises if a folder's ``model_index.json`` names another pipeline than FLUX.1's.

    Raises:
        CheckpointError: it names another pipeline; the message says which.
    """
    index = path / "model_index.json"
    if not is_file(index):
        return
    kind = str(read_json(index).get("_class_name", ""))
    if kind not in _PIPELINES:
        told = told_by_class(kind) or "another model"
        raise CheckpointError(
            f"{index}: expected a FluxPipeline (FLUX.1-schnell or FLUX.1-dev), got {kind or 'no class name'}: {told}."
        )


def check_no_cache(path: Path) -> None:
    """Raises if a folder is the hub's cache of models, or of the commits of one model, and suggests the right folder.

    Raises:
        CheckpointError: the folder is such a cache.
    """
    if path.name in (COMMITS, "blobs", "refs") and path.parent.name.startswith(CACHED):
        path = path.parent
    if models := sorted(item.name for item in path.iterdir() if item.name.startswith(CACHED)):
        names = ", ".join(name.removeprefix(CACHED).replace("--", "/") for name in models[:4])
        raise CheckpointError(
            f"{path}: expected a model folder, got the hub's cache with {names}. Give one of these models by its "
            "name, or the folder of one of its commits."
        )
    if not (path / COMMITS).is_dir():
        return
    commits = sorted(item.name for item in (path / COMMITS).iterdir() if item.is_dir())
    main = path / "refs" / "main"
    meant = main.read_text(encoding="utf-8", errors="replace").strip() if is_file(main) else ""
    hint = "its download did not finish, download it again"
    if meant in commits or len(commits) == 1:
        hint = f"give {path / COMMITS / (meant if meant in commits else commits[0])}"
    elif commits:
        hint = (
            "give the folder of one of its commits: "
            f"{', '.join(str(path / COMMITS / commit) for commit in commits[:4])}"
        )
    raise CheckpointError(f"{path}: expected a model folder, got the hub's cache folder of one model: {hint}.")


def without(folder: Path, single: Path) -> str:
    """The end of a message about a folder without the expected weights: what is there instead, or which file to give.

    Args:
        folder: where the weights should be.
        single: path of the weights if they were one file.
    """
    if single.is_symlink():
        return f", which {_GONE}"
    if single.exists():
        return ", which is not a file"
    names = sorted(item.name for item in folder.iterdir() if item.is_file() and item.name != "config.json")
    stem = single.name.split(".")[0]
    weights = [name for name in names if name.endswith((".safetensors", ".sft"))]
    variants = [name for name in weights if name.startswith(f"{stem}.")]
    if variants and (word := _word(variants[0], stem)):
        return f", but the variant {variants[0]}: select it (variant {word!r}), or download the main files"
    if any(name.startswith(f"{stem}-") for name in weights):
        return f", but shards without their index {stem}.safetensors.index.json: download the index too"
    if weights:
        which = "that file itself" if len(weights) == 1 else "one of these files itself"
        return f", but {', '.join(weights[:4])}: give {which} (run --weights, generate --transformer)"
    others = [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".onnx"))]
    if others:
        return f", but {others[0]}, which has another format: download the safetensors files"
    parts = [name for name in names if name.endswith((".incomplete", ".part", ".crdownload", ".aria2"))]
    if parts:
        return f", but {parts[0]}, a download that did not finish"
    return f" (it holds {', '.join(sorted(item.name for item in folder.iterdir())[:6]) or 'nothing'})"


def _word(name: str, stem: str) -> str:
    """Variant word in the name of a weight file or of a shard."""
    return re.sub(r"-\d+-of-\d+", "", name.removeprefix(f"{stem}.").removesuffix(".safetensors"))


def kind_of(folder: Path) -> str:
    """Class of the model that a folder's ``config.json`` names; "" if it names none."""
    config = folder / "config.json"
    settings = read_json(config) if is_file(config) else {}
    found = settings.get("_class_name") or settings.get("architectures") or ""
    return str(found[0] if isinstance(found, list) else found)
