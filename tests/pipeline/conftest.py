"""Tiny FLUX.1 pipelines saved by diffusers, its pictures of them, and fluxperf's on the host device."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from fluxperf.engine.config import config_named

if TYPE_CHECKING:
    from fluxperf import Pipeline

PROMPTS = ("a red fox in the snow", "Grüße: two cats & a teapot!")
#: Non-square, and with small extents.
HOW = {"height": 64, "width": 96, "num_inference_steps": 4, "max_sequence_length": 48}


class Saved(NamedTuple):
    """A pipeline that diffusers saved, and its own run of it in float32."""

    folder: Path
    pipeline: Any

    def pictures(self, **arguments: Any) -> np.ndarray:
        """Pictures [B, H, W, 3] as signed integers."""
        images = self.pipeline(list(PROMPTS), output_type="pil", **{**HOW, **arguments}).images
        return np.stack([np.asarray(image) for image in images]).astype(int)


def as_pictures(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).astype(int)


def psnr(picture: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal to noise ratio in dB."""
    return 10 * np.log10(255**2 / max(np.square(picture - reference).mean(), 1e-9))


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Saved]:
    """Pipelines of the sizes of ``tiny``, without (schnell) and with a guidance embedding (dev)."""
    for module in ("torch", "diffusers", "transformers"):
        pytest.importorskip(module, reason=f"compares with diffusers; {module} is in the test extra")
    import diffusers
    import torch
    import transformers

    from benchmarks.flux_folder import TINY, write

    torch.set_num_threads(1)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    made = {}
    for name, model in (("schnell", "tiny"), ("dev", "tiny-dev")):
        drawn = write(tmp_path_factory.mktemp("drawn") / name, config_named(model), TINY, torch.float32)
        pipeline = diffusers.FluxPipeline.from_pretrained(drawn, low_cpu_mem_usage=False)
        pipeline.set_progress_bar_config(disable=True)
        folder = tmp_path_factory.mktemp("saved") / f"FLUX.1-{name}"
        pipeline.save_pretrained(folder)
        made[name] = Saved(folder, pipeline)
    return made


@pytest.fixture(scope="session")
def pipeline_of(saved: dict[str, Saved]) -> Iterator[Callable[..., Pipeline]]:
    """fluxperf's pipeline of a model at a rung; made once per worker."""
    from fluxperf import Pipeline

    made: dict[tuple[Any, ...], Pipeline] = {}

    def pipeline(model: str, rung: str, **options: Any) -> Pipeline:
        key = (model, rung, *sorted(options.items()))
        if key not in made:
            made[key] = Pipeline.from_pretrained(saved[model].folder, rung=rung, device="host", **options)
        return made[key]

    yield pipeline
    for one in made.values():
        one.close()


def opened(data: bytes) -> Any:
    """A picture as Pillow reads it."""
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    image.load()
    return image
