from __future__ import annotations

import pytest
import torch
from torch import nn

from bitnet_train.errors import ConfigError
from bitnet_train.train.losses.attention_relation import RelationTaps, projections
from bitnet_train.train.losses.settings import LossConfig
from bitnet_train.train.losses.token_losses import next_labels
from tests.fixtures.tiny_run import llama, rows, run, tiny_module


def test_the_term_is_the_definition_written_with_loops() -> None:
    teacher, student = llama(0.0).eval(), llama(0.0).eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.3)
    taps = RelationTaps(student, teacher, -1)
    batch = rows(0, 3)
    batch["attention_mask"][0, 9:] = 0
    heard = {}
    for name, model in (("student", student), ("teacher", teacher)):
        attention = model.model.layers[1].self_attn
        for part in ("q_proj", "k_proj", "v_proj"):
            getattr(attention, part).register_forward_hook(
                lambda _, __, out, key=(name, part): heard.__setitem__(key, out)
            )
    for model in (student, teacher):
        model(batch["input_ids"], attention_mask=batch["attention_mask"])
    targets = next_labels(batch["labels"])
    expected = 0.0
    for part in ("q_proj", "k_proj", "v_proj"):
        for row, position in (targets != -100).nonzero().tolist():
            real = batch["attention_mask"][row].bool()
            for head in (slice(0, 16), slice(16, 32)):
                relation = {}
                for name in ("student", "teacher"):
                    a = heard[name, part][row, :, head]
                    relation[name] = (a[position] @ a[real].T / 4.0).softmax(-1)
                expected += float((relation["teacher"] * (relation["teacher"] / relation["student"]).log()).sum()) / 6
    assert float(taps.divergence(targets, batch["attention_mask"])) == pytest.approx(expected, rel=1e-4)


def test_equal_models_relate_equally() -> None:
    teacher, student = llama(0.0).eval(), llama(0.0).eval()
    taps, batch = RelationTaps(student, teacher, 0), rows(0)
    for model in (student, teacher):
        model(batch["input_ids"])
    assert float(taps.divergence(next_labels(batch["labels"]), None)) == 0.0


def test_an_adapter_is_part_of_the_projection_that_is_heard() -> None:
    student = tiny_module().student
    found = projections(student, -1)
    assert sorted(found) == ["key", "query", "value"]
    assert all(any("lora" in name for name, _ in module.named_parameters()) for module in found.values())


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`loss\.attention_layer=2`.*has 2 blocks.*-2 to 1"):
        projections(llama(), 2)


def test_a_model_with_fused_projections_is_refused() -> None:
    fused = nn.ModuleDict({"h": nn.ModuleList([nn.ModuleDict({"c_attn": nn.Linear(2, 6)})])})
    with pytest.raises(ConfigError, match=r"`loss\.attention` needs separate projections"):
        projections(fused, -1)


@pytest.mark.slow
def test_training_with_the_term_balances_and_reports_it(tmp_path) -> None:
    module = tiny_module(steps=2, loss=LossConfig(kl=1.0, attention=1.0, hidden=0.5, balance_step=1))
    result = run(tmp_path, module)
    assert result.metrics["attention"] > 0.0
    assert float(module.attention_balance) != 1.0
    assert float(module.hidden_balance) != float(module.attention_balance)
    assert "attention_balance" in module.state_dict()


def test_a_run_without_the_term_keeps_its_checkpoint_as_it_was() -> None:
    assert "attention_balance" not in tiny_module().state_dict()
