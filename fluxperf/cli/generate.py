"""``fluxperf generate``: makes PNG files from prompts, with a progress bar of steps and the time of each stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from fluxperf.budgets import check_gigabytes
from fluxperf.cli.grammar import choice
from fluxperf.cli.options import RUNGS, DeviceKind, MemoryGb, Pixels, Revision, Variant
from fluxperf.cli.pictures import How, decode_latents, encode_prompts, make_pictures
from fluxperf.documents import as_text
from fluxperf.errors import ConfigError
from fluxperf.files import check_writable
from fluxperf.pipeline.asked import MOST_TOKENS
from fluxperf.pipeline.embeddings import Words
from fluxperf.pipeline.jobs import Defaults, Line, is_folder, read_prompts
from fluxperf.pipeline.noise import NoiseFrom, check_place, seeds_of
from fluxperf.pipeline.text import T5Keeping, T5Precision, check_t5

_Prompt = Annotated[str | None, typer.Argument(help="Description of the picture.")]
_Model = Annotated[
    Path | None,
    typer.Option(
        "--model", help="Folder of FLUX.1-schnell or -dev in the layout of diffusers, or the model's name on the hub."
    ),
]
_Transformer = Annotated[
    Path | None,
    typer.Option(
        help="File with the transformer's weights, used instead of those in the folder, such as one in e4m3. Text "
        "encoders and VAE are taken from it too, if it has them."
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="PNG file, or a folder; out.png if not given. Several files are numbered."),
]
_Prompts = Annotated[
    Path | None,
    typer.Option(help="File with a prompt per line, or .jsonl with an object per line (prompt, seed, steps, ..)."),
]
_Rung = Annotated[str | None, choice(RUNGS, "--rung", "-r", help="Rung of the ladder; captured if not given.")]
_Steps = Annotated[int | None, typer.Option(min=1, help="Euler steps; 4 for schnell and 28 for dev if not given.")]
_Seed = Annotated[
    int | None,
    typer.Option(
        min=0, help="Seed of the first picture of each prompt; each further picture adds one. Random if not given."
    ),
]
_NumImages = Annotated[int, typer.Option(min=1, help="Pictures of each prompt.")]
_Guidance = Annotated[float | None, typer.Option(help="Guidance scale of dev; 3.5 if not given.")]
_Tokens = Annotated[
    int, typer.Option(min=1, max=MOST_TOKENS, help="Maximum length of a prompt in T5 tokens; longer prompts are cut.")
]
_Embeddings = Annotated[
    Path | None, typer.Option(help="Read prompt embeddings (safetensors) instead of a prompt; needs no text encoders.")
]
_EmbeddingsOut = Annotated[
    Path | None,
    typer.Option(
        help="Write the embeddings of the prompts to this file, for --embeddings. Without -o no picture is made."
    ),
]
_LatentsOut = Annotated[
    Path | None,
    typer.Option(
        help="Write final latents (safetensors) to this file. Without -o no picture is made and no VAE is needed."
    ),
]
_Decode = Annotated[Path | None, typer.Option(help="Decode latents that --latents-out wrote; needs only the VAE.")]
_NoiseFrom = Annotated[
    str, choice(get_args(NoiseFrom), help="Where PyTorch generates the noise of a seed: on the device or on the CPU.")
]
_T5 = Annotated[
    str,
    choice(
        get_args(T5Keeping),
        help="T5 between prompts: keep it on the device, offload it to the host, or free its memory.",
    ),
]
_T5Precision = Annotated[
    str, choice(get_args(T5Precision), help="Data type of T5's weights; fp8 takes half the memory.")
]
_Nvtx = Annotated[
    bool, typer.Option("--nvtx", help="Emit NVTX ranges for steps, blocks and ops. Stages always have ranges.")
]


def generate(
    prompt: _Prompt = None,
    model: _Model = None,
    revision: Revision = None,
    variant: Variant = None,
    transformer: _Transformer = None,
    output: _Output = None,
    prompts: _Prompts = None,
    rung: _Rung = None,
    steps: _Steps = None,
    height: Pixels = 1024,
    width: Pixels = 1024,
    seed: _Seed = None,
    num_images: _NumImages = 1,
    guidance: _Guidance = None,
    max_sequence_length: _Tokens = MOST_TOKENS,
    embeddings: _Embeddings = None,
    embeddings_out: _EmbeddingsOut = None,
    latents_out: _LatentsOut = None,
    decode: _Decode = None,
    noise_from: _NoiseFrom = "device",
    t5: _T5 = "keep",
    t5_precision: _T5Precision = "full",
    device: DeviceKind = "auto",
    nvtx: _Nvtx = False,
    memory_gb: MemoryGb = None,
) -> None:
    r"""Make pictures from prompts with a FLUX.1 checkpoint.

    For example:

      fluxperf generate "a red fox" -o fox.png \\
        --model black-forest-labs/FLUX.1-schnell
      fluxperf generate "a red fox" --model black-forest-labs/FLUX.1-dev \
        --rung fp8 --transformer flux1-dev.safetensors
      fluxperf generate --prompts prompts.txt --model FLUX.1-dev --steps 28 \
        --seed 7 --num-images 2 -o pictures/

    Text is encoded on one machine, the transformer runs without PyTorch on another, and the first decodes:

      fluxperf generate "a red fox" --model FLUX.1-schnell \
        --embeddings-out fox.safetensors
      fluxperf generate --embeddings fox.safetensors --model FLUX.1-schnell \
        --latents-out latents.safetensors
      fluxperf generate --decode latents.safetensors --model FLUX.1-schnell

    Text encoders and VAE need the extra "pipeline"; `fluxperf doctor` prints the command.
    """
    if model is None:
        raise ConfigError(
            "generate: expected --model, the folder of FLUX.1-schnell or FLUX.1-dev or its name on the hub, got none."
        )
    sources = {"PROMPT": prompt, "--prompts": prompts, "--embeddings": embeddings, "--decode": decode}
    named = [name for name, value in sources.items() if value is not None]
    if len(named) != 1:
        raise ConfigError(
            f"generate: expected exactly one of {', '.join(sources)}, got {' and '.join(named) or 'none'}."
        )
    if memory_gb is not None:
        check_gigabytes(memory_gb)
    check_t5(t5, t5_precision)
    check_place(noise_from)
    how = How(model, rung, device, max_sequence_length, noise_from, t5, t5_precision, nvtx, memory_gb)
    how = how._replace(revision=revision, variant=variant, transformer=transformer)
    if output is None and latents_out is None and embeddings_out is None:
        output = Path("out.png")
    _check_outputs(output, latents_out, embeddings_out)
    if decode is not None:
        decode_latents(how, decode, output)
        return
    lines = read_prompts(prompts) if prompts else [Line(prompt=prompt)] if prompt is not None else []
    _check_prompts(lines)
    if embeddings_out is not None:
        words = [Words(line.prompt, line.prompt if line.prompt_2 is None else line.prompt_2) for line in lines]
        encode_prompts(how, words, embeddings_out)
        if output is None and latents_out is None:
            return
    first = seeds_of(seed, 1)[0]
    given = Defaults(height, width, steps, guidance, first, num_images)
    make_pictures(how, lines, embeddings, given, output, latents_out)


def _check_prompts(lines: list[Line]) -> None:
    for number, line in enumerate(lines, start=1):
        which = f" {number} of {len(lines)}" if len(lines) > 1 else ""
        if as_text(line.prompt) != line.prompt:
            raise ConfigError(f"prompt{which}: expected text in UTF-8, got other bytes. Save it as UTF-8.")
        if not line.prompt.strip():
            raise ConfigError(f"prompt{which}: expected words that describe a picture, got an empty text.")


def _check_outputs(*paths: Path | None) -> None:
    """Checks that all outputs can be written, before anything is loaded."""
    for path in paths:
        if path is not None:
            check_writable(path / "picture" if is_folder(path) or not path.suffix else path)
