"""Reconstruction from files into files: the bits of the one in memory, whatever dtype the files have, and resumably."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from bitnet_train.errors import ConversionError
from bitnet_train.model.convert import convert, plan_conversion
from bitnet_train.model.converted import ConversionRecord, load_converted
from bitnet_train.model.rounded_table import round_floats, stored_parameters, table_names
from bitnet_train.model.settings import Selection
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.stored import rounded as rounded_values
from bitnet_train.quant.surrogate import Clipped
from bitnet_train.train.blocks.block_rows import BlockRun
from bitnet_train.train.blocks.blockwise import BlockTraining, reconstruct
from bitnet_train.train.blocks.settings import BlockwiseConfig
from bitnet_train.train.blocks.streamed_blocks import reconstruct_streamed
from bitnet_train.train.loop.schedules import ScheduleConfig
from tests.fixtures.tiny_run import llama, rows

BATCH = rows(0, num_rows=12)
IDS, REAL = BATCH["input_ids"], BATCH["attention_mask"].bool()
SHORT = BlockwiseConfig(enabled=True, steps=8, batch_rows=4, lr=5e-3)
GROUPS = WeightScheme(granularity="group", group_size=16, learnable_scale=True)
PARTS = {"activation": ActivationScheme(), "surrogate": Clipped(clip=3.0)}
PLAIN, FITTED = InitConfig(), InitConfig(latents="error_feedback", calibration_rows=4)
EVERYTHING = Selection(roles=("attention", "mlp", "head", "embedding"))


def on_disk(folder: Path, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Write the little model in `dtype`, and return it as it is opened from there."""
    llama(0.0).to(dtype).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


def streamed(
    original: LlamaForCausalLM,
    work: Path,
    *,
    selection: Selection | None = None,
    init: InitConfig = PLAIN,
    weight: WeightScheme = GROUPS,
    rounded: bool = False,
):
    plan = plan_conversion(original, selection or Selection(), weight)
    tables = table_names(original) if rounded else None
    record = ConversionRecord.of_schemes(
        plan.schemes, weight, **PARTS, selection=selection or Selection(), tables=tables
    )
    run = BlockRun(SHORT, ScheduleConfig(), IDS, REAL, work / "scratch", init=init, seed=3)
    facts = reconstruct_streamed(original, record, None, work / "out", run)
    return facts, load_converted(work / "out")[0]


def in_memory(
    folder: Path, work: Path, *, selection: Selection | None = None, init: InitConfig = PLAIN, rounded: bool = False
):
    original, student = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for _ in range(2))
    convert(student, selection=selection, weight=GROUPS, **PARTS)
    if rounded:
        round_floats(student)
    run = BlockRun(SHORT, ScheduleConfig(), IDS, REAL, work / "whole", init=init, rounded=rounded, seed=3)
    facts = reconstruct(student, original, run)
    return facts, student


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("init", [PLAIN, FITTED], ids=["plain", "fitted"])
@pytest.mark.parametrize("selection", [None, EVERYTHING], ids=["blocks", "everything"])
def test_the_same_bits_as_with_both_models_in_memory(
    dtype: torch.dtype, init: InitConfig, selection: Selection | None, tmp_path: Path
) -> None:
    ours, made = streamed(on_disk(tmp_path / "in", dtype), tmp_path, selection=selection, init=init)
    facts, expected = in_memory(tmp_path / "in", tmp_path, selection=selection, init=init)
    assert ours.blocks == facts.blocks
    assert ours.tokens == facts.tokens
    found = made.state_dict()
    assert found.keys() == expected.state_dict().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())
    with torch.no_grad():
        assert torch.equal(made(IDS).logits, expected.eval()(IDS).logits)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_one_bit_is_rounded_alike_with_the_model_in_memory_and_not(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    ours, made = streamed(on_disk(tmp_path / "in", dtype), tmp_path, rounded=True)
    facts, expected = in_memory(tmp_path / "in", tmp_path, rounded=True)
    assert ours.blocks == facts.blocks
    found = made.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())
    for parameter, stored in stored_parameters(made):
        assert torch.equal(parameter, rounded_values(parameter, stored))


@pytest.mark.slow
def test_the_original_stays_where_it_lies(tmp_path: Path) -> None:
    original = on_disk(tmp_path / "in", torch.bfloat16)
    places = {name: parameter.data_ptr() for name, parameter in original.named_parameters() if ".layers.1." in name}
    streamed(original, tmp_path)
    assert {name: p.data_ptr() for name, p in original.named_parameters() if name in places} == places
    assert original.lm_head.weight.dtype == torch.bfloat16, "a head of its own is not computed with"


def test_an_interrupted_run_goes_on_at_the_next_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, whole = streamed(on_disk(tmp_path / "in"), tmp_path / "whole")
    train, trained = BlockTraining._train, []

    def dies_at_the_second(*args):
        trained.append(args[-1])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(BlockTraining, "_train", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        streamed(on_disk(tmp_path / "in"), tmp_path / "cut")
    again, resumed = streamed(on_disk(tmp_path / "in"), tmp_path / "cut")
    assert trained == [0, 1, 1], "block 0 is not trained again"
    assert again.blocks == facts.blocks
    assert all(torch.equal(resumed.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())


def test_fixed_scales_that_would_be_fitted_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"fits scales, but that of model\.layers\.0.*is fixed"):
        streamed(on_disk(tmp_path / "in"), tmp_path, init=FITTED, weight=WeightScheme())
    assert not (tmp_path / "scratch").exists()


@pytest.mark.slow
def test_the_folder_can_be_mapped_and_a_taken_one_is_refused(tmp_path: Path) -> None:
    _, made = streamed(on_disk(tmp_path / "in"), tmp_path)
    mapped, _, record = load_converted(tmp_path / "out", mapped=True)
    assert set(record.layers) == {name for name, _ in made.named_modules() if name.endswith("_proj")}
    assert all(torch.equal(mapped.state_dict()[name], tensor) for name, tensor in made.state_dict().items())
    with pytest.raises(ConversionError, match="not empty"):
        streamed(on_disk(tmp_path / "in"), tmp_path)
