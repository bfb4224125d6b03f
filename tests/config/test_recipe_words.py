"""A recipe with words written into it composes to what the recipe with these words does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.config.compose import compose
from bitnet_train.config.recipe_words import check_same, recipe_text
from bitnet_train.errors import ConfigError


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("quickstart", ["optimizer.lr=0.004", "weight=ternary_row", "logger=none"]),
        ("quickstart", ["debug=tiny", "trainer.max_steps=5", "betas=[0.8,0.9]", "generate.prompt=a: ${b} 'c'"]),
        (None, ["model=tiny", "adapter.rank=4"]),
    ],
)
def test_it_is_the_same_configuration(recipe: str | None, words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    file.write_text(recipe_text(compose(recipe, words).target.content, words, "Such as it is."))
    assert file.read_text().startswith("# @package _global_\n# Such as it is.\n")
    check_same(str(file), recipe, words)
    with pytest.raises(ConfigError, match="`trainer` differ"):
        check_same(str(file), recipe, [*words, "trainer.seed=9"])
