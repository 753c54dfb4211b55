"""From a prompt to a PNG file at full size: fluxperf, and diffusers' pipeline eager and compiled, in one run.

    python -m benchmarks.end_to_end --folder DIR --rung fused -o reports/records/h100-end-to-end.json

Writes a model folder of random weights (34 GB in the published layout) unless it exists, loads it, and measures:
seconds until ready and the rate; the first picture; another prompt (which compiles nothing); another resolution and its
first-time cost; then warm pictures in turns with diffusers', stage by stage. All of them share the same text encoder
and VAE modules. Records are written next to the JSON file, as JSON Lines. ``--model tiny --device host --peer
diffusers`` runs on any machine.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import diffusers
import msgspec
import numpy as np
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from safetensors.torch import load_file

from benchmarks.flux_folder import FULL, TINY, write
from benchmarks.peers.diffusers import TorchClock, built
from fluxperf import Pipeline
from fluxperf.engine.config import config_named
from fluxperf.engine.device import open_device
from fluxperf.files import write_whole
from fluxperf.harness.measure.environment import commit, installed, machine
from fluxperf.harness.measure.sampler import Variant
from fluxperf.harness.measure.sampling import Sampling
from fluxperf.harness.records import IN_TURNS_WITH, append_record
from fluxperf.pipeline.asked import asked
from fluxperf.pipeline.embeddings import PromptCache
from fluxperf.pipeline.measuring import PROMPT, measure_pictures
from fluxperf.workloads import PIXELS_PER_TOKEN, Workload, workload_named

PEERS = ("diffusers", "diffusers-compiled")
_LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
#: Fields of a workload that are stored in the result.
_SIZES = ("name", "height", "width", "text_tokens", "steps", "batch")
_OTHER_PROMPT = "An old lighthouse on a cliff in a storm, painted in oil, thick brush strokes"
SEED = 7


class Peer:
    """diffusers' ``FluxPipeline`` with a transformer of its own; its other parts are those of fluxperf's pipeline.

    Args:
        ours: a pipeline with text encoders and VAE.
        workload: sizes.
    """

    def __init__(self, ours: Pipeline, workload: Workload) -> None:
        parts, self._workload = ours.parts, workload
        encoders, decoder, place = parts.encoders(), parts.vae(), parts.torch().place
        kind = getattr(torch, parts.dtype)
        with torch.device("meta"):
            transformer = built(parts.config)
        state = {}
        for file in sorted((parts.folder.path / "transformer").glob("*.safetensors")):
            state |= {name: x.to(kind) for name, x in load_file(file, device=str(place)).items()}
        transformer.load_state_dict(state, assign=True)
        self._pipeline = FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(parts.folder.path / "scheduler"),
            vae=decoder.vae,
            text_encoder=encoders.clip,
            tokenizer=encoders.clip_tokenizer,
            text_encoder_2=encoders.t5,
            tokenizer_2=encoders.t5_tokenizer,
            transformer=transformer.requires_grad_(False),
        )
        self._pipeline.set_progress_bar_config(disable=True)
        self._place = place
        self.clock: Any = TorchClock() if place.type == "cuda" else parts.device
        #: Description of its setup.
        self.form = "eager"

    def compile(self) -> None:
        """Compiles the transformer as diffusers' authors recommend."""
        transformer = self._pipeline.transformer
        transformer.fuse_qkv_projections()
        transformer.set_attention_backend("_native_cudnn")
        transformer.compile_repeated_blocks(fullgraph=True)
        self.form = "fused QKV, cuDNN attention, compile_repeated_blocks"

    def image(self, prompt: str = PROMPT) -> Any:
        """A picture from ``FluxPipeline``."""
        generator = torch.Generator(self._place).manual_seed(SEED)
        return self._pipeline(prompt, generator=generator, **self._sizes).images[0]

    def picture(self, path: Path) -> Any:
        """From the prompt to a file, written by Pillow."""
        self.image().save(path)

    @torch.inference_mode()
    def stages(self, path: Path) -> dict[str, float]:
        """Seconds of each stage, separated by the pipeline's own arguments; waits for the device between stages."""
        pipeline, sizes = self._pipeline, dict(self._sizes)
        tokens = sizes.pop("max_sequence_length")
        text, pooled, _ = self._timed("text_encode", lambda: pipeline.encode_prompt(PROMPT, max_sequence_length=tokens))
        generator = torch.Generator(self._place).manual_seed(SEED)
        latents = self._timed(
            "denoise",
            lambda: (
                pipeline(
                    prompt_embeds=text, pooled_prompt_embeds=pooled, generator=generator, output_type="latent", **sizes
                ).images
            ),
        )

        def decode() -> Any:
            vae = pipeline.vae
            spatial = pipeline._unpack_latents(latents, self._workload.height, self._workload.width, 8)
            spatial = spatial / vae.config.scaling_factor + vae.config.shift_factor
            image = vae.decode(spatial.to(vae.dtype), return_dict=False)[0]
            return pipeline.image_processor.postprocess(image, output_type="pil")[0]

        image = self._timed("vae_decode", decode)
        self._timed("png", lambda: image.save(path))
        return dict(self._seconds)

    @property
    def _sizes(self) -> dict[str, Any]:
        workload = self._workload
        return {
            "height": workload.height,
            "width": workload.width,
            "num_inference_steps": workload.steps,
            "max_sequence_length": workload.text_tokens,
        }

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        self._seconds: dict[str, float] = getattr(self, "_seconds", {})
        self.clock.synchronize()
        start = time.perf_counter()
        result = work()
        self.clock.synchronize()
        self._seconds[name] = time.perf_counter() - start
        return result


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of a function call, by the host's clock."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def first_pictures(ours: Pipeline, workload: Workload, folder: Path) -> dict[str, float]:
    """Seconds from prompt to file: the first picture, the same again, another prompt, and another resolution twice."""
    ours.parts.encoders().cache = PromptCache(0)

    def picture(prompt: str, height: int, width: int) -> float:
        tokens, steps = workload.text_tokens, workload.steps
        wanted = asked(ours.config, prompt, text_tokens=tokens, height=height, width=width, steps=steps)
        return seconds_of(lambda: ours.generation.batch(wanted, seed=SEED).save(folder / "picture.png"))

    height, width = workload.height, workload.width
    other = tuple(max(1, round(size / PIXELS_PER_TOKEN)) * PIXELS_PER_TOKEN for size in (0.75 * height, 1.25 * width))
    found = {
        "first": picture(PROMPT, height, width),
        "again": picture(PROMPT, height, width),
        "another prompt": picture(_OTHER_PROMPT, height, width),
        f"{other[0]} x {other[1]}, first": picture(PROMPT, *other),
        f"{other[0]} x {other[1]}, again": picture(PROMPT, *other),
    }
    for name, seconds in found.items():
        print(f"  picture, {name}: {seconds * 1e3:.0f} ms", flush=True)
    return found


def psnr(first: Any, second: Any) -> float:
    """Peak signal-to-noise ratio of two pictures, in dB."""
    difference = np.asarray(first).astype(float) - np.asarray(second).astype(float)
    return float(10 * np.log10(255**2 / max(np.square(difference).mean(), 1e-9)))


def told(name: str, samples: dict[str, list[float]]) -> None:
    """Prints medians in milliseconds."""
    print(
        f"  {name}: " + ", ".join(f"{stage} {median(x) * 1e3:.1f} ms" for stage, x in samples.items() if x), flush=True
    )


def measured(
    folder: Path,
    rung: str,
    workload: Workload,
    device: str,
    repeat: int,
    peers: list[str],
    witness: bool,
    records: Path,
) -> dict[str, Any]:
    """All measurements of one rung, and of the peers."""
    print(f"{rung}:", flush=True)
    ours = Pipeline.from_pretrained(folder, rung=rung, device=device)
    for part, row in ours.parts.loads.items():
        print(
            f"  {part}: {row.bytes / 1e9:.2f} GB in {row.time_s:.2f} s, {row.bytes / row.time_s / 1e9:.2f} GB/s",
            flush=True,
        )
    result: dict[str, Any] = {"rung": rung, "loads": msgspec.to_builtins(ours.parts.loads), "peers": []}
    with tempfile.TemporaryDirectory(prefix="fluxperf-") as scratch:
        out = Path(scratch)
        result["pictures_s"] = first_pictures(ours, workload, out)
        record, _ = measure_pictures(ours, workload, Sampling(repeat), SEED, witness)
        append_record(records, record)
        told("warm", {name: x[0] for name, x in record.times_s.items() if not name.startswith("warmup")})
        if record.picture_witness is not None:
            print(f"  witness of one picture: {record.picture_witness}", flush=True)
        peer = Peer(ours, workload) if peers else None
        for name in peers:
            result["peers"].append(beside(ours, peer, name, workload, repeat, out, records))
        del peer
    ours.close()
    del ours
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return result


def beside(
    ours: Pipeline, peer: Any, name: str, workload: Workload, repeat: int, out: Path, records: Path
) -> dict[str, Any]:
    """One form of the peer in turns with fluxperf, and the difference of their pictures."""
    compile_s = 0.0
    if name == "diffusers-compiled":
        peer.compile()
        compile_s = seconds_of(peer.image)
    else:
        peer.image()
    variant = Variant(peer.clock, lambda _: peer.picture(out / "peer.png"))
    record, (samples,) = measure_pictures(ours, workload, Sampling(repeat), SEED, beside=[variant])
    record = msgspec.structs.replace(record, settings={**record.settings, IN_TURNS_WITH: name})
    append_record(records, record)
    stages = [peer.stages(out / "peer.png") for _ in range(3)]
    sizes = {"height": workload.height, "width": workload.width, "num_inference_steps": workload.steps}
    picture = ours(PROMPT, seed=SEED, max_sequence_length=workload.text_tokens, **sizes).images[0]
    apart = psnr(picture, peer.image())
    own = {key: x[0] for key, x in record.times_s.items() if not key.startswith("warmup")}
    told("in turns, fluxperf", own)
    by_stage = {stage: [one[stage] for one in stages] for stage in stages[0]}
    told(f"in turns, {name}", {"picture": samples.whole_s, **by_stage})
    print(f"  difference of pictures: PSNR {apart:.1f} dB", flush=True)
    return {
        "name": name,
        "form": peer.form,
        "first_with_compiling_s": compile_s,
        "picture_s": samples.whole_s,
        "fluxperf_picture_s": own["picture"],
        "stages_s": by_stage,
        "psnr_db": apart,
    }


def main() -> None:
    """Writes the folder, measures, prints, and writes a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="Folder of the model; written if missing: 34 GB.")
    parser.add_argument("--model", default="schnell")
    parser.add_argument("--workload", default="schnell-1024", help="Sizes and steps.")
    parser.add_argument("--rung", action="append", help="Repeat for several; peers are measured with the last one.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeat", type=int, default=8)
    parser.add_argument(
        "--peer", action="append", choices=[*PEERS, "none"], help="Repeat for several; both by default."
    )
    parser.add_argument("--witness", action="store_true", help="Count the copies of a picture through CUPTI.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, message=".* takes .* tokens")
    diffusers.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    workload = workload_named(arguments.workload)
    tiny = arguments.model.startswith("tiny")
    peers = [name for name in arguments.peer or PEERS if name != "none"]
    write_s = seconds_of(lambda: write(arguments.folder, config_named(arguments.model), TINY if tiny else FULL))
    nbytes = sum(file.stat().st_size for file in arguments.folder.rglob("*.safetensors"))
    print(f"folder: {nbytes / 1e9:.2f} GB, ready after {write_s:.1f} s", flush=True)
    records = arguments.output.with_suffix(".jsonl")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    rungs = arguments.rung or ["fused"]
    rows: list[dict[str, Any]] = []
    for rung in rungs:
        beside_it = peers if rung == rungs[-1] else []
        rows.append(
            measured(
                arguments.folder,
                rung,
                workload,
                arguments.device,
                arguments.repeat,
                beside_it,
                arguments.witness,
                records,
            )
        )
        result = {
            **circumstances(workload, arguments.model, arguments.device, _LIBRARIES),
            "folder_bytes": nbytes,
            "folder_write_s": write_s,
            "rungs": rows,
        }
        write_whole(arguments.output, json.dumps(result, indent=1) + "\n")


def circumstances(workload: Workload, model: str, device: str, libraries: Sequence[str]) -> dict[str, Any]:
    """Commit, machine with its GPU, versions and workload of a result, as in a record."""
    revision, dirty = commit(Path(__file__).resolve().parent.parent)
    opened = open_device(device)
    described = opened.describe()
    opened.close()
    return {
        "commit": revision,
        "dirty": dirty,
        "machine": msgspec.to_builtins(machine(described)),
        "versions": {name: version for name in libraries if (version := installed(name))},
        "workload": {**vars(workload), "model": model},
    }


if __name__ == "__main__":
    main()
