"""Text encoders: prompts become embeddings on the device. CLIP returns the pooled text, T5 the text tokens.

Source: ``encode_prompt`` of diffusers' ``FluxPipeline``. Modules and tokenizers are the libraries' own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fluxperf.errors import CheckpointError, UnknownNameError
from fluxperf.pipeline import modules
from fluxperf.pipeline.bridge import Bridge
from fluxperf.pipeline.embeddings import Embedded, Key, PromptCache
from fluxperf.pipeline.folder import ModelFolder
from fluxperf.pipeline.libraries import quiet
from fluxperf.pipeline.modules import Plan, library_errors
from fluxperf.pipeline.single import SingleFile
from fluxperf.pipeline.t5 import quantize

#: Largest number of prompts in one batch.
_AT_ONCE = 8

#: Where T5 is between prompts: ``keep`` on the device, ``offload`` to the host's memory, or ``free`` and read from disk
#: again for a new prompt.
T5Keeping = Literal["keep", "offload", "free"]
#: How T5's weights are stored: in the activations' dtype, or in e4m3 with one scale per output channel.
T5Precision = Literal["full", "fp8"]


def check_t5(keeping: str, precision: str) -> None:
    """Raises for unknown options of T5.

    Raises:
        UnknownNameError: no such place or precision.
    """
    for name, value, known in (("t5", keeping, T5Keeping), ("t5_precision", precision, T5Precision)):
        if value not in get_args(known):
            raise UnknownNameError(name, value, get_args(known))


@dataclass(frozen=True)
class TextOptions:
    """How prompts are encoded: where T5 is between prompts, its weights' precision, and the number of cached prompts.

    Raises:
        UnknownNameError: no such place or precision.
    """

    t5: T5Keeping = "keep"
    t5_precision: T5Precision = "full"
    cached: int = 16

    def __post_init__(self) -> None:
        check_t5(self.t5, self.t5_precision)


@dataclass(frozen=True)
class TextPlan:
    """Tokenizers, and encoders whose tensors were all found in the files; no values have been read."""

    clip_tokenizer: Any
    t5_tokenizer: Any
    clip: Plan
    t5: Plan


def plan_text(folder: ModelFolder, single: SingleFile | None = None) -> TextPlan:
    """Text encoders of a model folder, or of a single file, with the folder's tokenizers; all of them checked.

    Raises:
        CheckpointError: a tokenizer or an encoder cannot be used, or they do not fit each other; the message says
            which.
        DeviceError: PyTorch or transformers is missing.
    """
    clip = modules.plan(folder.path / "text_encoder", modules.CLIP, folder.variant, single)
    t5 = modules.plan(folder.path / "text_encoder_2", modules.T5, folder.variant, single)
    first = _tokenizer(folder.path / "tokenizer", "CLIPTokenizer", clip)
    second = _tokenizer(folder.path / "tokenizer_2", "T5TokenizerFast", t5)
    most, positions = first.model_max_length, clip.settings.max_position_embeddings
    if most > positions:
        raise CheckpointError(
            f"{folder.path / 'tokenizer'}: expected model_max_length of at most {positions}, CLIP's number of "
            f"positions, got {most:.6g}. tokenizer_config.json is of another model, or incomplete; download it again."
        )
    ends = {"eos_token_id": second.eos_token_id, "pad_token_id": second.pad_token_id}
    wrong = [name for name, found in ends.items() if getattr(t5.settings, name, found) != found]
    if wrong:
        raise CheckpointError(
            f"{folder.path / 'tokenizer_2'}: expected T5's tokenizer, whose {wrong[0]} is "
            f"{getattr(t5.settings, wrong[0])}, got one where it is {ends[wrong[0]]}. It belongs to another model; "
            "download it again."
        )
    return TextPlan(first, second, clip, t5)


def _tokenizer(folder: Path, name: str, encoder: Plan) -> Any:
    """A tokenizer that works on a sample, and whose ids are in the encoder's vocabulary."""
    try:
        with quiet("transformers") as transformers, library_errors(folder, "a tokenizer"):
            tokenizer = getattr(transformers, name).from_pretrained(folder)
            tokenizer(["a trial"], padding="max_length", max_length=8, truncation=True)
            highest = max(tokenizer.get_vocab().values())
    except CheckpointError as error:
        if (folder / "tokenizer.json").is_file() or not (folder / "spiece.model").is_file():
            raise
        raise CheckpointError(
            f"{folder}: expected tokenizer.json, found only spiece.model, which transformers converts with "
            "sentencepiece and protobuf. Download tokenizer.json from the same source, or install these two. The "
            f"error was: {str(error.__cause__)[:200]}"
        ) from error
    if highest >= encoder.settings.vocab_size:
        raise CheckpointError(
            f"{folder}: expected ids below {encoder.settings.vocab_size}, the vocabulary of {encoder.folder.name}/, "
            f"got up to {highest}. Tokenizer and encoder belong to different models; download both again."
        )
    return tokenizer


class TextEncoders:
    """CLIP and T5 of a model folder.

    Args:
        plan: of their folders.
        bridge: PyTorch on the device.
        dtype: of weights and activations, ``float32`` or ``bfloat16``.
        how: options for encoding prompts.
        on_bytes: called with the number of bytes of T5 as they are read.

    Raises:
        CheckpointError: a value is not finite.
    """

    def __init__(
        self,
        plan: TextPlan,
        bridge: Bridge,
        dtype: str,
        how: TextOptions,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
    ) -> None:
        self._bridge, self._dtype, self.keeping, self.precision = bridge, dtype, how.t5, how.t5_precision
        self._plan, self._on_bytes = plan, on_bytes
        self.cache = PromptCache(how.cached)
        self.clip_tokenizer, self.t5_tokenizer = plan.clip_tokenizer, plan.t5_tokenizer
        with bridge.work():
            self.clip = plan.clip.load(bridge, dtype, "text encoder weights")
        #: T5's encoder; ``None`` while it is freed.
        self.t5: Any = None
        if how.t5 != "free":
            self._load_t5()
            self._park_t5()

    def encode(self, prompts: Sequence[str], prompts_2: Sequence[str], tokens: int) -> tuple[list[Embedded], list[str]]:
        """Embeddings of prompts, and a sentence for each prompt that was cut.

        Cached prompts cost nothing. The others are encoded in batches of 8, with two copies of token ids each, one per
        encoder.

        Args:
            prompts: CLIP's texts.
            prompts_2: T5's texts, as many.
            tokens: length of T5's sequence.
        """
        keys = [Key(*both, tokens) for both in zip(prompts, prompts_2, strict=True)]
        known = {key: self.cache.get(key) for key in keys}
        clip_ids, clip_cut = _ids(self.clip_tokenizer, [key.prompt for key in known], None)
        t5_ids, t5_cut = _ids(self.t5_tokenizer, [key.prompt_2 for key in known], tokens)
        new = [key for key, value in known.items() if value is None]
        rows = [row for row, value in enumerate(known.values()) if value is None]
        notes = [
            f"CLIP {cut} CLIP's pooled text affects the picture as a whole; T5 still reads the words."
            for cut in clip_cut
        ]
        notes += [f"T5 {cut} The rest has no effect on the picture." for cut in t5_cut]
        if new:
            with self._bridge.work():
                self._wake_t5()
                for first in range(0, len(new), _AT_ONCE):
                    some = slice(first, first + _AT_ONCE)
                    texts, pooleds = self._texts(t5_ids[rows[some]]), self._pooled(clip_ids[rows[some]])
                    for key, text, pooled in zip(new[some], texts, pooleds, strict=True):
                        known[key] = Embedded(text, pooled)
                        self.cache.put(key, Embedded(text, pooled))
                self._park_t5()
        return [value for key in keys if (value := known[key]) is not None], notes

    @property
    def words(self) -> str:
        """Description of the encoders for metadata: the dtype, and T5's precision if it differs."""
        return self._dtype if self.precision == "full" else f"{self._dtype}, T5 in {self.precision}"

    def stored(self, prompts: Sequence[str], prompts_2: Sequence[str], tokens: int) -> tuple[list[Embedded], list[str]]:
        """Embeddings of prompts as NumPy arrays on the host, and a sentence for each prompt that was cut."""
        embedded, notes = self.encode(prompts, prompts_2, tokens)
        with self._bridge.work():
            return [Embedded(*(self._bridge.down(x, "prompt embeddings") for x in one)) for one in embedded], notes

    def _pooled(self, ids: Any) -> Any:
        """CLIP's pooled text [N, P]."""
        return self.clip(self._bridge.up(ids, "prompt ids"), output_hidden_states=False).pooler_output.float()

    def _texts(self, ids: Any) -> Any:
        """T5's text tokens [N, T, C]."""
        return self.t5(self._bridge.up(ids, "prompt ids"), output_hidden_states=False)[0].float()

    def _wake_t5(self) -> None:
        """Moves T5 to the device if it is not there."""
        if self.t5 is None:
            self._load_t5()
        elif self.keeping == "offload":
            self.t5.to(self._bridge.place)

    def _load_t5(self) -> None:
        with self._bridge.work():
            self.t5 = self._plan.t5.load(self._bridge, self._dtype, "text encoder weights", self._on_bytes)
            if self.precision == "fp8":
                quantize(self.t5)

    def _park_t5(self) -> None:
        """Moves T5 to its place between prompts."""
        if self.keeping == "keep":
            return
        if self.keeping == "offload":
            self.t5.to("cpu")
        else:
            self.t5 = None
        gc.collect()


def _ids(tokenizer: Any, prompts: Sequence[str], tokens: int | None) -> tuple[Any, list[str]]:
    """Token ids [N, T] as int64, and a sentence for each prompt that was cut.

    Args:
        tokenizer: of an encoder.
        prompts: texts.
        tokens: length of a row; the tokenizer's own if ``None``.
    """
    length = tokenizer.model_max_length if tokens is None else tokens
    # The length is checked here, so the tokenizer's own warning is off.
    whole = tokenizer(list(prompts), padding=False, truncation=False, verbose=False).input_ids
    cut = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True).input_ids
    notes = []
    for prompt, ids in zip(prompts, whole, strict=True):
        if len(ids) > length:
            lost = tokenizer.decode(ids[length - 1 : -1], skip_special_tokens=True)
            notes.append(
                f"takes {length} tokens, the prompt {_short(prompt)} has {len(ids)}: cut before {_short(lost)}."
            )
    return np.asarray(cut, np.int64), notes


def _short(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= 60 else f"{words[:57]}...")
