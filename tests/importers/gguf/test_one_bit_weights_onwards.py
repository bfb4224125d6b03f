"""What came in from a GGUF file is saved, trained, packed and written again."""

import json
import os
from pathlib import Path

import pytest
import torch

from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.formats.ggml import encode
from bitnet_train.gguf.architecture import architecture_named
from bitnet_train.gguf.file import open_gguf
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.bit_linear import bit_layers, set_training
from bitnet_train.model.bit_lora import attach
from bitnet_train.model.converted import load_converted, save_converted
from bitnet_train.model.merge import merge
from bitnet_train.model.settings import AdapterConfig
from bitnet_train.packed.source import open_packed
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import ActivationScheme
from bitnet_train.quant.surrogate import Clipped, Identity, Tanh
from bitnet_train.validation.report import LEVEL_NAMES
from bitnet_train.validation.validate import validate
from tests.fixtures import gguf_files
from tests.fixtures.gguf_files import BLOCKS, VOCABULARY, one_bit_tensor, rotated_rows
from tests.fixtures.gguf_models import (
    ARCHITECTURES,
    LLAMA,
    ONE_BIT,
    assert_exact,
    grid,
    load,
    logits,
    make,
)

FILES_OF_LLAMA_QUANTIZE = [Path(name) for name in os.environ.get("BITNET_TEST_ONE_BIT_GGUF", "").split(":") if name]


def blocks_of(packed, name, made):
    """The bytes that a packed layer has in the type of the file it came from."""
    architecture = architecture_named(made.metadata["general.architecture"])
    target = architecture.to_gguf(f"{name}.weight")
    layer, kind = packed.layer(name), {number: kind for kind, number in gguf_files.TYPES.items()}
    rows = (architecture.rows_to_gguf(name, part, packed.config) for part in (layer.codes, layer.scale))
    return target, encode(*rows, kind[made.tensors[target].type_id].lower())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_BIT)
def test_packed_without_training_every_block_is_that_of_the_file_byte_for_byte(kind, tmp_path):
    made = make(kinds=(kind,))
    loaded = load(made, tmp_path)
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    with open_packed(tmp_path / "packed") as packed:
        assert len(packed.layers) == 14
        for name in packed.layers:
            target, blocks = blocks_of(packed, name, made)
            assert blocks.numpy().tobytes() == made.tensors[target].data, name


@pytest.mark.slow
def test_a_record_and_its_model_are_saved_and_found_again(tmp_path):
    loaded = load(make(kinds=("Q1_0",)), tmp_path)
    save_converted(loaded.model, loaded.record, tmp_path / "merged", loaded.tokenizer)
    model, _, record = load_converted(tmp_path / "merged")
    assert record == loaded.record
    assert torch.equal(logits(model), logits(loaded.model))
    assert "binary" in json.loads((tmp_path / "merged" / "conversion.json").read_text())["weight"]["name"]


def train_steps(model, steps=3):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=2.0)
    ids = torch.randint(3, 250, (2, 16), generator=torch.Generator().manual_seed(1))
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.slow
def test_a_lora_inside_trains_on_the_file_s_weights_and_merges_into_them(tmp_path):
    made = make(kinds=("Q1_0",))
    loaded = load(made, tmp_path)
    before = {name: layer.quantized()[0] for name, layer in bit_layers(loaded.model).items()}
    adapted = train_steps(attach(loaded.model, AdapterConfig(rank=4)), steps=6)
    trained = logits(adapted)
    merged = merge(adapted)
    assert torch.equal(logits(merged), trained)
    flipped = sum(int((layer.quantized()[0] != before[name]).sum()) for name, layer in bit_layers(merged).items())
    assert flipped > 0
    export_packed(merged, loaded.tokenizer, tmp_path / "packed")
    with open_packed(tmp_path / "packed") as packed:
        for name in packed.layers:
            assert blocks_of(packed, name, made)[1].numel() > 0


def with_zero_blocks(made, kind):
    """Scale 0 for a block in every third row of the linears, over codes of 0 and others, and for padding tokens."""
    for index, (name, (codes, scale)) in enumerate(made.expected.items()):
        scale[index % 3 :: 3, -1] = 0
        if kind != "Q1_0":
            codes[index % 3 :: 6, -BLOCKS[kind] :] = 0
        target = architecture_named("llama").to_gguf(f"{name}.weight")
        heads = {"attn_q": 4, "attn_k": 2}.get(target.split(".")[-2], 0)
        rows = [rotated_rows(part, heads) if heads else part for part in (codes, scale)]
        made.tensors[target] = one_bit_tensor(*rows, kind)
    codes, scale = grid((VOCABULARY, 256), kind, seed=99)
    codes[-3:], scale[-3:] = int(kind == "Q1_0"), 0
    made.tensors["token_embd.weight"] = one_bit_tensor(codes, scale, kind)
    made.expected |= dict.fromkeys(("model.embed_tokens", "lm_head"), (codes, scale))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ONE_BIT)
def test_blocks_of_scale_0_come_in_exactly_and_go_out_byte_for_byte(kind, tmp_path):
    made = with_zero_blocks(make(kinds=(kind,)), kind)
    loaded = load(made, tmp_path)
    assert_exact(loaded, made)
    assert loaded.record.weight.scale_dtype == "float16"
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    report = validate(tmp_path / "packed", against=loaded.model, num_prompts=2, new_tokens=2, num_tokens=64)
    assert report.passed, report.first_failure
    assert tuple(level.name for level in report.levels) == LEVEL_NAMES
    export_as("gguf", tmp_path / "packed", tmp_path / "out", ExportOptions(type=kind.lower(), pre_tokenizer="gpt-2"))
    first, second = open_gguf(tmp_path / "made.gguf"), open_gguf(tmp_path / "out" / "model.gguf")
    for name in first.tensors:
        assert second.rows(name).tobytes() == first.rows(name).tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("surrogate", [Identity(), Clipped(), Tanh()], ids=lambda surrogate: surrogate.name)
@pytest.mark.parametrize("kind", ["Q1_0", "Q2_0"])
def test_training_on_blocks_of_scale_0_stays_finite(kind, surrogate, tmp_path):
    loaded = load(with_zero_blocks(make(kinds=(kind,)), kind), tmp_path)
    set_training(loaded.model, ActivationScheme("int8"), surrogate)
    train_steps(loaded.model, steps=2)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in loaded.model.parameters())
    assert bool(torch.isfinite(logits(loaded.model)).all())


@pytest.mark.slow
def test_a_lora_inside_over_blocks_of_scale_0_merges_and_is_saved(tmp_path):
    loaded = load(with_zero_blocks(make(kinds=("Q2_0",)), "Q2_0"), tmp_path)
    save_converted(loaded.model, loaded.record, tmp_path / "merged", loaded.tokenizer)
    again, _, _ = load_converted(tmp_path / "merged")
    for name, layer in bit_layers(again).items():
        assert all(map(torch.equal, layer.quantized(), bit_layers(loaded.model)[name].quantized())), name
    adapted = train_steps(attach(again, AdapterConfig(rank=4)))
    trained = logits(adapted)
    assert torch.equal(logits(merge(adapted)), trained)


@pytest.mark.slow
def test_full_fine_tuning_moves_weights_and_scales_from_where_the_file_left_them(tmp_path):
    made = make()
    loaded = load(made, tmp_path)
    scales = {name: layer.scale.clone() for name, layer in bit_layers(loaded.model).items()}
    train_steps(loaded.model)
    assert all(not torch.equal(layer.scale, scales[name]) for name, layer in bit_layers(loaded.model).items())


@pytest.mark.toolchain
@pytest.mark.skipif(not FILES_OF_LLAMA_QUANTIZE, reason="set BITNET_TEST_ONE_BIT_GGUF to files of llama-quantize, a:b")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", FILES_OF_LLAMA_QUANTIZE, ids=lambda path: path.name)
def test_files_of_llama_quantize_come_in_and_go_out_byte_for_byte(path, tmp_path):
    loaded = load_pretrained(str(path))
    file, config = open_gguf(path), loaded.model.config.to_dict()
    architecture = architecture_named(file.metadata["general.architecture"])
    kinds = {number: kind for kind, number in gguf_files.TYPES.items()}
    for name, layer in bit_layers(loaded.model).items():
        target = architecture.to_gguf(f"{name}.weight")
        target = target if target in file.tensors else "token_embd.weight"
        rows = (architecture.rows_to_gguf(name, part, config) for part in layer.quantized())
        kind = kinds[file.tensors[target].type_id].lower()
        assert encode(*rows, kind).numpy().tobytes() == file.rows(target).tobytes(), name


def config_of(loaded):
    """What decides the logits, of a config."""
    left_out = (
        "_name_or_path",
        "_model_name_or_path",
        "architectures",
        "dtype",
        "model_type",
        "use_cache",
        "transformers_version",
    )
    return {key: value for key, value in loaded.model.config.to_dict().items() if key not in left_out}


ROUND_TRIPS = {**{name: ("Q2_0", name) for name in ARCHITECTURES}, **dict.fromkeys(ONE_BIT, None)}


@pytest.mark.slow
@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_exported_without_training_the_file_has_the_same_blocks_and_loads_as_the_same_model(case, tmp_path):
    kind, name = ROUND_TRIPS[case] or (case, "llama")
    config = ARCHITECTURES[name] if ROUND_TRIPS[case] else LLAMA
    made = make(config, (kind,), name.partition(" ")[0])
    loaded = load(made, tmp_path)
    export_packed(loaded.model, loaded.tokenizer, tmp_path / "packed")
    options = ExportOptions(type=kind.lower(), pre_tokenizer="gpt-2")
    export_as("gguf", tmp_path / "packed", tmp_path / "out", options)
    first, second = open_gguf(tmp_path / "made.gguf"), open_gguf(tmp_path / "out" / "model.gguf")
    for tensor in first.tensors.values():
        assert second.tensors[tensor.name].type_id == tensor.type_id, tensor.name
        assert second.rows(tensor.name).tobytes() == first.rows(tensor.name).tobytes(), tensor.name
    again = load_pretrained(str(tmp_path / "out" / "model.gguf"))
    assert config_of(again) == config_of(loaded)
    assert torch.equal(logits(again.model), logits(loaded.model))
