from __future__ import annotations

import pytest

from bitnet_train.importers.licence import licence_of


def folder_with(tmp_path, card: str):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text(card)
    return str(tmp_path)


def test_the_card_of_a_folder_says_its_licence(tmp_path):
    assert licence_of(folder_with(tmp_path, "---\nlicense: apache-2.0\ntags: [a]\n---\n# Title\n")) == "apache-2.0"


def test_the_bundled_model_has_one():
    assert licence_of("tiny") == "apache-2.0"


@pytest.mark.parametrize(
    "card",
    [
        "",
        "# Title",
        "---\n---\n",
        "---\nlicense: [a, b]\n---\n",
        "---\na: [\n---\n",
        "---\n" + "[" * 100_000 + "\n---\n",
    ],
)
def test_a_card_that_says_none_or_is_no_card_gives_none(tmp_path, card: str):
    assert licence_of(folder_with(tmp_path, card)) is None


@pytest.mark.parametrize("source", ["nowhere/to-be-found", "./gone", "gone.gguf"])
def test_what_is_not_there_has_none(source: str):
    assert licence_of(source) is None


def test_a_packed_folder_says_that_of_its_original(exported):
    assert licence_of(str(exported)) is None
