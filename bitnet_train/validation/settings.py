"""Settings of the proof: the section `validate`."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class ValidateConfig:
    """Proof that the artefact computes what was trained."""

    num_prompts: int = setting(32, "prompts whose logits are compared", at_least=1)
    new_tokens: int = setting(16, "tokens continued greedily per prompt", at_least=1)
    num_tokens: int = setting(2048, "tokens whose perplexity is compared", at_least=1)
    all_isas: bool = setting(True, "check the integers on every instruction set of this CPU")
    native_tokens: int = setting(
        16, "tokens that the native runtime and torch continue each of ten prompts by", at_least=1
    )
    against: str | None = setting(None, "merged model to compare with; null = the run's own", path=True)

    def __post_init__(self) -> None:
        require_allowed(self, "validate")
