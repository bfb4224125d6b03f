"""Norms before output projections: where they go, how they start, that they train, and the ways out that are closed."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from bitnet_train.__main__ import main
from bitnet_train.errors import ConversionError
from bitnet_train.model.bit_linear import BitLinear
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.convert import convert
from bitnet_train.model.merge import merge
from bitnet_train.model.settings import AdapterConfig, Selection
from bitnet_train.model.sub_norm import SubNormBitLinear, add_sub_norms, calibrate, output_projections
from bitnet_train.model.training_only import train_own_parameters
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.quant.surrogate import Identity
from tests.fixtures.families import tiny_model, token_ids

ROWS = WeightScheme("binary", "row", learnable_scale=True)


def with_sub_norms(family: str = "llama") -> tuple[nn.Module, list[str]]:
    model = tiny_model(family)
    plan = convert(model, weight=ROWS, activation=ActivationScheme("int8"), surrogate=Identity())
    return model, add_sub_norms(model, plan)


@pytest.mark.parametrize(
    ("family", "tails"),
    [("llama", ["o_proj", "down_proj"]), ("gpt2", ["attn.c_proj", "mlp.c_proj"]), ("phi3", ["o_proj", "down_proj"])],
)
def test_they_go_before_what_writes_to_the_residual_stream(family: str, tails: list[str]) -> None:
    model, names = with_sub_norms(family)
    found = [name for name, layer in model.named_modules() if isinstance(layer, SubNormBitLinear)]
    assert found == names
    blocks = len(names) // 2
    assert blocks >= 2
    assert all(name.endswith(tail) for name, tail in zip(names, tails * blocks, strict=True))


def test_an_output_projection_that_stays_float_gets_none_and_none_at_all_is_refused() -> None:
    plan = convert(tiny_model(), weight=ROWS, selection=Selection(exclude=("down_proj",)))
    assert [name.rpartition(".")[2] for name in output_projections(plan)] == ["o_proj"] * 2
    plan = convert(tiny_model(), weight=ROWS, selection=Selection(exclude=("down_proj", "o_proj")))
    with pytest.raises(ConversionError, match=r"finds no output projection.*Set it to false"):
        output_projections(plan)


@pytest.mark.parametrize("training", [True, False])
def test_the_layer_is_a_bit_linear_of_the_normalised_input(training: bool) -> None:
    torch.manual_seed(0)
    plain = BitLinear.from_linear(nn.Linear(48, 20), ROWS, ActivationScheme("int8"), Identity())
    made = SubNormBitLinear.taking_over(deepcopy(plain)).train(training)
    with torch.no_grad():
        made.sub_norm.uniform_(0.5, 2.0)
    x = torch.randn(7, 48) * torch.arange(1.0, 8.0)[:, None]
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * made.sub_norm
    step = float(normed.detach().abs().max()) / 127 * float(plain.scale.detach().max())  # one code may round elsewhere
    torch.testing.assert_close(made(x), plain.train(training)(normed), rtol=1e-5, atol=step)


def test_calibrated_gains_are_the_root_mean_squares_of_the_real_tokens() -> None:
    original, (student, names) = tiny_model(), with_sub_norms()
    ids = token_ids(rows=6)
    real = torch.ones_like(ids, dtype=torch.bool)
    real[1, 5:] = real[4, 2:] = False
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    for row, kept in zip(ids, real, strict=True):
        for name in names:
            hook = original.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name: seen[name].append(args[0].detach())
            )
            with torch.no_grad():
                original(row[kept][None])
            hook.remove()
    calibrate(student, original, ids, real)
    for name in names:
        expected = torch.cat([x[0] for x in seen[name]]).square().mean().sqrt()
        gain = student.get_submodule(name).sub_norm
        torch.testing.assert_close(gain, expected.expand_as(gain), rtol=1e-4, atol=0)  # sums in another order


@pytest.mark.parametrize("kind", ["none", "scales_only", "lora_inside"])
def test_they_train_with_every_adapter_inside(kind: str) -> None:
    model, names = with_sub_norms()
    attached = attach(model, AdapterConfig(kind=kind, rank=2))
    train_own_parameters(attached)
    attached.train()(token_ids()).logits.square().mean().backward()
    grads = [p.grad for name, p in attached.named_parameters() if name.endswith("sub_norm")]
    assert len(grads) == len(names)
    assert all(grad is not None and float(grad.abs().max()) > 0 for grad in grads)


@pytest.mark.parametrize("way", [merge, lambda model: export_packed(model, None, "nowhere")])
def test_merging_and_packing_refuse_them_and_say_what_to_train_instead(way) -> None:
    with pytest.raises(ConversionError, match=r"exist in training only.*`weight\.sub_norm=false`"):
        way(with_sub_norms()[0])


@pytest.mark.slow
def test_a_run_calibrates_trains_and_cannot_be_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["weight.sub_norm=true", "trainer.max_steps=2", "data.max_documents=8", "data.context_tokens=64"]
    words += [f"run.dir={tmp_path / 'run'}", "init.calibration_rows=2", "data.max_validation_rows=2"]
    assert main(["train", "quickstart", *words]) == 0
    assert main(["merge", str(tmp_path / "run")]) != 0
    assert "`weight.sub_norm=false`" in capsys.readouterr().err
    assert main(["run", "quickstart", *words]) == 2
    assert "cannot go the whole way" in capsys.readouterr().err
