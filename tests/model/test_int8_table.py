import pytest
import torch

from bitnet_train.kernels import reference_int8
from bitnet_train.model.int8_table import Int8Embedding, Int8Linear
from bitnet_train.quant.int8_table import quantize_table


@pytest.fixture
def table():
    return quantize_table(torch.randn(21, 70, generator=torch.Generator().manual_seed(0)))


def inputs(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_an_embedding_looks_up_scale_times_codes(table):
    codes, scale = table
    ids = torch.tensor([[20, 0, 7], [7, 3, 16]])
    rows = Int8Embedding.from_codes(codes, scale)(ids)
    assert rows.dtype == torch.float32
    assert torch.equal(rows, (codes.float() * scale.float().unsqueeze(1))[ids])


@pytest.mark.parametrize("has_bias", [False, True])
def test_a_linear_gives_the_bits_of_the_oracle_in_the_shape_and_dtype_of_its_input(table, has_bias):
    codes, scale = table
    bias = inputs(21) if has_bias else None
    layer = Int8Linear.from_codes(codes, scale, bias)
    x = inputs(2, 3, 70)
    expected = reference_int8.int8_linear(x.reshape(-1, 70), codes, scale.float(), bias).reshape(2, 3, 21)
    assert torch.equal(layer(x), expected)
    half = layer(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.shape == expected.shape


def test_autocast_does_not_reach_inside(table):
    layer = Int8Linear.from_codes(*table, None)
    x = inputs(3, 70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.clone()))
        inside = layer(x)
    assert torch.equal(inside, layer(x))


def test_an_input_that_is_not_contiguous_is_taken_as_it_means(table):
    layer = Int8Linear.from_codes(*table, None)
    x = inputs(70, 5)
    assert torch.equal(layer(x.T), layer(x.T.contiguous()))


def test_a_tied_pair_is_held_once(table):
    embedding = Int8Embedding.from_codes(*table)
    head = Int8Linear.of(embedding, inputs(21))
    assert head.stream.data_ptr() == embedding.stream.data_ptr()
    assert head.w_scale.data_ptr() == embedding.w_scale.data_ptr()
    assert torch.equal(head(inputs(2, 70)), Int8Linear.from_codes(*table, inputs(21))(inputs(2, 70)))


def test_the_codes_come_back(table):
    assert torch.equal(Int8Linear.from_codes(*table, None).codes(), table[0])
    assert torch.equal(Int8Embedding.from_codes(*table).codes(), table[0])


def test_there_is_no_gradient(table):
    x = inputs(2, 70).requires_grad_(True)
    assert not Int8Linear.from_codes(*table, None)(x).requires_grad


def test_printing_a_table_names_its_sizes(table):
    assert "70, 21, bias=False, int8 per row" in str(Int8Linear.from_codes(*table, None))
    assert "21, 70, int8 per row" in str(Int8Embedding.from_codes(*table))


def test_parts_that_do_not_fit_together_are_refused(table):
    codes, scale = table
    with pytest.raises(ValueError, match=r"`scale` has shape \[20\], but the codes are \[21, 70\]"):
        Int8Embedding.from_codes(codes, scale[:20])
    with pytest.raises(ValueError, match=r"`bias` has shape \[3\], but the table has 21 rows"):
        Int8Linear.from_codes(codes, scale, torch.zeros(3))
    with pytest.raises(ValueError, match="needs codes int8"):
        Int8Linear.from_codes(codes.float(), scale, None)


@pytest.mark.slow
def test_the_head_compiles_as_one_graph(table):
    layer = Int8Linear.from_codes(*table, None)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = inputs(3, 70)
    assert torch.equal(compiled(x), layer(x))
