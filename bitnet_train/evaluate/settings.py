"""Settings of measuring quality: the section `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class EvaluateConfig:
    """What the 1-bit model is worth, beside the model it was made from."""

    max_tokens: int = setting(32768, "tokens scored at most, of each text", at_least=1)
    texts: tuple[str, ...] = setting(
        (), "text files to score beside the held-out split, such as [wiki.test.raw]", path=True
    )
    window_tokens: int | None = setting(
        None, "tokens of a window of a text file; null = `data.context_tokens`", at_least=2
    )
    window_overlap: bool = setting(
        True, "predict every token of a text file; false = windows side by side, as figures are published"
    )
    against: str | None = setting(
        None,
        "model to compare with, as `model.source` names one; null = the run's original; none = no model",
        path=True,
        model=True,
    )
    choices: tuple[str, ...] = setting((), "multiple choice: JSON-lines files of question, choices, answer", path=True)
    max_questions: int | None = setting(
        None, "questions asked at most of each file, evenly spread; null = all", at_least=1
    )
    prompts: tuple[str, ...] = setting(
        (), "prompts to write on: QMSum, HumanEval, MT-bench, or `prompt` JSON lines", path=True
    )
    num_prompts: int = setting(4, "prompts of each file, evenly spread", at_least=1)
    prompt_new_tokens: int = setting(128, "tokens written at most after each prompt", at_least=1)
    prompt_tokens: int | None = setting(
        None, "tokens of a prompt at most; null = what the model's context leaves", at_least=1
    )
    frontier: str | None = setting(
        None, "result file of `python -m scripts.frontier`, to show the folder among other models", path=True
    )
    report: str | None = setting(
        None, "folder for evaluation.md and evaluation.html; null = the run directory, if there is one", path=True
    )

    def __post_init__(self) -> None:
        require_allowed(self, "evaluate")
