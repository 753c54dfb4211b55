"""Recognizes files without weights of FLUX.1's transformer, by their first bytes or their tensors' names."""

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

#: Ends of tensors' names that formats have which are not read, and what writes them.
_QUANTIZED = {
    ".absmax": "bitsandbytes (nf4 or int8)",
    ".quant_map": "bitsandbytes (nf4 or int8)",
    ".quant_state": "bitsandbytes (nf4 or int8)",
    ".SCB": "bitsandbytes (int8)",
    ".weight_scale_2": "NVIDIA's tools (NVFP4)",
    ".wscales": "nunchaku (SVDQuant)",
    ".qweight": "GPTQ, AWQ or nunchaku",
    ".float8_data": "flux-fp8-api",
    ".weight._data": "optimum-quanto",
    ".weight_qdata": "torchao",
}

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
    """The kind of a file by its first bytes, in words; "" if unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return ""
    if not start:
        return "an empty file: its download did not finish, download it again"
    return next((words for sign, words in _STARTS if start.lstrip().lower().startswith(sign.lower())), "")


def told_quantized(names: Collection[str]) -> str:
    """The quantization of a model by its tensors' names, if it is one that cannot be read here; "" for none."""
    ends = (end for end in _QUANTIZED if any(name.endswith(end) or f"{end}." in name for name in names))
    kinds = (f"a model quantized by {_QUANTIZED[end]}; expected weights in bfloat16, float16 or e4m3" for end in ends)
    return next(kinds, "")


def told_by_names(names: Collection[str]) -> str:
    """The model that has tensors of these names, in words; "" if unknown."""
    kinds = (words for signs, words in _NAMES if any(sign in name for name in names for sign in signs))
    return told_quantized(names) or next(kinds, "")
