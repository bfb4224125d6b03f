from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from bitnet_train.errors import ConfigError, TrainingError
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.convert import convert
from bitnet_train.model.rounded_table import round_floats, stored_parameters
from bitnet_train.model.settings import AdapterConfig, Selection
from bitnet_train.quant.scheme import TABLE_BITS, TableType, WeightScheme
from bitnet_train.quant.stored import STORED, Stored, rounded
from bitnet_train.train.loop.optim import GROUPS, OnePassAdamW, automatic_lr, build_optimizer, parameter_groups, reach
from bitnet_train.train.loop.settings import OptimConfig
from tests.fixtures.tiny_run import llama, tiny_module


def full_student(learnable_scale: bool = True):
    student = llama()
    convert(student, weight=WeightScheme(learnable_scale=learnable_scale))
    return attach(student, AdapterConfig(kind="none", train_embeddings=True))


def test_every_trainable_parameter_lands_in_exactly_one_group() -> None:
    for student in (full_student(), tiny_module().student):
        grouped = [id(p) for group in parameter_groups(student).values() for p in group]
        assert sorted(grouped) == sorted(id(p) for p in student.parameters() if p.requires_grad)


def test_groups_go_by_kind() -> None:
    full, lora = parameter_groups(full_student()), parameter_groups(tiny_module().student)
    assert {name: len(group) for name, group in full.items()} == {
        "latents": 14, "scales": 14, "adapters": 0, "norms_bias": 5, "dense": 2, "tables": 0,
    }  # fmt: skip
    assert {name: len(group) for name, group in lora.items()} == {
        "latents": 0, "scales": 14, "adapters": 28, "norms_bias": 5, "dense": 0, "tables": 0,
    }  # fmt: skip


def test_a_one_bit_embedding_is_a_latent_and_not_dense() -> None:
    student = llama()
    convert(student, weight=WeightScheme(learnable_scale=True), selection=Selection(roles=("embedding",)))
    groups = parameter_groups(attach(student, AdapterConfig(kind="none", train_norms=False)))
    assert {name: len(group) for name, group in groups.items() if group} == {"latents": 1, "scales": 1}


def test_latents_scales_and_norms_never_decay_and_scales_and_matrices_have_their_own_rates() -> None:
    config = OptimConfig(lr=0.01, scale_lr_factor=0.1, dense_lr_factor=0.5, weight_decay=0.5)
    optimizer = build_optimizer(full_student(), config)
    decay = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    rates = {group["name"]: group["peak_lr"] for group in optimizer.param_groups}
    assert decay == {"latents": 0.0, "scales": 0.0, "norms_bias": 0.0, "dense": 0.5}
    assert rates == {"latents": 0.01, "scales": 0.001, "norms_bias": 0.01, "dense": 0.005}
    assert set(decay) < set(GROUPS)


@pytest.mark.parametrize("learnable", [True, False])
def test_what_a_layer_remembers_does_not_outlive_a_step(learnable: bool) -> None:
    student, ids = full_student(learnable), torch.arange(8)[None]
    optimizer = build_optimizer(student, OptimConfig(lr=0.05))
    for _ in range(2):
        before = {name: layer.quantized() for name, layer in bit_layers(student).items()}
        student(input_ids=ids).logits.square().mean().backward()
        optimizer.step()
        for name, layer in bit_layers(student).items():
            (codes, scale), (true_codes, true_scale) = layer.quantized(), deepcopy(layer).quantized()
            assert torch.equal(codes, true_codes), "a copy remembers nothing"
            assert torch.equal(scale, true_scale)
            assert torch.equal(layer.rounded_scale(), true_scale)
            assert not torch.equal(codes, before[name][0])


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(TrainingError, match="No parameter trains"):
        build_optimizer(llama().requires_grad_(False), OptimConfig())


def test_a_rate_too_small_to_flip_signs_is_reported_with_a_better_one() -> None:
    student = full_student()
    slow = reach(student, OptimConfig(lr=1e-6), max_steps=100)
    assert slow is not None
    assert slow.moved == pytest.approx(5e-5)
    weights = torch.cat([p.detach().flatten() for p in parameter_groups(student)["latents"]])
    assert slow.mean_weight == pytest.approx(float(weights.abs().mean()), rel=1e-5)
    assert "Try `optimizer.lr=" in str(slow.warning())
    fast = reach(student, OptimConfig(lr=4 * slow.mean_weight / 100), max_steps=100)
    assert fast is not None
    assert fast.warning() is None


def test_the_rule_is_silent_where_no_latent_trains() -> None:
    assert reach(tiny_module().student, OptimConfig(), 10) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "adam"}, "Did you mean `adamw`"),
        ({"lr": float("nan")}, r"`optimizer\.lr=nan`"),
        ({"betas": (0.9,)}, r"`optimizer\.betas"),
        ({"betas": (0.9, 1.0)}, r"`optimizer\.betas"),
        ({"clip_norm": -1.0}, r"`optimizer\.clip_norm=-1\.0`"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        OptimConfig(**options)


def test_an_automatic_rate_lets_latents_travel_the_reach_that_was_asked_for() -> None:
    student = llama(0.0)
    convert(student, weight=WeightScheme())
    found = automatic_lr(student, OptimConfig(lr="auto", reach=2.5), 400)
    distance = reach(student, found, 400)
    assert distance.moved == pytest.approx(2.5 * distance.mean_weight)
    assert automatic_lr(student, OptimConfig(lr=1e-3), 400).lr == 1e-3


def rounded_student(tables: TableType = "int8") -> torch.nn.Module:
    student = full_student()
    round_floats(student, tables)
    return student.train()


def one_step(student: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    ids = torch.arange(8)[None]
    student(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("tables", TABLE_BITS)
def test_what_is_stored_rounded_is_rounded_after_every_step_and_nothing_else(tables: TableType) -> None:
    student = rounded_student(tables)
    optimizer = build_optimizer(student, OptimConfig(lr=0.003), rounded=True)
    before = {name: parameter.clone() for name, parameter in student.named_parameters()}
    one_step(student, optimizer)
    kinds = {id(parameter): stored for parameter, stored in stored_parameters(student)}
    changed = 0
    for name, parameter in student.named_parameters():
        if id(parameter) in kinds:
            assert torch.equal(parameter, rounded(parameter, kinds[id(parameter)])), name
            assert not torch.equal(optimizer.state[parameter]["master"], parameter), name
            changed += int((parameter != before[name]).any())
        else:
            assert not torch.equal(parameter, parameter.bfloat16().float()), name
    assert {group["name"]: group.get("stored") for group in optimizer.param_groups} == {
        "latents": None, "scales": None, "norms_bias": "bfloat16", "tables": tables,
    }  # fmt: skip
    assert changed, "some weight reached the next value that is stored"


@pytest.mark.parametrize("stored", STORED)
def test_what_lies_behind_takes_the_steps_of_plain_adamw_and_the_rounded_values_stay_in_their_memory(
    stored: Stored,
) -> None:
    torch.manual_seed(2)
    parameter = torch.nn.Parameter(rounded(torch.randn(300, 8), stored))
    plain = torch.nn.Parameter(parameter.detach().clone())
    settings = {"lr": 0.01, "weight_decay": 0.1}
    ours = OnePassAdamW([{"params": [parameter], "stored": stored}], **settings)
    theirs = torch.optim.AdamW([plain], fused=True, **settings)
    place = parameter.data_ptr()
    for _ in range(3):
        parameter.grad = torch.randn(300, 8)
        plain.grad, version = parameter.grad.clone(), parameter._version
        ours.step()
        theirs.step()
        assert torch.equal(ours.state[parameter]["master"], plain)
        assert torch.equal(parameter, rounded(plain, stored))
        assert parameter._version > version
        assert parameter.data_ptr() == place


@pytest.mark.slow
def test_steps_too_small_for_one_rounded_value_add_up() -> None:
    student = rounded_student()
    optimizer = build_optimizer(student, OptimConfig(lr=1e-4), rounded=True)
    norm = student.model.norm.weight
    start = norm.clone()
    one_step(student, optimizer)
    assert torch.equal(norm, start), "bfloat16 has no value so close to 1"
    for _ in range(60):
        one_step(student, optimizer)
    assert not torch.equal(norm, start)


def test_the_float_values_behind_are_part_of_a_checkpoint() -> None:
    whole = rounded_student()
    optimizer = build_optimizer(whole, OptimConfig(lr=0.003), rounded=True)
    one_step(whole, optimizer)
    resumed = rounded_student()
    resumed.load_state_dict(deepcopy(whole.state_dict()))
    again = build_optimizer(resumed, OptimConfig(lr=0.003), rounded=True)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    for student, its in ((whole, optimizer), (resumed, again)):
        torch.manual_seed(0)
        one_step(student, its)
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(found, expected), name
