"""Settings of continuing text: the section `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.runtime.generation import require_logit_bias
from bitnet_train.settings import require_allowed, setting

CacheDtype = Literal["float32", "int8"]


@dataclass(frozen=True)
class GenerateConfig:
    """How text is continued."""

    prompt: str = setting("def main(", "text to continue")
    messages: str | None = setting(
        None,
        "JSON file of a chat, a list of messages; where its last is no question, `generate.prompt` is the next",
        path=True,
    )
    system: str | None = setting(None, "system message of the chat, before all others")
    max_new_tokens: int = setting(64, "new tokens at most", at_least=1)
    temperature: float = setting(0.0, "0 = greedy", at_least=0)
    top_k: int = setting(0, "candidates kept; 0 = all", at_least=0)
    top_p: float = setting(1.0, "probability mass kept", above=0, at_most=1)
    min_p: float = setting(0.0, "least probability kept, as a share of the likeliest's; 0 = all", at_least=0, below=1)
    typical_p: float = setting(
        1.0, "probability mass kept of the tokens whose surprise is nearest to the mean; 1 = all", above=0, at_most=1
    )
    repetition_penalty: float = setting(
        1.0, "divides the logits of tokens of the prompt and the text; 1 = none", at_least=0.01, at_most=100
    )
    frequency_penalty: float = setting(
        0.0, "off the logit of a token for each time that the new text has it", at_least=-2, at_most=2
    )
    presence_penalty: float = setting(0.0, "off the logits of tokens that the new text has", at_least=-2, at_most=2)
    logit_bias: dict[int, float] = setting({}, "what is added to the logits of tokens, by their ids, as {50: -100}")
    seed: int = setting(0, "seed of sampling")
    chat: bool = setting(False, "wrap the prompt in the chat template")
    stop: tuple[str, ...] = setting((), "strings that end the text, which ends before them")
    engine: Literal["auto", "native", "hf"] = setting(
        "auto", "what computes; auto = native if the artefact fits, else hf"
    )
    threads: int | None = setting(None, "threads of the native engine; null = every core", at_least=1)
    cache_dtype: CacheDtype = setting(
        "float32", "how the native engine keeps keys and values; int8 = with a scale for each token and head"
    )
    prompt_cache: str | None = setting(
        None, "file that keeps what the native engine computed of the prompt; read or written", path=True
    )

    def __post_init__(self) -> None:
        require_allowed(self, "generate")
        require_logit_bias("generate.logit_bias", self.logit_bias)
