"""How many tokens a native model takes, and which: what is checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index

from bitnet_train.errors import DataError


@dataclass(frozen=True)
class Context:
    """Token ids below `vocab`; `max_tokens` of a prompt with its continuation, where the model has `max_positions`.

    `stated_positions` is what the model says of itself, if that is more: beyond `max_positions` its rotary embedding is
    another, which the Hugging Face engine alone computes.
    """

    vocab: int
    max_positions: int
    max_tokens: int
    stated_positions: int | None = None

    def check(self, token_ids: Sequence[int], max_new_tokens: int = 0) -> list[int]:
        """Return the ids; DataError where one is unknown, there is none, or they do not fit with the new ones."""
        prompt = self.known(token_ids)
        if not prompt:
            raise DataError("There are no token ids: nothing to continue. Give at least one.")
        if len(prompt) + max_new_tokens > self.max_tokens:
            limit = "this model's context" if self.max_tokens == self.max_positions else "`max_tokens`"
            raise DataError(
                f"The prompt has {len(prompt)} tokens and `max_new_tokens` is {max_new_tokens}, together "
                f"{len(prompt) + max_new_tokens}, but {limit} is {self.max_tokens} tokens{self._beyond()}. Shorten the "
                "prompt, or ask for fewer new tokens."
            )
        return prompt

    def _beyond(self) -> str:
        if self.max_tokens < self.max_positions or (self.stated_positions or 0) <= self.max_positions:
            return ""
        return (
            f" in the native engine (its rotary embedding is another for longer texts); `generate.engine=hf`, or "
            f"`bitnet_train.load`, takes up to {self.stated_positions}"
        )

    def known(self, token_ids: Sequence[int]) -> list[int]:
        """Return the ids; DataError where they are none, or one is unknown."""
        found = _whole_numbers(token_ids)
        wrong = next((token_id for token_id in found if not 0 <= token_id < self.vocab), None)
        if wrong is not None:
            raise DataError(f"Token id {wrong} is not one of this model, which knows 0 to {self.vocab - 1}.")
        return found


def require_known_bias(logit_bias: Mapping[int, float], vocab: int) -> None:
    """Raise DataError for a bias of a token that the model does not have."""
    wrong = next((token_id for token_id in logit_bias if token_id >= vocab), None)
    if wrong is not None:
        raise DataError(
            f"`logit_bias` names token id {wrong}, which is not one of this model: it knows 0 to {vocab - 1}. Leave it "
            "out."
        )


def _whole_numbers(token_ids: Sequence[int]) -> list[int]:
    """Return ids as a list; a text, a number, a fraction is none."""
    try:
        given = [] if isinstance(token_ids, str | bytes | Mapping) else list(token_ids)
        if isinstance(token_ids, str | bytes | Mapping) or any(isinstance(each, bool) for each in given):
            raise TypeError
        return [index(each) for each in given]
    except TypeError:
        raise DataError(
            f"Token ids are a list of whole numbers, and this is {type(token_ids).__name__}: {str(token_ids)[:60]}."
        ) from None
