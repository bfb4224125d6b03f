"""Int8 tables on the Hugging Face path: loaded, proven against the trained model, and every change found."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bitnet_train.errors import FormatError
from bitnet_train.evaluate.perplexity import perplexity
from bitnet_train.importers.load import load_pretrained
from bitnet_train.kernels import reference_int8
from bitnet_train.kernels.isa import available_isas
from bitnet_train.model.int8_table import Int8Embedding, Int8Linear
from bitnet_train.packed import export_packed, read_manifest
from bitnet_train.packed.contents import describe_tensor
from bitnet_train.packed.manifest import seal, sha256_of
from bitnet_train.packed.narrow import hashable
from bitnet_train.quant.int8_table import quantize_table
from bitnet_train.runtime.load import load
from bitnet_train.validation import check_tables
from bitnet_train.validation.check_tables import add_table_products, worst_case_inputs
from bitnet_train.validation.oracle import rounded_tables
from bitnet_train.validation.prompts import validation_texts
from bitnet_train.validation.report import Level
from bitnet_train.validation.validate import _subject, validate

SMALL = {"num_prompts": 14, "new_tokens": 3, "num_tokens": 200}
TOKENS = torch.randint(0, 256, (3, 19), generator=torch.Generator().manual_seed(3))
CHOICES = {
    "a tied pair": ("llama", "int8", "int8"),
    "a tied pair of another family": ("gpt2", "int8", "int8"),
    "an untied pair": ("odd", "int8", "int8"),
    "an embedding": ("odd", "int8", "exact"),
    "a head": ("odd", "exact", "int8"),
    "a tied pair in 4 bits": ("llama", "int4", "int4"),
    "an untied pair in 5 and 4 bits": ("odd", "int5", "int4"),
}


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


@pytest.fixture
def tables_folder(trained, tmp_path):
    export_packed(trained, None, tmp_path / "out", {}, embedding="int8", head="int8")
    return tmp_path / "out"


def change_tensor(folder, name, change, *, reseal_entry=True):
    """Change one tensor of a folder and repair the hashes of the tensor and the file, and of the table if asked."""
    weights = folder / "weights.safetensors"
    tensors = load_file(weights)
    change(tensors[name])
    save_file(tensors, weights, metadata={"format": "pt"})
    body = json.loads((folder / "manifest.json").read_text())
    body.pop("manifest_sha256")
    body["tensors"][name]["sha256"] = describe_tensor(tensors[name]).sha256
    data = weights.read_bytes()
    body["files"]["weights.safetensors"] = {"num_bytes": len(data), "sha256": sha256_of(data)}
    if reseal_entry:
        for table in body["tables"]:
            table[f"{name.rpartition('.')[2]}_sha256"] = sha256_of(hashable(tensors[name]))
    (folder / "manifest.json").write_text(seal(body))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "embedding", "head"), CHOICES.values(), ids=CHOICES.keys())
def test_an_export_with_int8_tables_is_valid_with_and_without_the_trained_model(
    make_trained, tmp_path, family, embedding, head
):
    model = make_trained(family)
    before = logits(model)
    export_packed(model, None, tmp_path / "out", {}, embedding=embedding, head=head)
    for against in (model, None):
        report = validate(tmp_path / "out", against=against, **SMALL)
        assert report.passed, report.first_failure
        figures = {level.name: level.figures for level in report.levels}
        assert figures["logits"]["max_abs_difference"] == 0.0
        assert figures["bytes"]["int8_tables"] == 2 - [embedding, head].count("exact")
        assert ("int8_products" in figures["integers"]) == (head != "exact")
    assert torch.equal(logits(model), before)  # the trained model got its own tables back
    assert not torch.equal(logits(load(tmp_path / "out")), before)  # and the folder does compute rounded


@pytest.mark.slow
def test_the_report_says_that_the_trained_model_was_rounded_alike(trained, tables_folder):
    report = validate(tables_folder, against=trained, **SMALL)
    assert report.compared_with == "the trained model, its token embedding and head rounded to int8 alike"
    details = {level.name: level.detail for level in report.levels}
    assert "its float tables, rounded alike, with the int8 ones" in details["bytes"]
    assert "rounded to int8 alike" in details["logits"]
    assert "products of the int8 head with the oracle" in details["integers"]


def test_a_tied_table_is_loaded_once(tables_folder):
    model = load(tables_folder)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, Int8Embedding)
    assert isinstance(head, Int8Linear)
    assert head.stream.data_ptr() == embedding.stream.data_ptr()
    assert not any(parameter.shape[0] == 258 for parameter in model.parameters())


def test_the_loaded_tables_are_those_of_the_trained_model_rounded(trained, tables_folder):
    model = load(tables_folder)
    codes, scale = quantize_table(trained.get_input_embeddings().weight)
    assert torch.equal(model.get_input_embeddings()(TOKENS), (codes.float() * scale.float().unsqueeze(1))[TOKENS])
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.get_output_embeddings()(x), reference_int8.int8_linear(x, codes, scale.float()))


@pytest.mark.slow
def test_rounding_the_tables_of_the_bundled_model_costs_it_next_to_nothing():
    loaded = load_pretrained("tiny")
    model = loaded.model.eval()
    texts = validation_texts(
        loaded.tokenizer, model.config.vocab_size, prompts=None, num_prompts=1, num_tokens=1024, longest_row=256
    )
    exact = perplexity(model, texts.rows)
    embedding = Int8Embedding.from_codes(*quantize_table(model.get_input_embeddings().weight))
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(Int8Linear.of(embedding, None))
    rounded = perplexity(model, texts.rows)
    assert rounded.nats != exact.nats
    assert abs(rounded.perplexity / exact.perplexity - 1) < 0.005


@pytest.mark.slow
def test_a_head_with_a_bias_is_valid(make_trained, tmp_path):
    model = make_trained("odd")
    model.lm_head = nn.Linear(48, 258)
    export_packed(model, None, tmp_path / "out", {}, head="int8")
    report = validate(tmp_path / "out", against=model, **SMALL)
    assert report.passed, report.first_failure


@pytest.mark.slow
def test_a_changed_code_with_every_hash_repaired_is_found_against_the_trained_model(trained, tables_folder):
    change_tensor(tables_folder, "model.embed_tokens.codes", lambda codes: codes[7, 3].add_(1))
    report = validate(tables_folder, against=trained, **SMALL)
    failed = [level.name for level in report.levels if not level.passed]
    assert "bytes" in failed
    assert "logits" in failed
    assert report.first_failure == "model.embed_tokens: codes: 1 of 16512 differ from the trained ones, rounded alike"
    assert validate(tables_folder, **SMALL).passed  # alone, the folder agrees with itself


@pytest.mark.slow
def test_a_changed_scale_with_every_hash_repaired_is_found_against_the_trained_model(trained, tables_folder):
    change_tensor(tables_folder, "model.embed_tokens.scale", lambda scale: scale[7].mul_(2))
    report = validate(tables_folder, against=trained, **SMALL)
    assert report.first_failure == "model.embed_tokens: scale: differs from that of the trained table"


@pytest.mark.slow
@pytest.mark.parametrize(("part", "message"), [("codes", "codes: other hash"), ("scale", "scale: other hash")])
def test_a_table_that_its_entry_does_not_describe_is_found(tables_folder, part, message):
    change_tensor(tables_folder, f"model.embed_tokens.{part}", lambda data: data[7].add_(1), reseal_entry=False)
    report = validate(tables_folder, **SMALL)
    assert report.first_failure.startswith(f"model.embed_tokens: {message}")


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_scale_that_no_table_has_is_found(tables_folder, value):
    change_tensor(tables_folder, "model.embed_tokens.scale", lambda scale: scale[7].fill_(value))
    report = validate(tables_folder, **SMALL)
    assert report.first_failure == "model.embed_tokens: scale: not finite, or not above 0"


def test_a_trained_model_without_that_table_is_refused_and_keeps_its_own(make_trained, tables_folder):
    other = make_trained("odd")
    report = validate(tables_folder, against=other, **SMALL)
    assert not report.passed
    manifest = read_manifest(tables_folder)
    with (
        pytest.raises(FormatError, match=r"model.embed_tokens: the trained model has no 258 x 64 table there"),
        rounded_tables(other, manifest),
    ):
        pass
    assert type(other.get_input_embeddings()) is nn.Embedding


def test_a_trained_model_gets_its_tables_back_after_an_error(trained, tables_folder):
    embedding = trained.get_input_embeddings()

    def fail_while_rounded():
        with rounded_tables(trained, read_manifest(tables_folder)):
            assert trained.get_input_embeddings() is not embedding
            raise RuntimeError("in between")

    with pytest.raises(RuntimeError, match="in between"):
        fail_while_rounded()
    assert trained.get_input_embeddings() is embedding


def test_a_kernel_that_is_off_by_one_bit_is_named(trained, tables_folder, monkeypatch):
    original = reference_int8.int8_linear
    monkeypatch.setattr(
        check_tables.reference_int8, "int8_linear", lambda *parts: torch.nextafter(original(*parts), torch.tensor(9.0))
    )
    with ExitStack() as until_done:
        subject = _subject(tables_folder, trained, "the trained model", until_done)
        level = add_table_products(Level("integers", "layers"), subject, [available_isas()[0]])
    assert level.first_failure.startswith(f"lm_head: {available_isas()[0]} gives")


def test_without_a_head_in_int8_the_level_is_left_as_it_is(trained, tables_folder):
    with ExitStack() as until_done:
        subject = _subject(tables_folder, trained, "the trained model", until_done)
        level = Level("integers", "layers")
        alone = replace(subject, manifest=replace(subject.manifest, tables=()))
        assert add_table_products(level, alone, ["reference"]) is level


def test_the_worst_case_reaches_the_largest_16_bit_codes_in_both_signs():
    codes = torch.tensor([[-128, 127, 0], [1, 2, 3]], dtype=torch.int8)
    x_codes, _ = reference_int8.quantize_int16(worst_case_inputs(codes))
    assert x_codes[:3].tolist() == [[32767] * 3, [-32767] * 3, [-32767, 32767, 32767]]


@pytest.mark.parametrize("name", ["model.embed_tokens", "lm_head"])
def test_a_table_of_other_rows_than_the_model_is_refused(tables_folder, name):
    config = json.loads((tables_folder / "config.json").read_text())
    (tables_folder / "config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    with pytest.raises(FormatError, match=r"is 258 x 64 in the manifest and \[300, 64\] in the model"):
        load(tables_folder, verify=False)
