"""The whole way, small: every recipe from the bundled model to a proven artefact, as the command line does it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose
from bitnet_train.config.layout import recipes
from tests.fixtures.small_runs import facts_of, small

OVERRIDE = "weight.overrides=[{pattern: down_proj, planes: 2}]"
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
    weight = compose(name, further).config.weight
    planes = 4 if weight.budget_mb is not None else weight.planes  # a budget of many such models
    assert ratio == 16 / (2 if weight.name == "ternary" else planes)


@pytest.mark.parametrize("products", ["float", "forward", "integer"])
@pytest.mark.parametrize("choice", ["weight.planes=2", "weight=binary_4planes_group64", OVERRIDE])
def test_weights_of_several_planes_go_the_whole_way_and_into_a_gguf(choice: str, products: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = [choice, "export.also=[gguf,c_array]", f"trainer.products={products}", "trainer.precision=fp32"]
    assert main(["run", "quickstart", "--quiet", *small(run_dir, *words)]) == 0
    result = facts_of(run_dir, "run")
    assert result["passed"], "tolerance 0: bytes, integers, logits, tokens, the native runtime, both exports"
    ratio = result["size"]["fp16_bytes"] / result["size"]["packed_bytes"]
    assert ratio == {"weight.planes=2": 8, "weight=binary_4planes_group64": 4}.get(choice, pytest.approx(13.2, abs=1))
    layers = json.loads((run_dir / "artefact" / "manifest.json").read_text())["layers"]
    planes = {layer["name"].rpartition(".")[2]: layer["scheme"].get("planes", 1) for layer in layers}
    assert planes["down_proj"] == (4 if "4planes" in choice else 2)
    assert planes["up_proj"] == {"weight.planes=2": 2, OVERRIDE: 1}.get(choice, 4)
