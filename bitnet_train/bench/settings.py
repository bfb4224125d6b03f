"""Settings of measuring speed: the section `bench`."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class BenchConfig:
    """How fast the packed model is, and its peers."""

    prompt_tokens: int = setting(128, "tokens of the prefill", at_least=1)
    new_tokens: int = setting(64, "tokens decoded, after a prompt of one token", at_least=1)
    repeats: int = setting(5, "timed runs of each; figures are medians", at_least=1)
    threads: tuple[int, ...] = setting((), "numbers of threads; empty = 1 and every core", at_least=1)
    isas: tuple[str, ...] = setting((), "instruction sets; empty = every compiled one that this CPU has")
    contexts: tuple[int, ...] = setting(
        (), "also time a token after so many tokens, such as [128,1024,8192]", at_least=1
    )
    against: str | None = setting(
        None, "float model to compare with, as `model.source` names one", path=True, model=True
    )
    gguf: str | None = setting(None, "GGUF file that `llama-bench` runs beside ours", path=True)
    llama_bench: str | None = setting(
        None, "llama.cpp's program; null = BITNET_TRAIN_LLAMA_BENCH, or `llama-bench` on the PATH", path=True
    )

    def __post_init__(self) -> None:
        require_allowed(self, "bench")
