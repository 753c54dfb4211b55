"""The parts of a pipeline, loaded from a model folder: transformer, text encoders, VAE."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fluxperf.budgets import Budget
from fluxperf.engine.checkpoints.checkpoint import Checkpoint
from fluxperf.engine.config import FluxConfig
from fluxperf.engine.device import open_device
from fluxperf.engine.device.base import Device
from fluxperf.engine.phases import phase_named
from fluxperf.errors import ConfigError, UnknownNameError
from fluxperf.harness.records import LoadRow
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.decoder import Decoder
from fluxperf.pipeline.folder import TEXT, TRANSFORMER, VAE, ModelFolder, check_fit, open_folder
from fluxperf.pipeline.libraries import library
from fluxperf.pipeline.text import T5Keeping, T5Precision, TextEncoders, check_t5
from fluxperf.workloads import WORKLOADS, Placed, placed

#: The highest rung in bfloat16.
BEST_RUNG = "captured"

#: Workload that a memory budget has to be enough for, without and with a guidance embedding.
_LARGEST = {False: "schnell-1024", True: "dev-1024"}

#: Of text encoders and VAE.
_DTYPES = ("float32", "bfloat16")


@dataclass
class Parts:
    """What a pipeline is made of. ``loads`` has bytes and seconds by part; those of ``ready`` are of all of it.

    ``dtype`` is that of text encoders and VAE. Parts that were not loaded are ``None``.
    """

    folder: ModelFolder
    transformer: Placed
    text: TextEncoders | None
    decoder: Decoder | None
    bridge: Bridge | None
    dtype: str
    loads: dict[str, LoadRow] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        """Where everything is."""
        return self.transformer.device

    @property
    def config(self) -> FluxConfig:
        """Sizes of the transformer."""
        return self.transformer.source.config

    def close(self) -> None:
        """Lets go of everything, and closes the device."""
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
            raise ConfigError("a tensor: expected a pipeline with text encoders or VAE, got one without PyTorch.")
        return self.bridge


def load_parts(
    path: Path,
    rung: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    t5: T5Keeping = "keep",
    t5_precision: T5Precision = "full",
    cache_prompts: int = 16,
    text_encoders: bool = True,
    vae: bool = True,
    nvtx: bool = False,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
    memory_gb: float | None = None,
) -> Parts:
    """The parts of a model folder, on a device; arguments are those of `Pipeline.from_pretrained`.

    Args:
        path: folder as diffusers saves it, with ``model_index.json``.
        rung: of the ladder; ``captured`` if none.
        device: ``auto``, ``host`` or ``cuda``.
        dtype: of text encoders and VAE, ``float32`` or ``bfloat16``; the rung's activations' if none.
        t5: ``keep`` it on the device, ``offload`` it to the host's memory between prompts, or ``free`` it and read it
            again for a prompt that is not known.
        t5_precision: ``full`` (of ``dtype``) or ``fp8`` (e4m3 with a scale per output channel).
        cache_prompts: embeddings that are kept.
        text_encoders: load them; without, calls need embeddings.
        vae: load it; without, calls give latents.
        nvtx: a range for every step, block and op; stages have theirs in any case.
        on_bytes: told of the bytes of transformer and T5 as they are read.
        memory_gb: budget of device memory for the transformer, for pictures of up to 1024 x 1024, one at a time;
            weights that do not fit are streamed. Text encoders and VAE are beside it.

    Raises:
        CheckpointError: the folder is none of FLUX.1, or not whole; everything that is wrong is in one message.
        DeviceError: a library of the extra ``pipeline`` is missing, or the device cannot.
        FluxperfError: an unknown rung or device, or one that does not run the other.
    """
    start = time.perf_counter()
    check_t5(t5, t5_precision)
    parts = (*TRANSFORMER, *(TEXT if text_encoders else ()), *(VAE if vae else ()))
    folder = open_folder(path, parts)
    opened = open_device(device)
    kept = _checked_dtype(dtype or phase_named(rung or BEST_RUNG).activations)
    bridge = Bridge(opened) if text_encoders or vae else None  # complains before gigabytes are read
    if text_encoders:
        library("transformers")
    if vae:
        library("diffusers")
    source = Checkpoint(folder.path)
    source.on_bytes = on_bytes
    check_fit(folder, source.config)
    budget = None if memory_gb is None else Budget(memory_gb, WORKLOADS[_LARGEST[source.config.guidance]].sizes)
    transformer = placed(rung or BEST_RUNG, source, opened, nvtx, budget)
    loads = {"transformer": transformer.load} if transformer.load else {}
    encoders = decoder = None
    if bridge is not None and text_encoders:
        with _timed(loads, "text_encoders", folder, TEXT[:2], opened):
            encoders = TextEncoders(folder, bridge, kept, cache_prompts, t5, t5_precision, on_bytes)
    if bridge is not None and vae:
        with _timed(loads, "vae", folder, VAE, opened):
            decoder = Decoder(folder, bridge, kept)
    whole = LoadRow(bytes=sum(row.bytes for row in loads.values()), time_s=time.perf_counter() - start)
    return Parts(folder, transformer, encoders, decoder, bridge, kept, {**loads, "ready": whole})


def load_encoders(
    path: Path,
    device: str = "auto",
    dtype: str = "bfloat16",
    t5_precision: T5Precision = "full",
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> tuple[TextEncoders, Bridge]:
    """The text encoders of a model folder alone, and PyTorch on their device; see `Pipeline.from_pretrained`."""
    folder = open_folder(path, TEXT)
    bridge = Bridge(open_device(device))
    encoders = TextEncoders(folder, bridge, _checked_dtype(dtype), 1, "keep", t5_precision, on_bytes)
    return encoders, bridge


def load_decoder(path: Path, device: str = "auto", dtype: str = "bfloat16") -> tuple[Decoder, Bridge]:
    """The VAE's decoder of a model folder alone, and PyTorch on its device; see `Pipeline.from_pretrained`."""
    folder = open_folder(path, VAE)
    bridge = Bridge(open_device(device))
    return Decoder(folder, bridge, _checked_dtype(dtype)), bridge


def _checked_dtype(name: str) -> str:
    if name not in _DTYPES:
        raise UnknownNameError("dtype", name, _DTYPES)
    return name


@contextmanager
def _timed(
    loads: dict[str, LoadRow], name: str, folder: ModelFolder, parts: Sequence[str], device: Device
) -> Iterator[None]:
    """Notes what loading a part took: bytes of its files, seconds until they are on the device."""
    nbytes = sum(file.stat().st_size for part in parts for file in (folder.path / part).glob("*.safetensors"))
    start = time.perf_counter()
    yield
    device.synchronize()
    loads[name] = LoadRow(bytes=nbytes, time_s=time.perf_counter() - start)
