"""Checks the subfolders of a model folder: whether weights are complete and belong to a supported model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fluxperf.engine.checkpoints.beginnings import not_whole, told_as_weights, told_by_start
from fluxperf.engine.checkpoints.files import is_file, weights_in
from fluxperf.engine.checkpoints.folders import without
from fluxperf.engine.checkpoints.strangers import told_by_channels, told_by_class, told_method

#: Classes that a part of FLUX.1 may have, by subfolder: its own, and larger models that contain it.
_CLASSES = {
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPModel"),
    "text_encoder_2": ("T5EncoderModel", "T5ForConditionalGeneration", "T5Model"),
}

#: Upper bounds of any whole number in a config and of any part's layers. T5-XXL's largest number is its vocabulary of
#: 32128.
_MOST, _MOST_LAYERS = 1 << 20, 1 << 10

#: Number of entries of a VAE's ``block_out_channels``: each after the first halves the sides of a picture.
_VAE_BLOCKS = 4


class Unfit(str):
    """A problem of a folder that downloading it again does not solve."""


def short(value: object) -> str:
    """A setting, shortened for a message, as a file may hold a number with thousands of digits."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}.."


def model_problems(folder: Path, variant: str | None = None) -> Iterator[str]:
    """Problems of a subfolder of weights, one sentence each; of a variant if the subfolder has files of it."""
    name = folder.name
    yield from config_problems(folder / "config.json")
    if isinstance(_settings(folder / "config.json"), str):
        return
    stem = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
    yield from _file_problems(folder, stem, variant)


def config_problems(path: Path) -> Iterator[str]:
    """Problems of a subfolder's ``config.json``, one sentence each."""
    settings = _settings(path)
    if isinstance(settings, str):
        yield f"{path.parent.name}/config.json {settings}"
    else:
        yield from _setting_problems(path.parent.name, settings)


def tokenizer_problems(folder: Path) -> Iterator[str]:
    """Problems of a tokenizer's subfolder."""
    if folder.name == "tokenizer":
        whole, parts = "tokenizer.json", ("vocab.json", "merges.txt")
        there = (folder / whole).is_file() or all((folder / part).is_file() for part in parts)
        wanted = f"{whole}, or {' and '.join(parts)}"
    else:
        there = any((folder / file).is_file() for file in ("tokenizer.json", "spiece.model"))
        wanted = "tokenizer.json or spiece.model"
    if not there:
        yield f"{folder.name}/ has no {wanted}"
    if not (folder / "tokenizer_config.json").is_file():
        yield f"{folder.name}/ has no tokenizer_config.json"
    for file in sorted(folder.iterdir()):
        if file.is_file() and (told := told_by_start(file)):
            yield f"{folder.name}/{file.name} is {told}"


def _settings(path: Path) -> Mapping[str, Any] | str:
    """Content of a ``config.json``, or a sentence with its problem."""
    if not path.is_file():
        return "is missing"
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return f"is {told_by_start(path) or 'not JSON'}"
    return value if isinstance(value, dict) else "is not a JSON object"


def _setting_problems(name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    yield from _size_problems(name, settings)
    kind = _class(name, settings)
    if kind not in _CLASSES[name]:
        told = told_by_class(kind)
        told = told if name == "transformer" or "architecture" in told else ""
        yield Unfit(f"{name}/ has {kind}{f': {told}' if told else ''}; expected {_CLASSES[name][0]}")
        return
    if quantized := settings.get("quantization_config"):
        yield Unfit(f"{name}/: expected unquantized weights, {told_method(quantized)}")
    if name == "transformer" and (told := told_by_channels(channels := settings.get("in_channels"))):
        yield Unfit(f"transformer/ takes {channels} channels, expected 64: {told}")
    if name == "vae":
        yield from _vae_problems(settings)


def _class(name: str, settings: Mapping[str, Any]) -> str:
    """Class that a ``config.json`` names; the part's own class if it names none."""
    found = settings.get("_class_name") or settings.get("architectures") or _CLASSES[name][0]
    return str(found[0] if isinstance(found, list) else found)


def _size_problems(name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Sizes beyond those of any such model. A library would need excessive memory or time for them."""
    for key, value in settings.items():
        most = _MOST_LAYERS if "layers" in key else _MOST
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and not isinstance(one, bool) and abs(one) > most:
                yield Unfit(f"{name}/config.json: {key} is {short(one)}, expected at most {most}")


def _vae_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    blocks = settings.get("block_out_channels")
    if isinstance(blocks, list) and len(blocks) != _VAE_BLOCKS:
        yield Unfit(f"vae/config.json: block_out_channels has {len(blocks)} entries, expected {_VAE_BLOCKS}")
    for key in ("scaling_factor", "shift_factor"):
        value = settings.get(key)
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        if value is not None and not (number and (value or key == "shift_factor")):
            yield Unfit(f"vae/config.json: {key} is {short(value)}, expected a finite number")


def _file_problems(folder: Path, stem: str, variant: str | None) -> Iterator[str]:
    """Problems of the safetensors files of a subfolder."""
    single, index = weights_in(folder, stem, variant)
    if index.is_file():
        value = _settings(index)
        names = {} if isinstance(value, str) else value.get("weight_map")
        if not isinstance(names, dict) or not names:
            problem = value if isinstance(value, str) else "has no 'weight_map'"
            yield f"{folder.name}/{index.name} {problem}"
            return
        files = sorted({str(file) for file in names.values()})
        outside = [file for file in files if Path(file).name != file]
        if outside:
            yield f"{folder.name}/{index.name} names {outside[0]!r}, expected names of files in the same folder"
            return
        missing = [file for file in files if not is_file(folder / file)]
        if missing:
            yield f"{folder.name}/ lacks {len(missing)} of {len(files)} shards: {', '.join(missing[:4])}"
        files = [file for file in files if file not in missing]
    elif single.is_file():
        files = [single.name]
    else:
        yield f"{folder.name}/ has no {single.name}{without(folder, single)}"
        return
    for file in files:
        told = told_as_weights(folder / file)
        if problem := f"is {told}" if told else not_whole(folder / file):
            yield f"{folder.name}/{file} {problem}"
