"""A single file with text encoders, VAE and transformer, as ComfyUI and other programs write it.

The tensors of each part have a prefix of their own. The VAE's have the names of the original (latent-diffusion) code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from fluxperf.engine.checkpoints.checkpoint import BESIDE, check_kind
from fluxperf.engine.checkpoints.files import TensorFiles, model_name
from fluxperf.errors import CheckpointError

#: Prefixes of the tensor names of each part, by its subfolder in a model folder; the first match is used.
_PREFIXES = (
    ("text_encoder", "text_encoders.clip_l.transformer."),
    ("text_encoder", "text_encoders.clip_l."),
    ("text_encoder", "conditioner.embedders.0.transformer."),
    ("text_encoder_2", "text_encoders.t5xxl.transformer."),
    ("text_encoder_2", "text_encoders.t5xxl."),
    ("vae", "vae."),
    ("vae", "first_stage_model."),
)

#: Components of a VAE's tensor names in the original and in diffusers (``convert_ldm_vae_checkpoint``), inside encoder
#: or decoder. The original counts the decoder's blocks from the other end.
_VAE_NAMES = (
    (r"^mid\.block_1\.", "mid_block.resnets.0."),
    (r"^mid\.block_2\.", "mid_block.resnets.1."),
    (r"^mid\.attn_1\.norm\.", "mid_block.attentions.0.group_norm."),
    (r"^mid\.attn_1\.([qkv])\.", r"mid_block.attentions.0.to_\1."),
    (r"^mid\.attn_1\.proj_out\.", "mid_block.attentions.0.to_out.0."),
    (r"^(down|up)\.(\d+)\.block\.", r"\1_blocks.\2.resnets."),
    (r"^(down|up)\.(\d+)\.(down|up)sample\.", r"\1_blocks.\2.\3samplers.0."),
    (r"^norm_out\.", "conv_norm_out."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
)


@dataclass(frozen=True)
class SingleFile:
    """A file with the transformer's weights. ``parts`` are the other parts in it, by subfolder."""

    path: Path
    parts: Mapping[str, TensorFiles]

    @property
    def description(self) -> str:
        """The file's name, with the other parts that are taken from it."""
        besides = f" (with {', '.join(self.parts)})" if self.parts else ""
        return model_name(self.path.absolute()) + besides


#: Name of a decoder block with its number. The number of digits is limited, as no model has thousands of blocks.
_UP = r"up\.([0-9]{1,3})\."


def open_single(path: Path) -> SingleFile:
    """The parts of a file, judged by its header.

    Raises:
        CheckpointError: it cannot be opened, or holds a part that FLUX.1 does not have; the message names it.
    """
    path = path.expanduser()
    if not path.is_file():
        what = "nothing at this path. Name a file"
        if path.is_dir():
            what = "a folder. Give the folder of a whole model as --model, without --transformer, or name a file in it"
        raise CheckpointError(f"{path}: expected a safetensors file of the transformer's weights, found {what}.")
    files = TensorFiles.single(path)
    check_kind(files.names, path)
    names: dict[str, dict[str, str]] = {}
    for name in sorted(files.names):
        part, prefix = next(((part, prefix) for part, prefix in _PREFIXES if name.startswith(prefix)), ("", ""))
        if part:
            names.setdefault(part, {})[name.removeprefix(prefix)] = name
        elif name.startswith(BESIDE):
            raise CheckpointError(
                f"{path}: expected the text encoders CLIP-L and T5-XXL and a VAE besides the transformer, got "
                f"{name!r}. The file holds another model, or its program is unknown to fluxperf; give a file with the "
                "transformer only."
            )
    if "vae" in names:
        names["vae"] = diffusers_names(names["vae"])
    return SingleFile(path, {part: files.renamed(mine) for part, mine in names.items()})


def diffusers_names(names: Mapping[str, str]) -> dict[str, str]:
    """A VAE's tensors under diffusers' names; unknown names stay as they are.

    Args:
        names: the file's name of each, by the original's or diffusers' name.
    """
    last = max((int(found[1]) for name in names if (found := re.match(rf"decoder\.{_UP}", name))), default=0)
    return {_diffusers_name(name, last): stored for name, stored in names.items()}


def _diffusers_name(name: str, last: int) -> str:
    side, _, rest = name.partition(".")
    if side not in ("encoder", "decoder"):
        return name
    rest = re.sub(f"^{_UP}", lambda match: f"up.{last - int(match[1])}.", rest)
    for pattern, new in _VAE_NAMES:
        rest = re.sub(pattern, new, rest)
    return f"{side}.{rest}"


def parts_from(single: SingleFile | None, parts: Collection[str]) -> tuple[str, ...]:
    """Subfolders that are needed; for a part whose weights the file holds, only its ``config.json``."""
    held = () if single is None else (*single.parts, "transformer")
    kept = (part for part in parts if single is None or part != "transformer")
    return tuple(f"{part}/config.json" if part in held else part for part in kept)
