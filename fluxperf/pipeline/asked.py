"""The arguments of one pipeline call, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from fluxperf.engine.config import FluxConfig
from fluxperf.errors import ConfigError, UnknownNameError
from fluxperf.workloads import GUIDANCE, Workload

#: Longest T5 sequence that FLUX.1 was trained with.
MOST_TOKENS = 512

#: Default steps, as in the model cards.
STEPS = {False: 4, True: 28}

OUTPUTS = ("pil", "np", "pt", "latent")

#: Arguments of diffusers' pipeline for features that this pipeline does not have, and the name of each feature.
_NOT_DONE = {
    "ip_adapter_image": "IP adapters",
    "ip_adapter_image_embeds": "IP adapters",
    "negative_ip_adapter_image": "IP adapters",
    "negative_ip_adapter_image_embeds": "IP adapters",
    "joint_attention_kwargs": "LoRA scales and attention processors",
}


#: Values of these arguments that do not request the feature.
_NO_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "joint_attention_kwargs": ({}, {"scale": 1.0}),
}


@dataclass(frozen=True)
class Asked:
    """The checked arguments of one call.

    ``prompts`` are CLIP's input, ``prompts_2`` T5's; both are empty if embeddings are given. ``sigmas`` are the
    caller's noise levels, not shifted yet.
    """

    prompts: tuple[str, ...]
    prompts_2: tuple[str, ...]
    workload: Workload
    guidance: float | None
    per_prompt: int
    notes: tuple[str, ...] = ()
    sigmas: tuple[float, ...] | None = None


def asked(
    config: FluxConfig,
    prompt: str | Sequence[str] | None,
    prompt_2: str | Sequence[str] | None = None,
    given: int = 0,
    text_tokens: int = MOST_TOKENS,
    height: int | None = 1024,
    width: int | None = 1024,
    steps: int | None = None,
    guidance: float | None = None,
    per_prompt: int | None = 1,
    sigmas: Any = None,
) -> Asked:
    """Checks a call's arguments, and replaces ``None`` by the model's default.

    Args:
        config: of the model.
        prompt: one or several; ``None`` if embeddings are given.
        prompt_2: T5's prompts; ``prompt`` if ``None``.
        given: number of embeddings that are given instead.
        text_tokens: length of T5's sequence.
        height: pixels, a multiple of 16.
        width: pixels, a multiple of 16.
        steps: Euler steps; 4 for schnell and 28 for dev if ``None``.
        guidance: guidance scale, for models that embed one.
        per_prompt: pictures per prompt.
        sigmas: noise levels, one per step.

    Raises:
        ConfigError: an argument has an unsupported value.
    """
    levels = None if sigmas is None else _levels(sigmas, steps)
    if (prompt is None) == (given == 0):
        raise ConfigError(
            "expected either prompt, or prompt_embeds with pooled_prompt_embeds, got "
            f"{'neither' if prompt is None else 'both'}. Give one of them."
        )
    if prompt_2 is not None and prompt is None:
        raise ConfigError("prompt_2: expected a prompt too, got embeddings, which replace both. Leave prompt_2 out.")
    prompts = texts("prompt", prompt)
    prompts_2 = prompts if prompt_2 is None else texts("prompt_2", prompt_2, len(prompts))
    height, width = (
        1024 if size is None else whole(name, size) for name, size in (("height", height), ("width", width))
    )
    per_prompt = 1 if per_prompt is None else whole("num_images_per_prompt", per_prompt)
    text_tokens = whole("max_sequence_length", text_tokens)
    steps = STEPS[config.guidance] if steps is None else whole("num_inference_steps", steps)
    steps = steps if levels is None else len(levels)
    if per_prompt < 1:
        raise ConfigError(f"num_images_per_prompt {per_prompt}: expected at least 1.")
    if prompts and not 1 <= text_tokens <= MOST_TOKENS:
        raise ConfigError(
            f"max_sequence_length {text_tokens}: expected 1 to {MOST_TOKENS}, the longest that FLUX.1 was trained with."
        )
    batch = (len(prompts) or given) * per_prompt
    workload = Workload("picture", config.name, height, width, text_tokens, steps, batch)
    if not config.guidance:
        notes = ("guidance_scale has no effect: this model (schnell) does not embed it.",) if guidance else ()
        return Asked(prompts, prompts_2, workload, None, per_prompt, notes, levels)
    if guidance is not None and not _is_number(guidance):
        raise ConfigError(f"guidance_scale {guidance!r}: expected a number, such as {GUIDANCE}.")
    scale = GUIDANCE if guidance is None else float(guidance)
    if not 0 <= scale < float("inf"):
        raise ConfigError(f"guidance_scale {guidance}: expected a finite number of at least 0, such as {GUIDANCE}.")
    return Asked(prompts, prompts_2, workload, scale, per_prompt, sigmas=levels)


def _levels(sigmas: Any, steps: int | None) -> tuple[float, ...]:
    """Noise levels given by the caller, one per step; checked."""
    try:
        levels = tuple(float(level) for level in sigmas)
    except (TypeError, ValueError):
        levels = ()
    if not levels or not all(0 < level <= 1 for level in levels):
        raise ConfigError(
            f"sigmas: expected noise levels above 0 and at most 1, one per step, got {str(sigmas)[:60]}. Leave out "
            "the final 0; it is added."
        )
    if steps is not None and whole("num_inference_steps", steps) != len(levels):
        raise ConfigError(
            f"sigmas: expected {steps} levels, one per step of num_inference_steps, got {len(levels)}. Leave one of "
            "the two arguments out."
        )
    return levels


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def whole(name: str, value: Any) -> int:
    """A whole number, of Python's or NumPy's type, as int.

    Raises:
        ConfigError: the value is not a whole number.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(
            f"{name} {value!r}: expected a whole number, got {type(value).__name__}. Convert it with int()."
        )
    return int(value)


def texts(name: str, value: str | Sequence[str] | None, count: int | None = None) -> tuple[str, ...]:
    """The texts of an argument, checked. If ``count`` is given and there is one text, it is repeated that often.

    Raises:
        ConfigError: a value is not text, there is none, or their number is wrong.
    """
    found = _texts(name, value)
    repeated = found * count if count and len(found) == 1 else found
    if count is not None and len(repeated) != count:
        raise ConfigError(
            f"{name}: expected 1 text, or {count} as in prompt, got {len(repeated)}. Give one per prompt."
        )
    return repeated


def _texts(name: str, value: str | Sequence[str] | None) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, str | list | tuple):
        raise ConfigError(f"{name}: expected text or a list of texts, got {type(value).__name__}.")
    texts = (value,) if isinstance(value, str) else tuple(value)
    if not texts:
        raise ConfigError(f"{name}: expected at least one text, got an empty list.")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ConfigError(f"{name}: expected text or a list of texts, got {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            which = f" {number} of {len(texts)}" if len(texts) > 1 else ""
            raise ConfigError(
                f"{name}{which}: expected Unicode text, got {text[error.start]!a}, a byte that is not valid UTF-8. "
                "Encode the text in UTF-8."
            ) from error
    return texts


def refuse(others: Mapping[str, Any]) -> None:
    """Refuses arguments that the pipeline does not have.

    Raises:
        ConfigError: diffusers' pipeline has such an argument, but this pipeline does not have the feature.
        UnknownNameError: neither pipeline has it; the message lists the known ones.
    """
    for name, value in others.items():
        if name not in _NOT_DONE:
            raise UnknownNameError("argument", name, _ARGUMENTS)
        if value is not None and value not in _NO_EFFECT.get(name, ()):
            raise ConfigError(f"{name}: {_NOT_DONE[name]} are not supported. Leave the argument out, or use diffusers.")


#: Arguments of diffusers' ``from_pretrained`` that this one does not have, and their values that request nothing.
_OF_LOADING: Mapping[str, tuple[Any, ...]] = {
    "use_safetensors": (None, True), "low_cpu_mem_usage": (None, True, False), "device_map": (None,),
    "cache_dir": (None,), "token": (None,), "force_download": (None, False), "max_memory": (None,),
    "quantization_config": (None,), "custom_pipeline": (None,),
}  # fmt: skip


def refuse_to_load(others: Mapping[str, Any]) -> None:
    """Refuses arguments of ``from_pretrained`` that request unsupported features.

    Raises:
        ConfigError: diffusers has such an argument, and its value requests something.
        UnknownNameError: neither has it.
    """
    for name, value in others.items():
        if name not in _OF_LOADING:
            known = ("rung", "device", "dtype", "revision", "variant", "transformer", "t5", "t5_precision", "memory_gb")
            raise UnknownNameError("argument of from_pretrained", name, known)
        if value not in _OF_LOADING[name]:
            raise ConfigError(
                f"{name}={value!r}: expected this argument to be left out, as it is not supported. Set the hub's "
                "cache and token by HF_HUB_CACHE and HF_TOKEN, precision by rung, dtype and t5_precision, memory by "
                "memory_gb."
            )


_ARGUMENTS = (
    "prompt", "prompt_2", "height", "width", "num_inference_steps", "guidance_scale", "num_images_per_prompt",
    "generator", "seed", "noise_from", "latents", "prompt_embeds", "pooled_prompt_embeds", "output_type", "return_dict",
    "max_sequence_length", "on_step", "sigmas", "negative_prompt", "negative_prompt_2", "true_cfg_scale",
    "negative_prompt_embeds", "negative_pooled_prompt_embeds", "callback_on_step_end",
    "callback_on_step_end_tensor_inputs",
)  # fmt: skip


def checked_output(kind: str) -> str:
    """Name of an output type, checked.

    Raises:
        UnknownNameError: there is no such output type.
    """
    if kind not in OUTPUTS:
        raise UnknownNameError("output_type", kind, OUTPUTS)
    return kind
