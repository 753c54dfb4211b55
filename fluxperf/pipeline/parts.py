"""Loads the parts of a pipeline from a model folder: transformer, text encoders, VAE."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fluxperf.budgets import Budget
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device import open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.phases import phase_named
from fluxperf.errors import BindError, ConfigError, UnknownNameError
from fluxperf.harness.records import LoadRow
from fluxperf.pipeline import modules
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.decoder import Decoder
from fluxperf.pipeline.folder import TEXT, TRANSFORMER, VAE, ModelFolder, check_fit, open_folder
from fluxperf.pipeline.modules import plan
from fluxperf.pipeline.single import SingleFile, parts_from
from fluxperf.pipeline.text import T5Precision, TextEncoders, TextOptions, plan_text
from fluxperf.workloads import WORKLOADS, Placed, obstacles, placed

#: The highest rung in bfloat16.
BEST_RUNG = "captured"

#: Workloads that fit a memory budget by definition: without and with a guidance embedding.
_LARGEST = {False: "schnell-1024", True: "dev-1024"}

#: dtypes of text encoders and VAE.
_DTYPES = ("float32", "bfloat16")


@dataclass
class Parts:
    """The parts of a pipeline. ``loads`` has bytes and seconds by part; ``ready`` is the row for all of them.

    ``dtype`` is that of text encoders and VAE. A part that was not loaded is ``None``.
    """

    folder: ModelFolder
    transformer: Placed
    text: TextEncoders | None
    decoder: Decoder | None
    bridge: Bridge | None
    dtype: str
    loads: dict[str, LoadRow] = field(default_factory=dict)
    #: The transformer's file and the other parts that it holds; ``None`` if the weights are the folder's.
    single: SingleFile | None = None

    @property
    def device(self) -> Device:
        """The device with all parts."""
        return self.transformer.device

    @property
    def config(self) -> FluxConfig:
        """Sizes of the transformer."""
        return self.transformer.source.config

    def close(self) -> None:
        """Releases everything, and closes the device."""
        self.text = self.decoder = self.bridge = None
        self.transformer.close()

    def encoders(self) -> TextEncoders:
        """The text encoders.

        Raises:
            ConfigError: they were not loaded.
        """
        if self.text is None:
            raise ConfigError(
                "a prompt: expected a pipeline with text encoders, got one without. Make it with text_encoders=True, "
                "or give prompt_embeds and pooled_prompt_embeds."
            )
        return self.text

    def vae(self) -> Decoder:
        """The decoder.

        Raises:
            ConfigError: it was not loaded.
        """
        if self.decoder is None:
            raise ConfigError(
                "a picture: expected a pipeline with a VAE, got one without. Make it with vae=True, or ask for latents "
                "(output_type='latent')."
            )
        return self.decoder

    def torch(self) -> Bridge:
        """PyTorch on the device.

        Raises:
            ConfigError: nothing of it was loaded.
        """
        if self.bridge is None:
            raise ConfigError(
                "a tensor: expected a pipeline with text encoders or VAE, got one without PyTorch. "
                "Make it with text_encoders=True or vae=True, or give NumPy arrays."
            )
        return self.bridge


class TransformerOptions(NamedTuple):
    """How the transformer runs.

    ``nvtx``: push a range for every step, block and op. ``memory_gb``: budget of device memory. ``single``: a file
    whose weights replace the folder's, with the other parts that it holds.
    """

    rung: str = BEST_RUNG
    nvtx: bool = False
    memory_gb: float | None = None
    single: SingleFile | None = None


def needed(text: bool, vae: bool, single: SingleFile | None = None) -> tuple[str, ...]:
    """Subfolders that a pipeline needs, with or without text encoders and VAE."""
    return parts_from(single, (*TRANSFORMER, *(TEXT if text else ()), *(VAE if vae else ())))


def load_parts(
    path: Path,
    device: str,
    dtype: str | None,
    transformer: TransformerOptions,
    text: TextOptions | None,
    vae: bool,
    on_bytes: Callable[[int], None],
    variant: str | None = None,
) -> Parts:
    """The parts of a model folder, on a device; `Pipeline.from_pretrained` describes the arguments in more detail.

    Args:
        path: folder in diffusers' layout.
        device: kind of device.
        dtype: of text encoders and VAE; that of the rung's activations if ``None``.
        transformer: how it runs.
        text: how prompts are encoded; no text encoders if ``None``.
        vae: whether to load the VAE.
        on_bytes: called with the number of bytes of transformer and T5 as they are read.
        variant: word in the folder's file names.

    Raises:
        FluxperfError: as `Pipeline.from_pretrained`.
    """
    start = time.perf_counter()
    single = transformer.single
    folder = open_folder(path, needed(bool(text), vae, single), variant)
    opened = open_device(device)
    phase = phase_named(transformer.rung)
    if problems := obstacles(phase, opened.kind):
        raise BindError(phase.name, opened.kind, problems)
    kept = _checked_dtype(dtype or phase.activations)
    bridge = Bridge(opened) if text or vae else None
    # All parts are checked before gigabytes are read, and the small parts are read first.
    source = Checkpoint(folder.path, variant) if single is None else Checkpoint(single.path)
    source.on_bytes = on_bytes
    check_fit(folder, source.config)
    text_plan = plan_text(folder, single) if text else None
    vae_plan = plan(folder.path / "vae", modules.VAE, variant, single) if vae else None
    sizes, memory_gb = WORKLOADS[_LARGEST[source.config.guidance]].sizes, transformer.memory_gb
    budget = None if memory_gb is None else Budget(memory_gb, sizes)
    loads: dict[str, LoadRow] = {}
    encoders = decoder = None
    if bridge is not None and vae_plan is not None:
        with _timed(loads, "vae", vae_plan.stored_bytes, opened):
            decoder = Decoder(vae_plan, bridge, kept)
    if bridge is not None and text is not None and text_plan is not None:
        with _timed(loads, "text_encoders", text_plan.clip.stored_bytes + text_plan.t5.stored_bytes, opened):
            encoders = TextEncoders(text_plan, bridge, kept, text, on_bytes)
    denoiser = placed(phase.name, source, opened, transformer.nvtx, budget)
    if denoiser.load:
        loads["transformer"] = denoiser.load
    loads = {name: loads[name] for name in ("transformer", "text_encoders", "vae") if name in loads}
    whole = LoadRow(bytes=sum(row.bytes for row in loads.values()), time_s=time.perf_counter() - start)
    return Parts(folder, denoiser, encoders, decoder, bridge, kept, {**loads, "ready": whole}, single)


def load_encoders(
    path: Path,
    device: str = "auto",
    dtype: str = "bfloat16",
    t5_precision: T5Precision = "full",
    on_bytes: Callable[[int], None] = lambda nbytes: None,
    variant: str | None = None,
    single: SingleFile | None = None,
) -> tuple[TextEncoders, Bridge]:
    """Only the text encoders of a model folder, and PyTorch on their device; see `Pipeline.from_pretrained`."""
    folder = open_folder(path, parts_from(single, TEXT), variant)
    bridge = Bridge(open_device(device))
    encoders = TextEncoders(
        plan_text(folder, single), bridge, _checked_dtype(dtype), TextOptions("keep", t5_precision, 1), on_bytes
    )
    return encoders, bridge


def load_decoder(
    path: Path,
    device: str = "auto",
    dtype: str = "bfloat16",
    variant: str | None = None,
    single: SingleFile | None = None,
) -> tuple[Decoder, Bridge]:
    """Only the VAE's decoder of a model folder, and PyTorch on its device; see `Pipeline.from_pretrained`."""
    folder = open_folder(path, parts_from(single, VAE), variant)
    bridge = Bridge(open_device(device))
    return Decoder(plan(folder.path / "vae", modules.VAE, variant, single), bridge, _checked_dtype(dtype)), bridge


def _checked_dtype(name: str) -> str:
    if name not in _DTYPES:
        raise UnknownNameError("dtype", name, _DTYPES)
    return name


@contextmanager
def _timed(loads: dict[str, LoadRow], name: str, nbytes: int, device: Device) -> Iterator[None]:
    """Records a part's loading: bytes of its tensors, and seconds until they are on the device."""
    start = time.perf_counter()
    yield
    device.synchronize()
    loads[name] = LoadRow(bytes=nbytes, time_s=time.perf_counter() - start)
