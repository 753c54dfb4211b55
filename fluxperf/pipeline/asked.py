"""What one call of the pipeline is asked for, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from fluxperf.engine.config import FluxConfig
from fluxperf.errors import ConfigError, UnknownNameError
from fluxperf.workloads import GUIDANCE, Workload

#: Length of T5's sequence that FLUX.1 was trained with at most.
MOST_TOKENS = 512

#: Steps of the model cards.
STEPS = {False: 4, True: 28}

OUTPUTS = ("pil", "np", "pt", "latent")

#: Arguments of diffusers' pipeline that stand for something which this one does not do.
_NOT_DONE = {
    "negative_prompt": "classifier-free guidance",
    "negative_prompt_2": "classifier-free guidance",
    "true_cfg_scale": "classifier-free guidance",
    "negative_prompt_embeds": "classifier-free guidance",
    "negative_pooled_prompt_embeds": "classifier-free guidance",
    "ip_adapter_image": "IP adapters",
    "ip_adapter_image_embeds": "IP adapters",
    "negative_ip_adapter_image": "IP adapters",
    "negative_ip_adapter_image_embeds": "IP adapters",
    "joint_attention_kwargs": "LoRA scales and attention processors",
    "sigmas": "noise levels of your own",
    "callback_on_step_end": "callbacks that change latents (on_step=f is told step and seconds)",
    "callback_on_step_end_tensor_inputs": "callbacks that change latents",
}


#: Values of theirs that ask for nothing.
_NO_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "true_cfg_scale": (1, 1.0),
    "joint_attention_kwargs": ({},),
    "callback_on_step_end_tensor_inputs": (["latents"], ("latents",)),
}


@dataclass(frozen=True)
class Asked:
    """One call. ``prompts`` are what CLIP reads, ``prompts_2`` what T5 reads; both empty where embeddings are given."""

    prompts: tuple[str, ...]
    prompts_2: tuple[str, ...]
    workload: Workload
    guidance: float | None
    per_prompt: int
    notes: tuple[str, ...] = ()


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
) -> Asked:
    """A call's arguments, checked, with the model's own values for those that are ``None``.

    Args:
        config: of the model.
        prompt: one or several, or ``None`` where embeddings are given.
        prompt_2: the same for T5; ``prompt`` if none.
        given: how many embeddings are given instead.
        text_tokens: length of T5's sequence.
        height: pixels, a multiple of 16.
        width: pixels, a multiple of 16.
        steps: Euler steps; 4 for schnell and 28 for dev if none.
        guidance: scale, for models that embed one.
        per_prompt: pictures of each prompt.

    Raises:
        ConfigError: one of them cannot be.
    """
    if (prompt is None) == (given == 0):
        raise ConfigError(
            "expected either prompt, or prompt_embeds with pooled_prompt_embeds, got "
            f"{'neither' if prompt is None else 'both'}."
        )
    prompts = _texts("prompt", prompt)
    prompts_2 = prompts if prompt_2 is None else _texts("prompt_2", prompt_2)
    if prompt_2 is not None and prompt is None:
        raise ConfigError("prompt_2: expected a prompt beside it, got embeddings, which hold both. Leave it out.")
    if len(prompts_2) == 1:
        prompts_2 *= len(prompts)
    if len(prompts_2) != len(prompts):
        raise ConfigError(f"prompt_2: expected one, or {len(prompts)} as prompt has, got {len(prompts_2)}.")
    height, width = (
        1024 if size is None else whole(name, size) for name, size in (("height", height), ("width", width))
    )
    per_prompt = 1 if per_prompt is None else whole("num_images_per_prompt", per_prompt)
    text_tokens = whole("max_sequence_length", text_tokens)
    steps = STEPS[config.guidance] if steps is None else whole("num_inference_steps", steps)
    if per_prompt < 1:
        raise ConfigError(f"num_images_per_prompt {per_prompt}: expected at least 1.")
    if prompts and not 1 <= text_tokens <= MOST_TOKENS:
        raise ConfigError(
            f"max_sequence_length {text_tokens}: expected 1 to {MOST_TOKENS}, the longest that FLUX.1 was trained with."
        )
    batch = (len(prompts) or given) * per_prompt
    workload = Workload("picture", config.name, height, width, text_tokens, steps, batch)
    if not config.guidance:
        notes = ("guidance has no effect: this model embeds none (schnell).",) if guidance else ()
        return Asked(prompts, prompts_2, workload, None, per_prompt, notes)
    if guidance is not None and not _is_number(guidance):
        raise ConfigError(f"guidance_scale {guidance!r}: expected a number, such as {GUIDANCE}.")
    scale = GUIDANCE if guidance is None else float(guidance)
    if not 0 <= scale < float("inf"):
        raise ConfigError(f"guidance_scale {guidance}: expected a finite number of at least 0, such as {GUIDANCE}.")
    return Asked(prompts, prompts_2, workload, scale, per_prompt)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def whole(name: str, value: Any) -> int:
    """A whole number, of Python or NumPy.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name} {value!r}: expected a whole number, got {type(value).__name__}.")
    return int(value)


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
                f"{name}{which}: expected text of Unicode, got {text[error.start]!a} in place of a byte that is no "
                "UTF-8. Write it in UTF-8."
            ) from error
    return texts


def refuse(others: Mapping[str, Any]) -> None:
    """Complains about arguments that are none of the pipeline's.

    Raises:
        ConfigError: diffusers' pipeline has such an argument, and this one does not do what it stands for.
        UnknownNameError: nobody knows it; lists the known ones.
    """
    for name, value in others.items():
        if name not in _NOT_DONE:
            raise UnknownNameError("argument", name, _ARGUMENTS)
        if value is not None and value not in _NO_EFFECT.get(name, ()):
            raise ConfigError(f"{name}: {_NOT_DONE[name]} are not done here. Leave it out, or use diffusers for it.")


_ARGUMENTS = (
    "prompt", "prompt_2", "height", "width", "num_inference_steps", "guidance_scale", "num_images_per_prompt",
    "generator", "seed", "noise_from", "latents", "prompt_embeds", "pooled_prompt_embeds", "output_type", "return_dict",
    "max_sequence_length", "on_step",
)  # fmt: skip


def checked_output(kind: str) -> str:
    """Name of an output.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if kind not in OUTPUTS:
        raise UnknownNameError("output_type", kind, OUTPUTS)
    return kind
