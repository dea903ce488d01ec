"""What the model answers."""

from __future__ import annotations

import ctypes
import enum
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from . import _ffi
from ._ffi import lib
from .errors import failure


class FinishReason(str, enum.Enum):
    """Why an answer ended."""

    STOP = "stop"
    """The model or a stop text ended it."""
    LENGTH = "length"
    """`max_tokens` was reached."""
    CONTEXT = "context"
    """The context is full."""
    CANCELLED = "cancelled"
    """It was cancelled, or a text callback returned False."""


_REASONS = {1: FinishReason.STOP, 2: FinishReason.LENGTH, 3: FinishReason.CONTEXT, 4: FinishReason.CANCELLED}


class TokenLogprob(NamedTuple):
    """A token and its natural log-probability under the model, before temperature and the like."""

    id: int
    logprob: float


class Score(NamedTuple):
    """The likelihood of a choice as an answer: the sum of its tokens' natural log-probabilities, and their number, by which
    to divide to compare choices of different lengths."""

    logprob: float
    tokens: int


class Timings(NamedTuple):
    """Where the time went, in milliseconds."""

    preprocess_ms: float
    """For resizing and normalising images."""
    encode_ms: float
    """In the vision tower and projector."""
    prefill_ms: float
    """For the prompt in the language model."""
    first_token_ms: float
    """From the call to the first token."""
    total_ms: float
    """Of the whole turn."""


@dataclass(frozen=True)
class Answer:
    """An answer. `str(answer)` is its text."""

    text: str
    """Without stop texts."""
    token_ids: tuple[int, ...]
    """The generated tokens, without the one that ended the answer."""
    finish_reason: FinishReason
    prompt_tokens: int
    """Positions of the whole prompt, image tokens included."""
    image_tokens: int
    """How many of those are image tokens."""
    timings: Timings
    logprobs: Optional[tuple[TokenLogprob, ...]] = None
    """Of each token in `token_ids`, if asked for."""
    top_logprobs: Optional[tuple[tuple[TokenLogprob, ...], ...]] = None
    """The most likely tokens at each place, most likely first, if asked for."""

    def __str__(self) -> str:
        return self.text


def take(pointer: Any, logprobs: Optional[int]) -> Answer:
    """Copies an answer out of the library and frees it. `logprobs` is what the question asked for."""
    try:
        a = pointer.contents
        if a.status != 0:
            raise failure(a.status, _ffi.decode(a.error))

        def pairs(values: Any, first: int, n: int) -> tuple[TokenLogprob, ...]:
            return tuple(TokenLogprob(t.id, t.logprob) for t in values[first : first + n]) if n else ()

        n, n_top = a.n_tokens, a.n_top
        top = [pairs(a.top_logprobs, i * n_top, n_top) for i in range(n)] if logprobs else None
        return Answer(
            text=ctypes.string_at(a.text, a.text_size).decode("utf-8", "replace"),
            token_ids=tuple(a.token_ids[:n]) if n else (),
            finish_reason=_REASONS[a.finish_reason],
            prompt_tokens=a.prompt_tokens,
            image_tokens=a.image_tokens,
            timings=Timings(a.preprocess_ms, a.encode_ms, a.prefill_ms, a.first_token_ms, a.total_ms),
            logprobs=pairs(a.logprobs, 0, n) if logprobs is not None else None,
            top_logprobs=tuple(top) if top is not None else None,
        )
    finally:
        lib.llava_answer_free(pointer)
