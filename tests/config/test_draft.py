from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

from bitnet_train.config import Config, changed
from bitnet_train.config.compose import compose
from bitnet_train.config.draft import Draft, settled, type_name
from bitnet_train.config.schema import as_plain


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (int | None, "int | None"),
        (Literal["a", "b"], "str"),
        (Literal["a"] | None, "str | None"),
        (tuple[float, float], "list[float]"),
        (tuple[Literal["a"], ...], "list[str]"),
        (tuple[dict[str, Any], ...], "list[dict[str, Any]]"),
        (dict[str, Any], "dict[str, Any]"),
        (float | str, "Any"),
    ],
)
def test_a_type_is_written_as_omegaconf_takes_it(hint: Any, name: str) -> None:
    assert type_name(hint) == name


def test_omegaconf_takes_no_literal() -> None:
    """If it does one day, the rooms' classes may be its schema, and `draft` can go."""

    @dataclass(frozen=True)
    class Section:
        name: Literal["a", "b"] = "a"

    with pytest.raises(ValidationError, match="Unexpected type annotation"):
        OmegaConf.structured(Section)


def test_a_draft_goes_through_omegaconf_and_becomes_the_configuration() -> None:
    carried = OmegaConf.to_object(OmegaConf.merge(Draft, {"model": {"source": "tiny", "roles": ["head"]}}))
    config = changed(Config(), {"model.source": "tiny", "model.roles": ("head",)})
    assert settled(Config, carried) == config
    assert as_plain(carried) == as_plain(config)


def test_what_is_composed_cannot_be_changed_and_another_is_made_of_it() -> None:
    config = compose("quickstart").config
    with pytest.raises(FrozenInstanceError):
        config.quiet = True  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        config.trainer.max_steps = 3  # type: ignore[misc]
    other = changed(config, {"trainer.max_steps": 3, "quiet": True, "data.self_corpus.seed": 5})
    assert (other.trainer.max_steps, other.quiet, other.data.self_corpus.seed) == (3, True, 5)
    assert config == compose("quickstart").config != other
