"""The libraries of the extra ``pipeline``. Each is imported only here, and only when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fluxperf.errors import DeviceError
from fluxperf.installing import install_command

_NEEDED_FOR = {
    "torch": "text encoders, VAE and noise",
    "transformers": "text encoders",
    "diffusers": "the VAE",
    "PIL": "output_type 'pil'",
}


def library(name: str) -> Any:
    """A library of the extra, imported.

    Args:
        name: ``torch``, ``transformers``, ``diffusers`` or ``PIL``.

    Raises:
        DeviceError: the import fails; the message names the extra, and what works without it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DeviceError(
            f"{_NEEDED_FOR[name]}: expected {name}, but it cannot be imported ({error}). Install the extra: "
            f"{install_command('pipeline')} (add cuda12 or cuda13 in the same brackets to get PyTorch for that CUDA "
            "version). Without it the transformer still runs: fluxperf generate --embeddings FILE --latents-out FILE."
        ) from error


@contextmanager
def quiet(name: str) -> Iterator[Any]:
    """A region in which transformers or diffusers prints only errors, and no progress bars.

    Args:
        name: of the library, which is passed to the region.

    Raises:
        DeviceError: the import fails.
    """
    module = library(name)
    talk = importlib.import_module(f"{name}.utils.logging")
    level, bars = talk.get_verbosity(), talk.is_progress_bar_enabled()
    talk.set_verbosity_error()
    talk.disable_progress_bar()
    try:
        yield module
    finally:
        talk.set_verbosity(level)
        if bars:
            talk.enable_progress_bar()


def torch_device(kind: str, ordinal: int) -> Any:
    """A device in PyTorch's terms.

    Args:
        kind: ``host`` or ``cuda``.
        ordinal: index of the GPU.

    Raises:
        DeviceError: PyTorch is not installed, or does not see the GPU.
    """
    torch = library("torch")
    if kind == "host":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError(
            f"text encoders and VAE: expected a PyTorch that sees the GPU, but torch {torch.__version__} does not. "
            "Install the build for the driver's CUDA version (`fluxperf doctor`), or use --device host."
        )
    return torch.device("cuda", ordinal)
