"""Modules of transformers and diffusers: planned from file headers, then filled with values streamed from the files.

The libraries would fill a missing tensor with random values and warn. Here a plan is refused unless every tensor of a
module is in the files, and every value is checked while it is read (`Reader`). Values are streamed like the
transformer's weights (`Door.stream`), into memory that the modules then own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fluxperf.engine.checkpoints.files import TensorFiles, weights_in
from fluxperf.engine.checkpoints.reader import Descriptors, Reader
from fluxperf.engine.checkpoints.scales import scaled
from fluxperf.engine.checkpoints.strangers import told_as_part, told_by_names
from fluxperf.engine.device.host import host_dtype
from fluxperf.errors import CheckpointError, FluxperfError
from fluxperf.pipeline.libraries import library, quiet
from fluxperf.pipeline.single import SingleFile, diffusers_names
from fluxperf.words import plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fluxperf.pipeline.bridge import Bridge

#: Most tensors that one message names.
_SHOWN = 4


class Kind(NamedTuple):
    """How a part's module is built, and which tensor names its files may have.

    ``build`` returns the module of a folder, from its config only. ``other_names`` returns alternative names of a
    module's tensor. ``spare`` matches tensors that a file may hold in addition (parts of a larger model, constants).
    """

    library: str
    words: str
    stem: str
    build: Callable[[Any, Path], Any]
    other_names: Callable[[str], tuple[str, ...]]
    spare: re.Pattern[str]


def _clip(transformers: Any, folder: Path) -> Any:
    return transformers.CLIPTextModel(transformers.CLIPTextConfig.from_pretrained(folder))


def _clip_names(name: str) -> tuple[str, ...]:
    """transformers 5 names tensors without a prefix that files and transformers 4 have."""
    bare = name.removeprefix("text_model.")
    return f"text_model.{bare}", bare


def _t5(transformers: Any, folder: Path) -> Any:
    return transformers.T5EncoderModel(transformers.T5Config.from_pretrained(folder))


#: The token embedding has two names in the module; a file may have either or both.
_SHARED = ("shared.weight", "encoder.embed_tokens.weight")


def _t5_names(name: str) -> tuple[str, ...]:
    return _SHARED if name in _SHARED else (name,)


def _vae(diffusers: Any, folder: Path) -> Any:
    return diffusers.AutoencoderKL.from_config(diffusers.AutoencoderKL.load_config(folder))


#: Names of a VAE's attention in files of early diffusers releases.
_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def _vae_names(name: str) -> tuple[str, ...]:
    early = [name.replace(f".{new}.", f".{old}.") for new, old in _ATTENTION.items() if f".{new}." in name]
    return (name, *early)


CLIP = Kind(
    "transformers", "CLIP's text encoder", "model", _clip, _clip_names,
    re.compile(r"(.*\.)?position_ids|vision_model\..*|visual_projection\..*|text_projection\..*|logit_scale"),
)  # fmt: skip
T5 = Kind("transformers", "T5's encoder", "model", _t5, _t5_names, re.compile(r"decoder\..*|lm_head\..*|logit_scale"))
VAE = Kind("diffusers", "the VAE", "diffusion_pytorch_model", _vae, _vae_names, re.compile(r"(?!)"))


@dataclass(frozen=True)
class Plan:
    """A module whose tensors were all found in the files with the right shapes; no values have been read.

    ``sources`` maps each tensor of the module to its name in the file, ``shapes`` each file tensor to the module's
    shape. ``settings`` is the module's configuration.
    """

    kind: Kind
    folder: Path
    files: TensorFiles
    sources: Mapping[str, str]
    settings: Any
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def stored_bytes(self) -> int:
        """Bytes of its tensors in the files."""
        return sum(self.files.stretch(source).nbytes for source in set(self.sources.values()))

    def load(
        self, bridge: Bridge, dtype: str, label: str, on_bytes: Callable[[int], None] = lambda nbytes: None
    ) -> Any:
        """The module on the device, in evaluation mode, without gradients. It may be called several times.

        Args:
            bridge: PyTorch on the device.
            dtype: of the weights, ``float32`` or ``bfloat16``.
            label: of the crossings.
            on_bytes: reading threads call it with the number of bytes that they have just read.

        Raises:
            CheckpointError: a value is not finite, or a file cannot be read.
        """
        module = _empty(self.kind, self.folder, bridge.torch)
        found = self._streamed(bridge, dtype, label, on_bytes)
        module.load_state_dict({name: found[source] for name, source in self.sources.items()}, assign=True)
        _set_constants(module, self.folder, bridge)
        return module

    def _streamed(self, bridge: Bridge, dtype: str, label: str, on_bytes: Callable[[int], None]) -> dict[str, Any]:
        """Tensors on the device by their names in the files, each read once, in PyTorch's memory.

        A budget of device memory applies to the transformer, so it limits the device's own allocations and not these.
        """
        torch, device, descriptors, found = bridge.torch, bridge.device, Descriptors(), {}
        with device.door.streaming():
            for source in dict.fromkeys(self.sources.values()):
                tensor = torch.empty(self.shapes[source], dtype=getattr(torch, dtype), device=bridge.place)
                target = bridge.array(tensor.view(torch.int16) if dtype == "bfloat16" else tensor)
                reader = Reader([self.files.stretch(source)], host_dtype(dtype), descriptors, on_bytes)
                device.door.stream(target, reader, label)
                found[source] = tensor
        return found


def plan(folder: Path, kind: Kind, variant: str | None = None, single: SingleFile | None = None) -> Plan:
    """The plan of a part.

    Args:
        folder: ``text_encoder``, ``text_encoder_2`` or ``vae`` of a model folder.
        kind: of the part.
        variant: word in the file names, used where files with it exist.
        single: file whose tensors replace the folder's if it holds this part.

    Raises:
        CheckpointError: the library cannot make the module of its config, or tensors are missing, of other shapes or
            element types, or none of the module's; names them.
        DeviceError: the library is missing.
    """
    module = _empty(kind, folder, library("torch"))
    place = folder if single is None or folder.name not in single.parts else single.path
    files = scaled(_files(folder, kind, variant, single), place)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    sources = {name: _found(kind, files, name) for name in shapes}
    wrong = [name for name, source in sources.items() if source not in files.names]
    there = {name: files.shape(source) for name, source in sources.items() if source in files.names}
    wrong += [name for name, shape in there.items() if not _fits(shape, shapes[name])]
    if wrong:
        raise CheckpointError(
            f"{place}: expected the weights of {kind.words} as config.json describes it, but "
            f"{plural(len(wrong), 'tensor is', 'tensors are')} missing or of another shape: {_listed(wrong)}. "
            f"{_unlike(files)}"
        )
    strange = sorted(name for name in files.names - set(sources.values()) if not _is_spare(kind, name))
    if strange:
        raise CheckpointError(
            f"{place}: expected the weights of {kind.words} as config.json describes it, but "
            f"{plural(len(strange), 'tensor does', 'tensors do')} not belong to it: "
            f"{_listed(strange)}. {_unlike(files)}"
        )
    for source in sources.values():
        files.stretch(source)  # raises for a wrong element type or offset
    return Plan(kind, folder, files, sources, module.config, {source: shapes[name] for name, source in sources.items()})


def _unlike(files: TensorFiles) -> str:
    """A sentence on weights that do not fit a config: which other model they seem to be."""
    told = told_by_names(files.names) or told_as_part(files.names)
    seem = f"These seem to be {told.partition(':')[0].partition(';')[0]}. " if told else ""
    return f"{seem}Config and weights belong to different models."


def _files(folder: Path, kind: Kind, variant: str | None, single: SingleFile | None) -> TensorFiles:
    if single is not None and folder.name in single.parts:
        return single.parts[folder.name]
    whole, index = weights_in(folder, kind.stem, variant)
    files = TensorFiles.sharded(index) if index.is_file() else TensorFiles.single(whole)
    return files.renamed(diffusers_names({name: name for name in files.names})) if kind is VAE else files


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a file's shape is the module's, or that of a projection stored as a 1 x 1 convolution (the original)."""
    return found in (wanted, (*wanted, 1, 1))


def _found(kind: Kind, files: TensorFiles, name: str) -> str:
    """Name in the file of a module's tensor; its own name if there is no other."""
    return next((one for one in (name, *kind.other_names(name)) if one in files.names), name)


def _is_spare(kind: Kind, name: str) -> bool:
    return bool(kind.spare.fullmatch(name)) or any(one in _SHARED for one in kind.other_names(name))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _empty(kind: Kind, folder: Path, torch: Any) -> Any:
    """The module of a folder's config, without values."""
    with quiet(kind.library) as module, library_errors(folder, kind.words), torch.device("meta"):
        return kind.build(module, folder).eval().requires_grad_(False)


def _set_constants(module: Any, folder: Path, bridge: Bridge) -> None:
    """Sets the values that the module computes itself and no file holds: positions, counted from 0.

    Raises:
        CheckpointError: this release of the library computes another tensor, which fluxperf does not know.
    """
    torch = bridge.torch
    for name, buffer in list(module.named_buffers()):
        if not buffer.is_meta:
            continue
        owner, _, last = name.rpartition(".")
        if last != "position_ids":
            raise CheckpointError(
                f"{folder}: expected a module whose tensors are all in files, but this release of the library "
                f"computes {name!r} itself. Install a release that fluxperf was tested with (the extra pipeline)."
            )
        positions = torch.arange(buffer.shape[-1], device=bridge.place).expand(buffer.shape)
        module.get_submodule(owner).register_buffer(last, positions, persistent=False)
    left = [name for name, tensor in module.named_parameters() if tensor.is_meta]
    if left:  # internal consistency: the plan has every tensor
        raise AssertionError(f"{folder}: {left[:_SHOWN]} were not filled")


@contextmanager
def library_errors(folder: Path, words: str) -> Iterator[None]:
    """A region in which any error that a library raises about a folder's files becomes a `CheckpointError`.

    transformers, tokenizers and diffusers raise errors of any class about a damaged file, even ``Exception`` itself.

    Raises:
        CheckpointError: with the library's message.
    """
    try:
        yield
    except FluxperfError:
        raise
    except Exception as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(
            f"{folder}: expected {words}, but its library fails with {type(error).__name__}: {said[:200]}. The files "
            "are damaged or of another model; download them again."
        ) from error
