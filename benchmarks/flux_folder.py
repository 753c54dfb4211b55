"""Writes a FLUX.1 model folder of random weights in diffusers' layout, of any size, without a network.

    python -m benchmarks.flux_folder DIR --model schnell

Full size takes 34 GB: a transformer of 24 GB in three shards, T5-XXL, CLIP-L, the VAE, and generated tokenizers. Values
are drawn on the GPU if there is one. They keep activations near 1 and give pictures contrast: with PyTorch's initial
weights every picture is uniformly grey, and a comparison of pictures would be meaningless.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from benchmarks.peers.diffusers import built
from fluxperf.engine.config import FluxConfig, config_named

_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}

#: Keys of ``model_index.json``.
_INDEX = {
    "_class_name": "FluxPipeline",
    "_diffusers_version": "0.35.0",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of the parts besides the transformer, and its number of shards."""

    clip_layers: int
    clip_heads: int
    clip_vocabulary: int
    t5_layers: int
    t5_heads: int
    t5_head_dim: int
    t5_hidden: int
    t5_vocabulary: int
    vae_channels: tuple[int, ...]
    vae_layers: int
    vae_groups: int
    shards: int


#: CLIP-L, T5-XXL and the VAE of FLUX.1; sources are the ``config.json`` of black-forest-labs/FLUX.1-schnell.
FULL = Sizes(12, 12, 49408, 24, 64, 64, 10240, 32128, (128, 256, 512, 512), 2, 32, 3)
TINY = Sizes(2, 4, 1024, 2, 4, 8, 48, 512, (8, 8, 16, 16), 1, 4, 1)


class Drawn(NamedTuple):
    """A large part whose values are drawn: its module's config, its tensors' shapes, and their distributions.

    ``spread`` returns mean and standard deviation of a tensor by name and shape.
    """

    config: Any
    shapes: dict[str, tuple[int, ...]]
    spread: Callable[[str, tuple[int, ...]], tuple[float, float]]


def drawn(config: FluxConfig, sizes: Sizes) -> tuple[Drawn, Drawn]:
    """Transformer and T5 of a model."""
    with torch.device("meta"):
        transformer = built(config)
        t5 = T5EncoderModel(_t5_config(config, sizes))
    t5.config.architectures = ["T5EncoderModel"]
    shapes = {name: tuple(x.shape) for name, x in transformer.state_dict().items()}
    t5_shapes = {name: tuple(x.shape) for name, x in t5.state_dict().items() if name != "encoder.embed_tokens.weight"}
    return Drawn(transformer.config, shapes, _flux_spread), Drawn(t5.config, t5_shapes, _t5_spread(config, sizes))


def write(
    folder: Path,
    config: FluxConfig,
    sizes: Sizes,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    large: bool = True,
) -> Path:
    """Writes a model folder; a complete one is left as it is.

    Args:
        folder: its path.
        config: of the transformer.
        sizes: of the other parts.
        dtype: of all weights.
        seed: of all values.
        large: whether to write the weights of transformer and T5; a single file may replace them.

    Raises:
        SystemExit: the disk has not enough space.
    """
    if (folder / "model_index.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(place).manual_seed(seed)
    transformer, t5 = drawn(config, sizes)
    need = dtype.itemsize * sum(math.prod(shape) for part in (transformer, t5) for shape in part.shapes.values())
    if large and (free := shutil.disk_usage(folder).free) < 1.1 * need:
        raise SystemExit(f"{folder}: expected {1.1 * need / 1e9:.0f} GB of free space, got {free / 1e9:.0f} GB.")
    parts = (
        (transformer, "transformer", "diffusion_pytorch_model", sizes.shards),
        (t5, "text_encoder_2", "model", min(sizes.shards, 2)),
    )
    for part, name, stem, shards in parts:
        (folder / name).mkdir(exist_ok=True)
        if large:
            _save(folder / name, stem, _numbers(part, generator, dtype), part.shapes, dtype, shards)
    (folder / "transformer" / "config.json").write_text(
        _json({**dict(transformer.config), "_class_name": "FluxTransformer2DModel"})
    )
    t5.config.save_pretrained(folder / "text_encoder_2")
    _small_parts(folder, config, sizes, dtype, seed, place)
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler" / "scheduler_config.json").write_text(_json(_schedule(config.guidance)))
    (folder / "model_index.json").write_text(_json(_INDEX))
    return folder


def _small_parts(
    folder: Path, config: FluxConfig, sizes: Sizes, dtype: torch.dtype, seed: int, place: torch.device
) -> None:
    """Writes tokenizers, CLIP and VAE with their libraries."""
    end = _clip_tokenizer(folder / "tokenizer")
    _t5_tokenizer(folder / "tokenizer_2")
    torch.manual_seed(seed)
    clip = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=config.pooled_dim,
            intermediate_size=4 * config.pooled_dim,
            num_hidden_layers=sizes.clip_layers,
            num_attention_heads=sizes.clip_heads,
            vocab_size=sizes.clip_vocabulary,
            projection_dim=config.pooled_dim,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    clip.to(dtype).save_pretrained(folder / "text_encoder")
    blocks = len(sizes.vae_channels)
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * blocks,
        up_block_types=["UpDecoderBlock2D"] * blocks,
        block_out_channels=sizes.vae_channels,
        layers_per_block=sizes.vae_layers,
        norm_num_groups=sizes.vae_groups,
        latent_channels=config.in_channels // 4,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).eval()
    with_contrast(vae.to(place))
    for parameter in vae.parameters():
        parameter.data = parameter.data.to(dtype)
    vae.save_pretrained(folder / "vae")


@torch.no_grad()
def with_contrast(vae: AutoencoderKL) -> AutoencoderKL:
    """The VAE with its last convolution scaled so that the pixels of random latents use most of their range."""
    noise = torch.Generator(vae.device).manual_seed(1)
    latents = torch.randn(1, vae.config.latent_channels, 16, 16, generator=noise, device=vae.device)
    image = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    vae.decoder.conv_out.weight *= 0.5 / image.std()
    vae.decoder.conv_out.bias.zero_()
    return vae


def _t5_config(config: FluxConfig, sizes: Sizes) -> T5Config:
    return T5Config(
        vocab_size=sizes.t5_vocabulary,
        d_model=config.text_dim,
        d_kv=sizes.t5_head_dim,
        d_ff=sizes.t5_hidden,
        num_layers=sizes.t5_layers,
        num_heads=sizes.t5_heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        is_encoder_decoder=False,
    )


def _flux_spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor of the transformer."""
    if len(shape) == 2:
        return 0.0, (0.3 if ".norm" in name or name.startswith("norm_out") else 1.0) / shape[1] ** 0.5
    return (1.0, 0.1) if "norm_" in name and name.endswith("weight") else (0.0, 0.02)


def _t5_spread(config: FluxConfig, sizes: Sizes) -> Any:
    """Mean and standard deviation of a tensor of T5's encoder. T5 does not scale its scores, so queries are small."""

    def spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
        if len(shape) == 1:
            return 1.0, 0.05
        if ".q." in name:
            return 0.0, (config.text_dim * sizes.t5_head_dim) ** -0.5
        return 0.0, 1.0 if name == "shared.weight" else shape[1] ** -0.5

    return spread


def _numbers(part: Drawn, generator: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors on the host, one at a time, with values that bfloat16 can represent."""
    for name, shape in part.shapes.items():
        mean, deviation = part.spread(name, shape)
        numbers = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.bfloat16)
        yield name, (numbers * deviation + mean).to(dtype).cpu()


def _save(
    folder: Path,
    stem: str,
    tensors: Iterator[tuple[str, torch.Tensor]],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    shards: int,
) -> None:
    """Writes safetensors files of tensors that are drawn one at a time, so that only one is in memory."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {name: dtype.itemsize * math.prod(shape) for name, shape in shapes.items()}
    share, files, filled = sum(sizes.values()) / shards, [[]], 0  # type: ignore[var-annotated]
    for name, size in sizes.items():
        if filled + size / 2 > share * len(files) and len(files) < shards:
            files.append([])
        files[-1].append(name)
        filled += size
    owners = {}
    for number, names in enumerate(files, start=1):
        file = f"{stem}.safetensors" if shards == 1 else f"{stem}-{number:05}-of-{len(files):05}.safetensors"
        owners |= dict.fromkeys(names, file)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            begin, end = end, end + sizes[name]
            header[name] = {"dtype": _NAMES[dtype], "shape": shapes[name], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for _ in names:
                stream.write(next(tensors)[1].contiguous().view(torch.uint8).numpy().data)
    if shards > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": owners}
        (folder / f"{stem}.safetensors.index.json").write_text(_json(index))


def _clip_tokenizer(folder: Path) -> int:
    """Writes a byte-level BPE without merges in CLIP's two files; returns the id of its end token, the highest."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(_json({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(_json(settings))
    (folder / "special_tokens_map.json").write_text(_json(special))
    return len(tokens) - 1


def _t5_tokenizer(folder: Path) -> None:
    """Writes a unigram model of single letters as ``tokenizer.json``, with T5's ids for the special tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted({chr(code) for code in range(33, 127)} | set("äöüßéèñ"))
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512, "extra_ids": 0, **special}
    (folder / "tokenizer_config.json").write_text(_json(settings))
    (folder / "special_tokens_map.json").write_text(_json(special))


def _schedule(guidance: bool) -> dict[str, Any]:
    """``scheduler_config.json`` of the model cards."""
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "base_image_seq_len": 256,
        "base_shift": 0.5,
        "max_image_seq_len": 4096,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
        "shift": 3.0 if guidance else 1.0,
        "use_dynamic_shifting": guidance,
    }


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=list) + "\n"


def main() -> None:
    """Writes a folder, and prints how long that took."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="schnell", help="schnell, dev, or tiny and tiny-dev with small encoders.")
    arguments = parser.parse_args()
    start = time.perf_counter()
    write(arguments.folder, config_named(arguments.model), TINY if arguments.model.startswith("tiny") else FULL)
    nbytes = sum(file.stat().st_size for file in arguments.folder.rglob("*.safetensors"))
    print(f"{arguments.folder}: {nbytes / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
