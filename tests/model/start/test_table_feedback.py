"""Error feedback on the grid of a narrow table: what it gives is such a table, and logits are nearer."""

import pytest
import torch

from bitnet_train.errors import ConversionError
from bitnet_train.model.start.table_feedback import feed_back_head, feed_back_table
from bitnet_train.quant.narrow_table import round_narrow
from tests.fixtures.families import tiny_model

V, TOKENS = 40, 600


def problem(num_inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A table [V, K], and inputs [T, K] near a subspace, as those of a trained model are."""
    generator = torch.Generator().manual_seed(num_inputs)
    near = torch.randn(TOKENS, 12, generator=generator) @ torch.randn(12, num_inputs, generator=generator)
    noise = 0.3 * torch.randn(TOKENS, num_inputs, generator=generator)
    return torch.randn(V, num_inputs, generator=generator), near + noise


def nearest(weight: torch.Tensor, bits: int) -> torch.Tensor:
    table = torch.empty_like(weight)
    round_narrow(weight, bits, table)
    return table


def output_error(x: torch.Tensor, weight: torch.Tensor, table: torch.Tensor) -> float:
    return float((x @ (table - weight).t()).square().sum())


@pytest.mark.parametrize("num_inputs", [20, 48, 160])
@pytest.mark.parametrize("bits", [4, 5])
def test_it_is_a_table_of_so_many_bits_and_its_logits_are_nearer(num_inputs: int, bits: int) -> None:
    weight, x = problem(num_inputs)
    table = feed_back_table(weight, x.t() @ x, bits)
    assert torch.equal(nearest(table, bits), table)
    assert output_error(x, weight, table) < 0.5 * output_error(x, weight, nearest(weight, bits))


@pytest.mark.parametrize("bits", [4, 5])
def test_rows_of_zeros_and_rows_of_one_weight_stay_what_they_are(bits: int) -> None:
    weight, x = problem(64)
    weight[0] = 0.0
    weight[1:3] = 0.0
    weight[1, 40], weight[2, 3] = 2.0, -0.5
    table = feed_back_table(weight, x.t() @ x, bits)
    assert torch.equal(table[:3], nearest(weight, bits)[:3])
    assert not torch.signbit(table[0]).any()


def test_inputs_that_say_nothing_leave_the_nearest_codes_but_for_the_largest_weight() -> None:
    weight, _ = problem(64)
    assert torch.equal(feed_back_table(weight, torch.eye(64), 5), nearest(weight, 5))


def test_moments_without_a_factor_are_refused() -> None:
    weight, x = problem(32)
    with pytest.raises(ConversionError, match=r"init\.damping"):
        feed_back_table(weight, -(x.t() @ x), 4)


def test_a_float_head_is_left_alone() -> None:
    model = tiny_model()
    ids = torch.zeros(1, 4, dtype=torch.int64)
    before = model.get_output_embeddings().weight.clone()
    assert feed_back_head(model, model, ids, ids == 0, 0.01) is None
    assert torch.equal(model.get_output_embeddings().weight, before)
