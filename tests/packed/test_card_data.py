from __future__ import annotations

from dataclasses import replace

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard

from bitnet_train.packed.card_data import card_head, with_results
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.reader import read_manifest


@pytest.fixture
def manifest(exported) -> Manifest:
    return read_manifest(exported)


def head(manifest: Manifest) -> dict:
    return yaml.safe_load(card_head(manifest, "bitnet-train").strip("-\n"))


def test_the_head_has_what_the_hub_searches_by(manifest: Manifest) -> None:
    known = head(replace(manifest, base_model="me/mine", facts={"license": "mit"}))
    assert known["base_model"] == "me/mine"
    assert known["license"] == "mit"
    assert known["library_name"] == "bitnet-train"
    assert {"1-bit", "bitnet", *(layer.scheme.name for layer in manifest.layers)} <= set(known["tags"])


@pytest.mark.parametrize("name", ["tiny", "unknown", "a: b", "x\n---\ny/z", "../up/there", "a/b/c"])
def test_an_original_that_is_no_name_of_the_hub_and_an_unknown_licence_are_left_out(manifest, name: str) -> None:
    assert {"base_model", "license"}.isdisjoint(head(replace(manifest, base_model=name, facts={"license": ["a"]})))


def test_results_stand_in_the_head_and_the_text_stays(manifest: Manifest) -> None:
    card = card_head(manifest, "bitnet-train") + "\n# Title\n\ntext\n"
    result = EvalResult(
        task_type="text-generation", dataset_type="t", dataset_name="t", metric_type="perplexity", metric_value=7.5
    )
    made = ModelCard(with_results(card, "mine", [result]))
    assert made.data.eval_results == [result]
    assert made.data.model_name == "mine"
    assert made.text == ModelCard(card).text
    assert with_results(card, "mine", []) == card
