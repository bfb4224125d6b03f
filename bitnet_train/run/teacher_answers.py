"""Where a run keeps what its teacher says, and as what: `teacher.cache`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from bitnet_train.config import Config
from bitnet_train.errors import ConfigError
from bitnet_train.run.directory import RunDirectory
from bitnet_train.train.losses.kept_answers import Answers, StateAnswers, TopAnswers
from bitnet_train.train.losses.plain_head import plain_head
from bitnet_train.train.losses.teacher_cache import TeacherCache


def teacher_cache(config: Config, teacher: nn.Module, directory: RunDirectory) -> TeacherCache | None:
    """Return the cache that is asked for. Raises ConfigError where a teacher's logits are no linear of its states."""
    choice = config.teacher
    if choice.cache == "none":
        return None
    folder = Path(choice.cache_dir) if choice.cache_dir else directory.cache
    return TeacherCache(folder, teacher, _answers(config, teacher))


def _answers(config: Config, teacher: nn.Module) -> Answers:
    if config.teacher.cache == "topk":
        return TopAnswers(teacher, config.teacher.top_k, config.loss.temperature)
    parts = plain_head(teacher)
    if parts is None:
        raise ConfigError(
            f"`teacher.cache=states` keeps the last states, and the logits of {type(teacher).__name__} are more than a "
            "linear of them. Set `teacher.cache=topk`, or `teacher.cache=none`."
        )
    return StateAnswers(parts)
