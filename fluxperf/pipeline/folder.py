"""A FLUX.1 model folder in diffusers' layout: found, checked completely before anything is loaded, and described.

The check reads only headers and the first bytes of files. One message lists all problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.checkpoints.files import model_name, read_json
from fluxperf.engine.checkpoints.folders import check_no_cache, check_pipeline, kind_of, without
from fluxperf.engine.config import FluxConfig
from fluxperf.errors import CheckpointError
from fluxperf.pipeline import contents
from fluxperf.pipeline.contents import Unfit, short

#: Parts that generation from stored embeddings needs; and those that text and pictures need in addition.
TRANSFORMER = ("transformer", "scheduler")
TEXT = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
VAE = ("vae",)

#: Names on the hub of the models that have pipelines, by their last part in lower case.
_ON_HUB = {f"flux.1-{kind}": f"black-forest-labs/FLUX.1-{kind}" for kind in ("schnell", "dev")}

_FORMS = (
    "Give a model's name on the hub, such as black-forest-labs/FLUX.1-schnell, or the path of a folder that contains "
    "model_index.json."
)

_WHOSE = "the folder or the name of its model, because its tokenizers and configs are needed too"


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that has been checked.

    ``shifted`` says whether the noise levels are shifted with the size of the picture (dev) or not (schnell). If not,
    ``shift`` is their fixed shift.
    """

    path: Path
    parts: tuple[str, ...]
    shifted: bool
    shift: float = 1.0
    variant: str | None = None

    @property
    def name(self) -> str:
        """Name for metadata and records: the folder's name, or model and commit of a folder in the hub's cache."""
        return model_name(self.path)


def open_folder(
    path: Path, parts: tuple[str, ...] = (*TRANSFORMER, *TEXT, *VAE), variant: str | None = None
) -> ModelFolder:
    """The model folder at a path.

    Args:
        path: of the folder that holds ``model_index.json``.
        parts: subfolders that will be read. An entry such as ``"vae/config.json"`` stands for that file only.
        variant: word in the file names, such as ``fp16``. Parts without files of this variant use their plain files.

    Raises:
        CheckpointError: it is not a model folder, is of another model or incomplete; one message lists all problems.
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
    """Raises if the parts of a folder belong to different models.

    Args:
        folder: checked.
        config: of its transformer.

    Raises:
        CheckpointError: a size that must be equal in two parts differs.
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
        Checkpoint(path)  # raises a specific error for a file that is not a transformer
        return (
            f"{path}: expected a diffusers model folder with model_index.json, got a file. Measure the file with "
            f"`fluxperf run --weights {path}`; for pictures give it as --transformer together with --model, {_WHOSE}."
        )
    text = f"{path}: expected a diffusers model folder, but there is nothing at this path."
    if path.parts and path.parts[0].endswith(":"):
        first = 2 if path.parts[0].startswith("http") else 1
        model = "/".join(path.parts[first : first + 2])
        return f"{text} It looks like an address: give the model's name on the hub{(f' ({model})' if model else '')}."
    if len(path.parts) == 3 and path.suffix == ".safetensors" and not path.is_absolute():
        model, file = "/".join(path.parts[:2]), path.name
        text += (
            f" If it is a file on the hub: hf download {model} {file}, then give it as --transformer, together "
            "with --model."
        )
    close = get_close_matches(path.name.lower(), _ON_HUB, n=1)
    if close and path.as_posix() != _ON_HUB[close[0]]:
        return (
            f"{text} Did you mean {_ON_HUB[close[0]]}, the model's name on the hub? For a model on this machine give "
            "the path of the folder that contains model_index.json."
        )
    if len(path.parts) == 2 and not path.is_absolute():
        text += f" If it is a name on the hub: hf download {path} --local-dir {path.name}, then give that folder."
    return f"{text} {_FORMS}" if len(path.parts) == 1 else text


def _check_kind(path: Path) -> None:
    """Raises for a folder that is not a whole pipeline, but a part or another model."""
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
        return f"{path}: expected {index.name}, got only the folder of {kind}; {hint}."
    if (path.parent / index.name).is_file():
        return f"{path}: expected {index.name}, got a part of a model; give {path.parent}."
    text = f"{path}: expected a diffusers model folder, found no {index.name}{without(path, index)}."
    single = any(path.glob("*.safetensors"))
    return f"{text} In addition --model is needed, {_WHOSE}." if single else f"{text} {_how_to_get(path)}"


def _how_to_get(path: Path) -> str:
    return (
        "Download the whole folder again. For a gated model accept its license on its page first; then hf auth "
        f"login, and hf download MODEL --local-dir {path}. After git clone: git lfs pull."
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


#: Scheduler settings that change the noise levels, and the values that the sampler supports.
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
#: Upper bound of the shift. Above it all noise levels would be almost the first one; no model comes near.
_MOST_SHIFT = 1e6
_SHIFTED = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}


def _schedule(path: Path) -> tuple[bool, float, list[str]]:
    """Whether noise levels are shifted with the size, the fixed shift if not, and sentences on unsupported settings."""
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
            Unfit(f"scheduler_config.json: {key} is {short(settings[key])}, expected {value!r} as in FLUX.1")
            for key, value in expected.items()
            if key in settings and settings[key] != value
        ],
    )
