"""How answers are made."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Optional, TypedDict

from . import _ffi
from ._ffi import integer
from .errors import InvalidArgument


@dataclass(frozen=True)
class Generation:
    """How answers are made. The default is greedy: the same question has the same answer. Probabilities are shaped in the
    order of the fields."""

    max_tokens: int = 512
    """Tokens in the answer at most."""
    repeat_penalty: float = 1.0
    """Makes tokens of the answer so far less likely: above 1 discourages."""
    temperature: float = 0.0
    """Divides the logits; 0 always takes the most likely token."""
    top_k: int = 0
    """Draw from this many of the most likely tokens; 0 is all of them."""
    top_p: float = 1.0
    """Draw from the fewest most likely tokens whose probabilities sum to this; 1 is all of them."""
    min_p: float = 0.0
    """Draw only from tokens at least this likely relative to the most likely one; 0 is all of them."""
    seed: Optional[int] = None
    """Seed of the draws; None takes different ones every time."""
    logprobs: Optional[int] = None
    """Have the tokens' log-probabilities in the answer, and those of this many most likely tokens at each place."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """What is added to the logits of tokens before anything else; minus infinity forbids one."""
    stop: Sequence[str] = ()
    """Texts that end the answer and are not part of it, besides the template's own."""
    stop_tokens: Sequence[int] = ()
    """Tokens that end the answer, besides the model's own."""

    def with_options(self, options: Mapping[str, Any]) -> Generation:
        """The same but for what `options` names."""
        unknown = sorted(set(options) - {f.name for f in fields(self)})
        if unknown:
            known = ", ".join(f.name for f in fields(self))
            raise TypeError(f"no generation option is called {', '.join(unknown)}; there are {known}")
        return replace(self, **options) if options else self

    def to_c(self) -> _ffi.GenerationOptions:
        """For the library, which checks the ranges. What it points to lives as long as it does."""
        for name in ("repeat_penalty", "top_p"):
            if getattr(self, name) == 0:  # In C the default.
                raise InvalidArgument(f"{name}: is 0, expected more")
        try:
            bias = [_ffi.LogitBias(integer("logit_bias", t, 32), b) for t, b in self.logit_bias.items()]
            stop = _ffi.texts("stop", self.stop)
            tokens = [integer("stop_tokens", t, 32) for t in self.stop_tokens]
            return _ffi.GenerationOptions(
                struct_size=ctypes.sizeof(_ffi.GenerationOptions),
                max_tokens=integer("max_tokens", self.max_tokens, least=1),
                repeat_penalty=self.repeat_penalty,
                temperature=self.temperature,
                top_k=integer("top_k", self.top_k),
                top_p=self.top_p,
                min_p=self.min_p,
                seed=0 if self.seed is None else integer("seed", self.seed),
                has_seed=self.seed is not None,
                logprobs=self.logprobs is not None,
                top_logprobs=0 if self.logprobs is None else integer("logprobs", self.logprobs),
                logit_bias=(_ffi.LogitBias * len(bias))(*bias),
                n_logit_bias=len(bias),
                stop=stop,
                n_stop=len(stop),
                stop_tokens=(ctypes.c_uint32 * len(tokens))(*tokens),
                n_stop_tokens=len(tokens),
            )
        except (TypeError, AttributeError) as error:
            raise InvalidArgument(f"generation: {error}") from error


class Options(TypedDict, total=False):
    """The fields of Generation as keyword arguments."""

    max_tokens: int
    repeat_penalty: float
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: Optional[int]
    logprobs: Optional[int]
    logit_bias: Mapping[int, float]
    stop: Sequence[str]
    stop_tokens: Sequence[int]
