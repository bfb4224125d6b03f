"""The whole way, small: every recipe from the bundled model to a proven artefact, as the command line does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose
from bitnet_train.config.layout import recipes
from tests.fixtures.small_runs import facts_of, small

NOT_PACKABLE = {"baselines/onebit"}  # it trains a scale per input; tests/scripts/test_ablate.py trains and measures it

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name in recipes() if name not in NOT_PACKABLE])
def test_a_recipe_goes_the_whole_way_and_proves_it(name: str, tmp_path: Path, chats: Path) -> None:
    run_dir = tmp_path / "run"
    further = [f"data.path={chats}"] if name == "lora_sft_chat" else []
    assert main(["run", name, "--quiet", *small(run_dir, *further)]) == 0
    result = facts_of(run_dir, "run")
    assert result["passed"]
    assert result["train"]["steps"] == 2
    manifest = json.loads((run_dir / "artefact" / "manifest.json").read_text())
    assert len(manifest["layers"]) == 28, "four blocks of seven linears"
    rounded = not name.startswith("baselines/")  # those are as others train them
    tables = [table["name"] for table in manifest.get("tables", [])]
    assert tables == (["model.embed_tokens", "lm_head"] if rounded else [])
    wide = {name for name, tensor in manifest["tensors"].items() if tensor["dtype"] == "float32"}
    assert not rounded or all(name.endswith("inv_freq") for name in wide), "all else is narrow"
    ratio = result["size"]["fp16_bytes"] / result["size"]["packed_bytes"]
    assert ratio == (8 if compose(name, further).config.weight.name == "ternary" else 16)
