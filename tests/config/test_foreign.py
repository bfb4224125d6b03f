"""Other tools' names of settings are answered with ours, in words and in recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bitnet_train.config.compose import compose
from bitnet_train.config.foreign import foreign_hint, foreign_names
from bitnet_train.config.layout import groups
from bitnet_train.config.suggest import known_keys
from bitnet_train.errors import ConfigError

PROMISED = (
    "learning_rate lr gradient_accumulation_steps num_train_epochs epochs batch_size per_device_train_batch_size "
    "max_seq_length output_dir lora_r warmup_ratio warmup_steps seed"
)


def test_every_answer_names_keys_that_exist() -> None:
    for name, (key, note) in foreign_names().items():
        mentioned = re.findall(r"`(\w+\.\w+)`", note) + ([] if key is None else [key])
        assert [word for word in mentioned if word not in known_keys()] == [], name
        assert key is not None or note, name


def test_no_name_of_another_tool_hides_a_key_or_a_group_of_ours() -> None:
    assert {name for name in foreign_names() if name in known_keys() or name in groups()} == set()


@pytest.mark.parametrize("name", foreign_names())
def test_every_name_is_answered_on_the_command_line(name: str) -> None:
    key, note = foreign_names()[name]
    endings = [known for known in known_keys() if known.endswith(f".{name}")]
    if len(endings) == 1:
        pytest.fail(f"`{name}` is short for `{endings[0]}` by itself: drop the row")
    with pytest.raises(ConfigError) as caught:
        compose(None, [f"{name}=1"])
    assert f"`{key}" in str(caught.value) or key is None
    assert note in str(caught.value)


@pytest.mark.parametrize("name", PROMISED.split())
def test_the_best_known_names_are_answered(name: str) -> None:
    with pytest.raises(ConfigError, match=r"`\w+\.\w+"):
        compose(None, [f"{name}=1"])


def test_a_recipe_with_another_tools_name_is_answered_with_its_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("trainer:\n  learning_rate: 1e-4\n")
    with pytest.raises(ConfigError, match=r"`trainer\.learning_rate` \(.*mine\.yaml\).* That is `optimizer\.lr` here"):
        compose(str(recipe))


def test_a_value_is_repeated_where_it_means_the_same_and_converted_in_words_where_it_does_not() -> None:
    assert foreign_hint("--learning-rate", "2e-5") == " That is `optimizer.lr=2e-5` here."
    assert "accumulation steps * `micro_rows`" in foreign_hint("gradient_accumulation_steps", "4")
    assert "=4" not in foreign_hint("gradient_accumulation_steps", "4")
    assert foreign_hint("learning_rat") == ""
