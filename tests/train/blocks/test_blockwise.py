"""Block-wise reconstruction: blocks come nearer to the original's, in order, resumably, and only they change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.convert import convert
from bitnet_train.model.start.blocks import block_calls
from bitnet_train.model.start.settings import InitConfig
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.quant.surrogate import Clipped, Tanh
from bitnet_train.quant.weight import expand_scale
from bitnet_train.train.blocks import block_rows, blockwise
from bitnet_train.train.blocks.block_rows import BlockRun
from bitnet_train.train.blocks.blockwise import BlockTraining, block_loss, reconstruct
from bitnet_train.train.blocks.hidden_states import hidden_states
from bitnet_train.train.blocks.settings import BlockwiseConfig
from bitnet_train.train.loop.schedules import ScheduleConfig
from tests.fixtures.tiny_run import llama, rows

BATCH = rows(0, num_rows=12)
IDS, REAL = BATCH["input_ids"], BATCH["attention_mask"].bool()
SHORT = BlockwiseConfig(enabled=True, steps=30, batch_rows=4, lr=5e-3)


def student(surrogate=None) -> LlamaForCausalLM:
    model = llama(dropout=0.0).eval()
    convert(model, weight=WeightScheme(granularity="group", group_size=16, learnable_scale=True), surrogate=surrogate)
    return model


def rebuilt(folder: Path, config: BlockwiseConfig = SHORT, *, ids=IDS, real=REAL, surrogate=None, **further):
    """Return a student after reconstruction, and the facts of it."""
    model = student(surrogate or Clipped(clip=3.0))
    schedule = further.pop("schedule", ScheduleConfig())
    return model, reconstruct(model, llama(0.0).eval(), BlockRun(config, schedule, ids, real, folder, **further))


def state(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differing(one, other) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


@torch.no_grad()
def distance(model) -> float:
    ids = rows(99)["input_ids"]
    ours = model.eval()(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    return float((ours - llama(0.0).eval()(input_ids=ids, output_hidden_states=True).hidden_states[-1]).square().sum())


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mse", "token_mse"])
def test_every_block_and_the_whole_model_come_nearer_to_the_original(loss: str, tmp_path: Path) -> None:
    model, facts = rebuilt(tmp_path, BlockwiseConfig(enabled=True, steps=40, batch_rows=4, lr=5e-3, loss=loss))
    assert len(facts.blocks) == 2
    assert all(block.after < 0.6 * block.before for block in facts.blocks)
    assert distance(model) < 0.6 * distance(student())


@pytest.mark.slow
def test_random_tokens_teach_blocks_what_the_text_does_not_hold(tmp_path: Path) -> None:
    few = IDS % 4  # of a vocabulary that `distance` asks for all of
    far = [
        distance(rebuilt(tmp_path / str(share), replace(SHORT, steps=60, random_tokens=share), ids=few)[0])
        for share in (0.0, 0.3)
    ]
    assert far[1] < 0.8 * far[0]


def test_random_tokens_are_a_share_of_the_real_ones_and_the_same_each_time() -> None:
    ids, real = torch.full((40, 100), 7), torch.ones(40, 100, dtype=torch.bool)
    real[:, 60:] = False
    once, again, other = (block_rows.sprinkled(ids, real, 0.25, 50, seed) for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert torch.equal(once[~real], ids[~real])
    assert 490 < (once != ids).sum() < 690  # 2400 x 0.25 x 49/50 = 588 +- 21: within 4.6 deviations
    assert (once.min(), once.max()) == (0, 49)
    assert torch.equal(block_rows.sprinkled(ids, real, 0.0, 50, 1), ids)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 40])
def test_the_rate_of_a_block_follows_its_weights_and_suits_few_steps(steps: int, tmp_path: Path) -> None:
    _, facts = rebuilt(tmp_path, BlockwiseConfig(enabled=True, steps=steps, batch_rows=4))
    assert all(block.after < 0.6 * block.before for block in facts.blocks)


def test_only_blocks_change_and_the_original_stays(tmp_path: Path) -> None:
    original = llama(0.0).eval()
    before = state(original)
    model = student()
    start = state(model)
    reconstruct(model, original, BlockRun(SHORT, ScheduleConfig(), IDS, REAL, tmp_path))
    assert differing(state(original), before) == set()
    changed = differing(state(model), start)
    assert changed
    assert all(".layers." in name for name in changed)
    assert any("layernorm" in name for name in changed)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_bfloat16_products_move_the_targets_by_their_rounding_and_no_more(tmp_path: Path) -> None:
    """A block rounds about ten times on the way to its output, each time by at most 2^-8 of the value."""
    original = llama(0.0).eval()
    block, call = original.model.layers[0], block_calls(original, IDS.shape[1])[0]
    targets = {}
    for bf16 in (False, True):
        run = BlockRun(SHORT, ScheduleConfig(), IDS, REAL, tmp_path / str(bf16), bf16=bf16)
        training = BlockTraining.begin(original, original, run)
        training.one(0, block, call, lambda index: student().model.layers[index])
        targets[bf16] = training.rows.original  # the targets of block 0 are the inputs of block 1
    assert targets[True].dtype == torch.float32
    moved = float((targets[True] - targets[False]).norm() / targets[False].norm())
    assert 0 < moved < 10 * 2**-8


@pytest.mark.slow
def test_norms_stay_when_they_are_not_to_train(tmp_path: Path) -> None:
    start = state(student())
    model, _ = rebuilt(tmp_path, train_norms=False)
    assert not any("norm" in name for name in differing(state(model), start))


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_gives_others(tmp_path: Path) -> None:
    one, other, third = (state(rebuilt(tmp_path / str(i), seed=seed)[0]) for i, seed in enumerate((1, 1, 2)))
    assert differing(one, other) == set()
    assert differing(one, third) != set()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_at_the_next_block_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, facts = rebuilt(tmp_path / "whole")
    train, trained = BlockTraining._train, []

    def dies_at_the_second(*args):
        trained.append(args[-1])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(BlockTraining, "_train", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        rebuilt(tmp_path / "cut")
    resumed, again = rebuilt(tmp_path / "cut")
    assert trained == [0, 1, 1], "block 0 is not trained again"
    assert differing(state(whole), state(resumed)) == set()
    assert again.blocks == facts.blocks
    assert facts.earlier_seconds == 0


@pytest.mark.slow
def test_the_time_counts_blocks_that_an_earlier_process_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = rebuilt(tmp_path)
    load, kept = blockwise.load_block, []

    def load_and_keep(*args):
        kept.append(load(*args))
        return kept[-1]

    monkeypatch.setattr(blockwise, "load_block", load_and_keep)
    _, again = rebuilt(tmp_path)
    assert all(result.seconds > 0 for result in kept)
    assert again.earlier_seconds == sum(result.seconds for result in kept) < first.seconds

    monkeypatch.setattr(blockwise, "load_block", lambda *args: replace(load(*args), seconds=1000.0))
    _, after_days = rebuilt(tmp_path)
    assert after_days.seconds > after_days.earlier_seconds == 1000.0 * len(kept)


@pytest.mark.slow
def test_a_damaged_block_is_named(tmp_path: Path) -> None:
    rebuilt(tmp_path)
    save_file({"other": torch.zeros(1)}, tmp_path / "block-0001.safetensors")
    with pytest.raises(TrainingError, match=r"block-0001\.safetensors is damaged"):
        rebuilt(tmp_path)


@pytest.mark.slow
def test_padding_does_not_count(tmp_path: Path) -> None:
    real = torch.arange(12).expand(12, 12) < torch.arange(5, 17)[:, None]
    made = [
        state(rebuilt(tmp_path / str(filler), ids=torch.where(real, IDS, filler), real=real)[0]) for filler in (0, 7)
    ]
    assert differing(*made) == set()


@pytest.mark.slow
def test_hidden_states_in_a_file_give_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory, _ = rebuilt(tmp_path / "memory")
    monkeypatch.setattr(block_rows, "hidden_states", lambda shape, file, _: hidden_states(shape, file, 0))
    in_file, _ = rebuilt(tmp_path / "file")
    assert (tmp_path / "file" / "student.hidden").stat().st_size == 12 * 12 * 32 * 4
    assert differing(state(in_memory), state(in_file)) == set()


@pytest.mark.slow
def test_the_quantiser_hardens_within_a_block_and_is_left_hard(tmp_path: Path) -> None:
    model, _ = rebuilt(tmp_path, surrogate=Tanh(clip=3.0), schedule=ScheduleConfig(hardness="tanh"))
    assert {float(layer.hardness) for layer in bit_layers(model).values()} == {Tanh.hard}


@pytest.mark.slow
def test_latents_are_left_away_from_where_their_codes_change(tmp_path: Path) -> None:
    settled, facts = rebuilt(tmp_path / "settled")
    left, same = rebuilt(tmp_path / "left", BlockwiseConfig(enabled=True, steps=30, batch_rows=4, lr=5e-3, margin=0.0))
    assert facts.blocks == same.blocks, "the codes are the same, and so are all outputs"
    layers = zip(bit_layers(settled).values(), bit_layers(left).values(), strict=True)
    for ours, theirs in layers:
        assert torch.equal(ours.quantized()[0], theirs.quantized()[0])
        least = 0.1 * expand_scale(ours.rounded_scale().detach(), *ours.weight.shape)
        assert torch.all(ours.weight.abs() >= least)
        assert not torch.all(theirs.weight.abs() >= least)


@pytest.mark.slow
def test_blocks_are_fitted_just_before_they_are_trained(tmp_path: Path) -> None:
    one_step = BlockwiseConfig(enabled=True, steps=1, batch_rows=4, lr=1e-9)
    _, plain = rebuilt(tmp_path / "plain", one_step)
    _, fitted = rebuilt(tmp_path / "fitted", one_step, init=InitConfig(latents="error_feedback"))
    assert all(b.before < a.before for a, b in zip(plain.blocks, fitted.blocks, strict=True))


@pytest.mark.slow
def test_full_precision_inputs_change_what_later_blocks_learn(tmp_path: Path) -> None:
    mixed = BlockwiseConfig(enabled=True, steps=30, batch_rows=4, lr=5e-3, fp_inputs=1.0)
    _, ours = rebuilt(tmp_path / "ours")
    _, theirs = rebuilt(tmp_path / "theirs", mixed)
    assert theirs.blocks[0].before == ours.blocks[0].before
    assert theirs.blocks[1] != ours.blocks[1]


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_block_step_and_key(tmp_path: Path) -> None:
    model, original = student(), llama(0.0).eval()
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss of block 1 is nan at step 0 of 30.*`blockwise\.lr`"):
        reconstruct(model, original, BlockRun(SHORT, ScheduleConfig(), IDS, REAL, tmp_path))
    assert (tmp_path / "block-0000.safetensors").is_file()


@pytest.mark.slow
def test_tokens_are_counted(tmp_path: Path) -> None:
    _, facts = rebuilt(tmp_path)
    assert facts.tokens == 30 * 4 * 12
    assert facts.text_tokens == 12 * 12


def test_both_losses_are_0_for_equal_and_1_for_nothing_and_differ_for_one_huge_token() -> None:
    target, real = torch.ones(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    for kind in ("mse", "token_mse"):
        assert float(block_loss(target, target, real, kind)) == 0.0
        assert float(block_loss(torch.zeros_like(target), target, real, kind)) == 1.0
    target[0, 0] = 1000.0
    given = target.clone()
    given[0, 1:] = 0.0
    assert float(block_loss(given, target, real, "mse")) < 1e-5
    assert float(block_loss(given, target, real, "token_mse")) == 0.75


def test_rows_are_cut_into_pieces_and_pieces_of_padding_are_dropped() -> None:
    ids = torch.arange(24).reshape(2, 12)
    real = torch.ones(2, 12, dtype=torch.bool)
    real[1, 5:] = False
    pieces, is_real = block_rows.in_pieces(ids, real, 4)
    assert pieces[:, 0].tolist() == [0, 4, 8, 12, 16]
    assert is_real.sum(1).tolist() == [4, 4, 4, 4, 1]
    assert torch.equal(pieces[is_real], ids[real])
    assert block_rows.in_pieces(ids, real, None) == (ids, real)


@pytest.mark.parametrize(
    "settings",
    [{"loss": "l1"}, {"steps": 0}, {"rows": 0}, {"batch_rows": 0}, {"row_tokens": 0}, {"warmup_fraction": 1.5}],
)
def test_a_setting_out_of_bounds_is_named(settings: dict) -> None:
    (key,) = settings
    with pytest.raises(ConfigError, match=rf"`blockwise\.{key}="):
        BlockwiseConfig(**settings)
