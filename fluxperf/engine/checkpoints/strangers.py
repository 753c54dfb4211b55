"""What a file is that holds no weights of FLUX.1's transformer, told from its first bytes or its tensors' names."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

#: First bytes of files of other formats, and what they are.
_STARTS = (
    (b"GGUF", "a GGUF file, which holds weights quantized for other programs; expected the original safetensors file"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run git lfs pull"),
    (b"<!DOCTYPE", "a web page, probably a refused download: log in, accept the license, and download it again"),
    (b"<html", "a web page, probably a refused download: log in, accept the license, and download it again"),
    (b"PK\x03\x04", "a PyTorch or other zip file; expected a safetensors file"),
    (b"\x80\x02", "a pickle of PyTorch; expected a safetensors file"),
)

#: Parts of tensors' names that one kind of model or file has, and what it is. The first that is found tells.
_NAMES = (
    (("lora_A.", "lora_B.", "lora_up.", "lora_down.", ".lora.", ".alpha"), "a LoRA: differences to a model, no model"),
    (("distilled_guidance_layer.",), "Chroma, which is another architecture"),
    (("double_stream_modulation_img.", "single_stream_modulation."), "FLUX.2, which is another architecture"),
    (("controlnet_blocks.", "controlnet_x_embedder."), "a control net, which works beside a model"),
    (("redux_up.", "redux_down."), "FLUX.1 Redux, which turns pictures into embeddings"),
    (("joint_blocks.",), "Stable Diffusion 3, another architecture"),
    (("input_blocks.", "down_blocks.0.attentions"), "a U-Net (Stable Diffusion), another architecture"),
    (("decoder.conv_in.", "encoder.conv_in.", "first_stage_model."), "a VAE"),
    (("encoder.block.", "enc.blk."), "T5's text encoder"),
    (("text_model.", "text_projection"), "CLIP's text encoder"),
)


def told_by_start(path: Path) -> str:
    """What a file is by its first bytes, in words; "" if they do not tell."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return ""
    if not start:
        return "an empty file: its download did not finish, download it again"
    return next((words for sign, words in _STARTS if start.lstrip().lower().startswith(sign.lower())), "")


def told_by_names(names: Collection[str]) -> str:
    """What holds tensors of these names, in words; "" if they do not tell."""
    if any(name.endswith((".absmax", ".quant_map")) or ".quant_state." in name for name in names):
        return "a model quantized by bitsandbytes (nf4 or int8); expected the original bfloat16 weights"
    return next((words for signs, words in _NAMES if any(sign in name for name in names for sign in signs)), "")
