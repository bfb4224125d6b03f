"""Settings of what is minimised: the sections `loss` and `teacher`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.errors import ConfigError
from bitnet_train.settings import require_allowed, setting

WEIGHTS = ("kl", "reverse_kl", "ce", "hidden", "attention")


@dataclass(frozen=True)
class LossConfig:
    """The weighted sum that training lowers, nats per token."""

    kl: float = setting(1.0, "weight of the forward KL divergence from the frozen model's logits", at_least=0)
    reverse_kl: float = setting(
        0.0, "weight of the reverse KL divergence, from the student's side: seeks modes", at_least=0
    )
    ce: float = setting(0.0, "weight of the cross-entropy with the text", at_least=0)
    hidden: float = setting(0.0, "weight of the squared distance of normalised hidden states", at_least=0)
    attention: float = setting(
        0.0, "weight of the KL between the relations of queries, keys, values in one block", at_least=0
    )
    attention_layer: int = setting(-1, "block of the attention term; negative = from the end, -1 = the last")
    temperature: float = setting(1.0, "softmax temperature of both KL terms", above=0)
    hidden_balance: bool = setting(
        True, "scale hidden and attention by measured gradient norms, at the first step and `balance_step`"
    )
    balance_step: int = setting(100, "optimiser step at which the balance is measured", at_least=0)

    def __post_init__(self) -> None:
        require_allowed(self, "loss")
        if not any(getattr(self, key) for key in WEIGHTS):
            names = ", ".join(f"`loss.{key}`" for key in WEIGHTS)
            raise ConfigError(f"All weights ({names}) are 0: nothing would be learnt. Set one.")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the frozen model."""
        return any(getattr(self, key) > 0 for key in WEIGHTS if key != "ce")

    @property
    def uses_logits(self) -> bool:
        """Whether any term is over logits."""
        return self.kl + self.reverse_kl + self.ce > 0

    @property
    def balanced(self) -> tuple[str, ...]:
        """The terms whose weight is measured: those that are on and not over logits, beside one that is."""
        names = [key for key in ("hidden", "attention") if getattr(self, key) > 0]
        return tuple(names) if self.hidden_balance and self.uses_logits else ()


@dataclass(frozen=True)
class TeacherConfig:
    """Who the student is compared with, and whether its answers are kept."""

    source: str | None = setting(
        None,
        "another model of the same vocabulary, as `model.source` names one; null = the model itself",
        path=True,
        model=True,
    )
    products: Literal["auto", "float", "int8"] = setting(
        "auto", "its linears: float, or int8 by int8; auto = int8 beside a student in integers, where that costs little"
    )
    cache: Literal["none", "topk", "states"] = setting(
        "none",
        "what is kept of every row on disk, for later epochs and runs: topk = the likeliest tokens, for `loss.kl` "
        "alone; states = the last hidden states in bf16, for all terms over logits",
    )
    top_k: int = setting(64, "tokens kept per position by topk; the others share one bucket", at_least=1)
    cache_dir: str | None = setting(
        None, "folder of kept answers, shared by runs; null = the run's own cache", path=True
    )

    def __post_init__(self) -> None:
        require_allowed(self, "teacher")
