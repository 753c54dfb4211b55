"""The folder of a FLUX.1 model as diffusers saves it: found, checked whole before anything is loaded, and described.

Files are judged by their beginnings and headers; complaints come all together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.files import model_name, read_json
from fluxperf.engine.checkpoints.folders import check_no_cache, check_pipeline, kind_of, without
from fluxperf.engine.config import FluxConfig
from fluxperf.errors import CheckpointError
from fluxperf.pipeline import contents
from fluxperf.pipeline.contents import Unfit, short

#: Parts that generation from stored embeddings needs, and those that text and pictures need besides.
TRANSFORMER = ("transformer", "scheduler")
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
VAE = ("vae",)

_WHOSE = "the folder or the name of its model, whose tokenizers and configs are needed too"


@dataclass(frozen=True)
class ModelFolder:
    """A folder that has been checked.

    ``shifted`` says whether the sampler shifts its noise levels with the size of the picture (dev) or not (schnell);
    ``shift`` is what it shifts them by whatever the size, where it does not.
    """

    path: Path
    parts: tuple[str, ...]
    shifted: bool
    shift: float = 1.0
    variant: str | None = None

    @property
    def name(self) -> str:
        """Name for metadata and records: the folder's, or model and revision of a folder in the hub's cache."""
        return model_name(self.path)


def open_folder(
    path: Path, parts: tuple[str, ...] = (*TRANSFORMER, *TEXT, *VAE), variant: str | None = None
) -> ModelFolder:
    """The model folder at a path.

    Args:
        path: of the folder that holds ``model_index.json``.
        parts: subfolders that will be read; of ``"vae/config.json"`` and the like that file alone.
        variant: word in the names of their files, such as ``fp16``; parts without such files have their plain ones.

    Raises:
        CheckpointError: it is none, is another model's, or lacks something; everything that is wrong is in one message.
    """
    path = path.expanduser()
    if not path.is_dir():
        raise CheckpointError(_no_folder(path))
    _check_kind(path)
    problems = [problem for part in parts for problem in _part_problems(path, part, variant)]
    shifted, shift = False, 1.0
    if "scheduler" in parts and not any(problem.startswith("scheduler") for problem in problems):
        shifted, shift, complaints = _schedule(path / "scheduler" / "scheduler_config.json")
        problems += complaints
    if problems:
        more = f"\n  - and {len(problems) - 8} more" if len(problems) > 8 else ""
        listed = "\n  - ".join(["", *problems[:8]])
        how = "" if all(isinstance(problem, Unfit) for problem in problems) else f"\n{_how_to_get(path)}"
        raise CheckpointError(f"{path}: expected a complete FLUX.1 model folder, but:{listed}{more}{how}")
    return ModelFolder(path.resolve(), parts, shifted, shift, variant)


def check_fit(folder: ModelFolder, config: FluxConfig) -> None:
    """Complains about parts that belong to different models.

    Args:
        folder: checked.
        config: of its transformer.

    Raises:
        CheckpointError: a size that two of them share is not the same.
    """
    shared = (
        ("text_encoder", "hidden_size", 1, config.pooled_dim, "pooled_projection_dim"),
        ("text_encoder_2", "d_model", 1, config.text_dim, "joint_attention_dim"),
        ("vae", "latent_channels", 4, config.in_channels, "in_channels"),
    )
    for part, key, factor, expected, name in shared:
        there = not {part, f"{part}/config.json"}.isdisjoint(folder.parts)
        found = read_json(folder.path / part / "config.json").get(key) if there else None
        if found is not None and factor * found != expected:
            times = f" (times {factor}, a patch)" if factor > 1 else ""
            raise CheckpointError(
                f"{folder.path}: expected parts of one model, but {part}/config.json has {key} {found}{times} and the "
                f"transformer {name} {expected}. {_how_to_get(folder.path)}"
            )


def _no_folder(path: Path) -> str:
    if path.is_file():
        Checkpoint(path)  # complains, by name, about what is no transformer at all
        return (
            f"{path}: expected a diffusers model folder with model_index.json, got a file. Measure it with `fluxperf "
            f"run --weights {path}`; for pictures give it as --transformer beside --model, {_WHOSE}."
        )
    text = f"{path}: expected a diffusers model folder, found nothing there."
    if path.parts and path.parts[0].endswith(":"):
        first = 2 if path.parts[0].startswith("http") else 1
        model = "/".join(path.parts[first : first + 2])
        return f"{text} It seems to be an address: give the model's name on the hub{f' ({model})' if model else ''}."
    if len(path.parts) == 3 and path.suffix == ".safetensors" and not path.is_absolute():
        model, file = "/".join(path.parts[:2]), path.name
        text += f" If it is a file on the hub: hf download {model} {file}, and give it as --transformer, with --model."
    if len(path.parts) == 2 and not path.is_absolute():
        text += f" If it is a name on the hub: hf download {path} --local-dir {path.name}, and give that folder."
    return text


def _check_kind(path: Path) -> None:
    """Complains about a folder that is of another kind altogether."""
    check_no_cache(path)
    index = path / "model_index.json"
    if not index.is_file():
        raise CheckpointError(_no_index(path, index))
    check_pipeline(path)


def _no_index(path: Path, index: Path) -> str:
    if kind := kind_of(path):
        hint = (
            f"give {path.parent}" if (path.parent / index.name).is_file() else "give the folder of the whole pipeline"
        )
        return f"{path}: expected {index.name}, got the folder of {kind} alone; {hint}."
    if (path.parent / index.name).is_file():
        return f"{path}: expected {index.name}, got a part of a model; give {path.parent}."
    text = f"{path}: expected a diffusers model folder, found no {index.name}{without(path, index)}."
    single = any(path.glob("*.safetensors"))
    return f"{text} Beside it --model is needed, {_WHOSE}." if single else f"{text} {_how_to_get(path)}"


def _how_to_get(path: Path) -> str:
    return (
        "Download it whole again. A gated model asks for its license to be accepted first, on its page; then "
        f"hf auth login, and hf download MODEL --local-dir {path}. After git clone: git lfs pull."
    )


def _part_problems(path: Path, part: str, variant: str | None) -> Iterator[str]:
    folder = path / part
    if part.endswith("/config.json"):
        yield from contents.config_problems(folder)
    elif not folder.is_dir():
        yield f"{part}/ is missing"
    elif part == "scheduler":
        if not (folder / "scheduler_config.json").is_file():
            yield "scheduler/scheduler_config.json is missing"
    elif part.startswith("tokenizer"):
        yield from contents.tokenizer_problems(folder)
    else:
        yield from contents.model_problems(folder, variant)


#: Settings of the scheduler that change its noise levels, and the values that the sampler has.
_SCHEDULE = {
    "num_train_timesteps": 1000,
    "time_shift_type": "exponential",
    "invert_sigmas": False,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
    "use_karras_sigmas": False,
}
#: No model has a shift near it: all noise levels would be the first one.
_MOST_SHIFT = 1e6
_SHIFTED = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}


def _schedule(path: Path) -> tuple[bool, float, list[str]]:
    """Whether noise levels are shifted with the size, by how much otherwise, and what the sampler does not do."""
    settings = read_json(path)
    kind = settings.get("_class_name", "FlowMatchEulerDiscreteScheduler")
    if kind != "FlowMatchEulerDiscreteScheduler":
        return False, 1.0, [Unfit(f"scheduler is a {kind}, expected FlowMatchEulerDiscreteScheduler")]
    shifted = bool(settings.get("use_dynamic_shifting", False))
    expected: Mapping[str, Any] = {**_SCHEDULE, **(_SHIFTED if shifted else {})}
    shift = 1.0 if shifted else settings.get("shift", 1.0)
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not 0 < shift < _MOST_SHIFT:
        wanted = f"a number above 0 and below {_MOST_SHIFT:g}"
        return shifted, 1.0, [Unfit(f"scheduler_config.json: shift is {short(shift)}, expected {wanted}")]
    return (
        shifted,
        float(shift),
        [
            Unfit(f"scheduler_config.json: {key} is {short(settings[key])}, expected {value!r} as FLUX.1 has it")
            for key, value in expected.items()
            if key in settings and settings[key] != value
        ],
    )
