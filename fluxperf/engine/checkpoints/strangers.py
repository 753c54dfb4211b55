"""Recognizes files that do not hold FLUX.1's transformer, by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

#: Suffixes of tensor names in unsupported quantized formats, and the tool that writes them. The first match decides.
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
    "weight_qdata": "torchao",
    ".tensor_impl": "torchao",
    ".weight_scale_inv": "a tool with block-wise scales (such as DeepSeek's e4m3)",
}

_RUNS = "fluxperf runs FLUX.1 schnell and dev"
_BESIDE = f"it is an addition to a model; {_RUNS} alone, so give the model itself"
_WHOLE = "give the file of the transformer, or the folder of the whole model"

#: Patterns of tensor names that FLUX.1's transformer does not have; what such a file is, and what to do. The first
#: match decides.
_OTHERS = (
    (
        r"\blora_(A|B|up|down)\.|[._]lora\d?\.|lora_magnitude_vector|\.(hada_w\d|lokr_w\d|boft_|oft_|dora_scale)"
        r"|\.(alpha|diff|diff_b|set_weight)$",
        "a LoRA, which holds changes to a model and not a model; merge it into its model first (in diffusers "
        "load_lora_weights, fuse_lora, save_pretrained) and give that folder",
    ),
    (r"\bcontrolnet_|\bcontrol_model\.|\binput_hint_block\.|\bzero_convs\.", f"a ControlNet; {_BESIDE}"),
    (r"\bip_adapter|\bto_k_ip\.|\bimage_proj\.", f"an IP-Adapter, which takes an image; {_BESIDE}"),
    (r"\bpulid_", f"PuLID, which takes an image of a face; {_BESIDE}"),
    (r"\bredux_(up|down)\.", f"FLUX.1 Redux, which turns images into embeddings; {_BESIDE}"),
    (r"\bdistilled_guidance_layer\.", f"Chroma, which is another architecture; {_RUNS}"),
    (r"\b(double|single)_stream_modulation(_img|_txt)?\.", f"FLUX.2, which is another architecture; {_RUNS}"),
    (r"token_refiner\.|\bimg_attn_qkv\.", f"HunyuanVideo or HunyuanImage, another architecture; {_RUNS}"),
    (r"\bjoint_blocks\.|\bpos_embed\.pos_embed", f"Stable Diffusion 3, another architecture; {_RUNS}"),
    (r"\btxt_norm\.|\bimg_mod\.1\.", f"Qwen-Image, another architecture; {_RUNS}"),
    (r"\badaln_single\.|\bpatchify_proj\.", f"PixArt, Sana or LTX-Video, another architecture; {_RUNS}"),
    (r"\bcap_embedder\.", f"Lumina or Z-Image, another architecture; {_RUNS}"),
    (r"\bdouble_stream_blocks\.", f"HiDream, another architecture; {_RUNS}"),
    (r"\bdouble_layers\.", f"AuraFlow, another architecture; {_RUNS}"),
    (r"\bpatch_embedding\.weight|\bblocks\.0\.cross_attn\.", f"Wan, another architecture; {_RUNS}"),
    (
        r"\binput_blocks\.|\bdown_blocks\.[01]\.attentions\.",
        f"a U-Net (Stable Diffusion 1, 2 or XL), another architecture; {_RUNS}",
    ),
    (
        r"\bmodel_ema\.|\bema_model\.|\.exp_avg",
        "a training checkpoint, which holds more than the weights; save only the model's weights and give those",
    ),
)

#: Patterns of the tensor names of parts without transformer blocks, and what each part is.
_PARTS = (
    (r"\bencoder\.block\.|\benc\.blk\.", "T5's text encoder"),
    (r"\bvision_model\.", "CLIP's image encoder"),
    (r"\btext_model\.|\btext_projection|\bembeddings\.token_embedding\.", "CLIP's text encoder"),
    (r"\bmodel\.layers\.\d+\.self_attn\.", "a language model"),
    (r"\b(de|en)coder\.conv_in\.|\bfirst_stage_model\.", "a VAE"),
    (r"^prompt_embeds", "embeddings, as written by --embeddings-out"),
    (r"^latents$", "latents, as written by --latents-out"),
)


#: Prefixes of the class names of models and pipelines in diffusers and transformers, and what these are.
_CLASSES = (
    ("AutoencoderKLFlux2", f"FLUX.2, which is another architecture; {_RUNS}"),
    ("Flux2", f"FLUX.2, which is another architecture; {_RUNS}"),
    ("FluxControlNet", f"FLUX.1 with a ControlNet; {_BESIDE}"),
    ("FluxControl", f"FLUX.1 with a control image (Depth or Canny); {_RUNS}"),
    ("FluxKontext", f"FLUX.1 Kontext, which edits a given image; {_RUNS}"),
    ("FluxFill", f"FLUX.1 Fill, which fills regions of a given image; {_RUNS}"),
    ("FluxPriorRedux", f"FLUX.1 Redux, which takes an image instead of a prompt; {_RUNS}"),
    ("ReduxImage", f"FLUX.1 Redux, which turns images into embeddings; {_BESIDE}"),
    ("Chroma", f"Chroma, which is another architecture; {_RUNS}"),
    ("Nunchaku", "a model quantized by nunchaku (SVDQuant); expected weights in bfloat16, float16 or e4m3"),
    ("StableDiffusion3", f"Stable Diffusion 3, another architecture; {_RUNS}"),
    ("SD3", f"Stable Diffusion 3, another architecture; {_RUNS}"),
    ("StableDiffusion", f"Stable Diffusion, another architecture; {_RUNS}"),
    ("UNet2D", f"Stable Diffusion, another architecture; {_RUNS}"),
    ("Hunyuan", f"HunyuanVideo or HunyuanImage, another architecture; {_RUNS}"),
    ("QwenImage", f"Qwen-Image, another architecture; {_RUNS}"),
    ("PixArt", f"PixArt, another architecture; {_RUNS}"),
    ("Sana", f"Sana, another architecture; {_RUNS}"),
    ("LTX", f"LTX-Video, another architecture; {_RUNS}"),
    ("Lumina", f"Lumina, another architecture; {_RUNS}"),
    ("ZImage", f"Z-Image, another architecture; {_RUNS}"),
    ("HiDream", f"HiDream, another architecture; {_RUNS}"),
    ("AuraFlow", f"AuraFlow, another architecture; {_RUNS}"),
    ("Wan", f"Wan, another architecture; {_RUNS}"),
    ("AutoencoderKL", f"a VAE: {_WHOLE}"),
    ("T5", f"T5's text encoder: {_WHOLE}"),
    ("CLIPText", f"CLIP's text encoder: {_WHOLE}"),
)


#: Input channels of models that take an image in addition to the noise, and what these models are.
_CHANNELS = (
    (384, f"FLUX.1 Fill, which takes an image; {_RUNS}"),
    (128, f"FLUX.1 Depth or Canny, which take an image; {_RUNS}"),
)


def told_by_channels(channels: object) -> str:
    """The model with this number of input channels, in words; "" if it takes only noise, as FLUX.1 schnell and dev."""
    return next((words for number, words in _CHANNELS if number == channels), "")


def told_by_class(name: str) -> str:
    """The model or pipeline of a diffusers or transformers class, in words; "" if it is unknown or FLUX.1's own."""
    return next((words for beginning, words in _CLASSES if name.startswith(beginning)), "")


def told_method(settings: object) -> str:
    """The quantization method that a ``config.json`` names for its weights, and what to do, in words."""
    method = settings.get("quant_method", "an unknown method") if isinstance(settings, dict) else "an unknown method"
    how = "fluxperf quantizes at load (--rung fp8, --t5-precision fp8)"
    return f"got weights quantized by {method}: give them in bfloat16; {how}"


def told_quantized(names: Collection[str]) -> str:
    """The unsupported quantization that tensor names reveal, in words; "" if there is none."""
    ends = (end for end in _QUANTIZED if any(name.endswith(end) or f"{end}." in name for name in names))
    kinds = (f"a model quantized by {_QUANTIZED[end]}; expected weights in bfloat16, float16 or e4m3" for end in ends)
    return next(kinds, "")


def told_by_names(names: Collection[str]) -> str:
    """The model that these tensor names belong to if it is not FLUX.1's transformer, in words; "" if unknown."""
    return told_quantized(names) or next(_found(_OTHERS, names), "")


def told_as_part(names: Collection[str]) -> str:
    """The part with these tensor names, if none is of a transformer block, in words; "" if unknown."""
    parts = list(dict.fromkeys(_found(_PARTS, names)))
    if len(parts) > 1:
        return f"{', '.join(parts[:-1])} and {parts[-1]}, without a transformer: {_WHOLE}"
    return f"{parts[0]}: {_WHOLE}" if parts else ""


def _found(kinds: Iterable[tuple[str, str]], names: Collection[str]) -> Iterator[str]:
    text = "\n".join(names)
    return (words for pattern, words in kinds if re.search(pattern, text, re.MULTILINE))
