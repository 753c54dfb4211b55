"""T5's encoder: the library's modules, with weights streamed from the files into the device's memory.

T5-XXL is a fourth of FLUX.1's bytes. transformers reads it through the host's memory; here it goes the way of the
transformer's weights (`Door.stream`), into arrays that the modules then share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fluxperf.engine.checkpoints.files import TensorFiles
from fluxperf.engine.checkpoints.reader import Descriptors, Reader
from fluxperf.engine.device.host import host_dtype
from fluxperf.errors import CheckpointError
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.libraries import library

#: The token embedding has two names in the module, and either or both in a file.
_SHARED = ("shared.weight", "encoder.embed_tokens.weight")

#: Largest number of e4m3, and the least scale.
_E4M3_MAX, _LEAST_SCALE = 448.0, 1e-12


def load_t5(folder: Path, bridge: Bridge, dtype: str, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Any:
    """``T5EncoderModel`` of a folder, on the device.

    Args:
        folder: ``text_encoder_2``.
        bridge: PyTorch on the device.
        dtype: of the weights, ``float32`` or ``bfloat16``.
        on_bytes: called by reading threads with the bytes that each has read.

    Raises:
        CheckpointError: tensors are missing or of other shapes than the module's.
    """
    torch, transformers = bridge.torch, library("transformers")
    config = transformers.T5Config.from_pretrained(folder)
    with torch.device("meta"):
        model = transformers.T5EncoderModel(config).eval().requires_grad_(False)
    files = _files(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    sources = _sources(files, shapes, folder)
    state = _streamed(files, sources, bridge, dtype, on_bytes)
    model.load_state_dict({name: state[source] for name, source in sources.items()}, assign=True)
    return model


def _files(folder: Path) -> TensorFiles:
    index = folder / "model.safetensors.index.json"
    return TensorFiles.sharded(index) if index.is_file() else TensorFiles.single(folder / "model.safetensors")


def _sources(files: TensorFiles, shapes: Mapping[str, tuple[int, ...]], folder: Path) -> dict[str, str]:
    """The file's name of every tensor of the module."""
    found = {}
    for name in shapes:
        names = [one for one in (_SHARED if name in _SHARED else (name,)) if one in files.names]
        found[name] = names[0] if names else name
    wrong = [name for name, source in found.items() if source not in files.names]
    wrong += [name for name, source in found.items() if source in files.names and files.shape(source) != shapes[name]]
    if wrong:
        raise CheckpointError(
            f"{folder}: expected the weights of T5's encoder as config.json describes it, but {len(wrong)} tensors are "
            f"missing or of another shape: {', '.join(wrong[:4])}. Config and weights are of different models."
        )
    return found


def _streamed(
    files: TensorFiles, sources: Mapping[str, str], bridge: Bridge, dtype: str, on_bytes: Callable[[int], None]
) -> dict[str, Any]:
    """Tensors on the device by their names in the files, each read once."""
    device, descriptors = bridge.device, Descriptors()
    arrays = {}
    with device.door.streaming():
        for source in dict.fromkeys(sources.values()):
            arrays[source] = device.empty(files.shape(source), dtype)
            reader = Reader([files.stretch(source)], host_dtype(dtype), descriptors, on_bytes)
            device.door.stream(arrays[source], reader, "text encoder weights")
    return {source: bridge.tensor(array) for source, array in arrays.items()}


def stored_bytes(folder: Path) -> int:
    """Bytes of the tensors in T5's files."""
    files = _files(folder)
    return sum(files.stretch(name).nbytes for name in files.names)


def quantize(model: Any) -> None:
    """Puts the projections of T5's blocks into e4m3, one scale per output channel; the embedding stays.

    The products stay those of the activations' dtype: weights are widened when they are used, a module at a time. So it
    halves the memory that T5 takes, and takes no time off.
    """
    torch = library("torch")
    linear = _e4m3_linear(torch)
    for name in [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]:
        model.set_submodule(name, linear(model.get_submodule(name)))


def _e4m3_linear(torch: Any) -> Any:
    class E4m3Linear(torch.nn.Module):  # type: ignore[misc]
        """``x W^T`` with W [N, K] in e4m3 and a scale [N, 1] in float32.

        T5 looks at ``weight`` of its last projection to choose a dtype; there is none to be looked at here.
        """

        weight = None

        def __init__(self, replaced: Any) -> None:
            super().__init__()
            wide = replaced.weight.detach().float()
            scale = (wide.abs().amax(dim=1, keepdim=True) / _E4M3_MAX).clamp(min=_LEAST_SCALE)
            self.register_buffer("stored", (wide / scale).to(torch.float8_e4m3fn))
            self.register_buffer("scale", scale)
            self.register_buffer("bias", None if replaced.bias is None else replaced.bias.detach())

        def forward(self, x: Any) -> Any:
            """[.., K] -> [.., N]."""
            weight = (self.stored.float() * self.scale).to(x.dtype)
            return torch.nn.functional.linear(x, weight, self.bias)

    return E4m3Linear
