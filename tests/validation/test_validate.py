from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from bitnet_train.errors import DataError, FormatError
from bitnet_train.formats.planes import pack_planes
from bitnet_train.kernels import ops
from bitnet_train.model.bit_linear import bit_layers
from bitnet_train.model.converted import ConversionRecord, save_converted
from bitnet_train.packed import export_packed, read_manifest
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, ActivationScheme, WeightScheme
from bitnet_train.runtime.load import load
from bitnet_train.validation.check_bytes import check_bytes
from bitnet_train.validation.check_integers import check_integers, worst_case_codes
from bitnet_train.validation.check_model import Subject, check_layers, check_logits, greedy_continuation
from bitnet_train.validation.report import LEVEL_NAMES, Level, ValidationReport
from bitnet_train.validation.validate import validate
from tests.fixtures.schemes import CODE_SETS, weight_scheme

SMALL = {"num_prompts": 14, "new_tokens": 3, "num_tokens": 200}
LAYER = "model.layers.1.mlp.down_proj"


def failed(report):
    return [level.name for level in report.levels if not level.passed]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATION_SCHEMES)
@pytest.mark.parametrize("name", CODE_SETS)
def test_an_export_is_valid_against_the_trained_model(make_trained, byte_tokenizer, tmp_path, name, activation):
    model = make_trained(weight=weight_scheme(name, "group", 32, learnable_scale=True), activation=activation)
    export_packed(model, byte_tokenizer, tmp_path / "out", {})
    report = validate(tmp_path / "out", against=model, **SMALL)
    assert report.passed, report.first_failure
    assert tuple(level.name for level in report.levels) == LEVEL_NAMES
    assert report.compared_with == "the trained model"
    figures = {level.name: level.figures for level in report.levels}
    assert figures["logits"]["max_abs_difference"] == 0.0
    assert figures["layer"]["layers"] == len(bit_layers(model))
    assert figures["tokens_and_perplexity"]["prompts"] == 14
    assert figures["tokens_and_perplexity"]["greedy_tokens"] == 14 * 3
    assert (figures["integers"]["layers"] == 0) == (activation == "none")


@pytest.mark.slow
@pytest.mark.parametrize("family", ["odd", "gpt2"])
def test_other_families_and_a_packed_head_are_valid(make_trained, tmp_path, family):
    model = make_trained(family, roles=("attention", "mlp", "head"))
    export_packed(model, None, tmp_path / "out", {})
    for against in (model, None):
        report = validate(tmp_path / "out", against=against, **SMALL)
        assert report.passed, report.first_failure


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [("llama", "binary"), ("gpt2", "ternary")])
def test_a_packed_embedding_is_valid_and_its_integers_are_left_out_by_name(make_trained, tmp_path, family, name):
    roles = ("attention", "mlp", "head", "embedding")
    model = make_trained(family, weight_scheme(name, learnable_scale=True), roles=roles)
    export_packed(model, None, tmp_path / "out", {})
    for against in (model, None):
        report = validate(tmp_path / "out", against=against, **SMALL)
        assert report.passed, report.first_failure
        levels = {level.name: level for level in report.levels}
        assert "the embedding is a look-up and has no products" in levels["integers"].detail
        assert levels["integers"].figures["layers"] == len(bit_layers(model)) - 1
        assert levels["layer"].figures["layers"] == len(bit_layers(model))


@pytest.mark.slow
def test_one_wrong_sign_of_a_packed_embedding_is_found(make_trained, tmp_path, tamper):
    model = make_trained(roles=("embedding",))
    export_packed(model, None, tmp_path / "out", {})

    def flip_every_first_sign(tensors):
        tensors["model.embed_tokens.planes"][0, :, 0] ^= 1

    tamper(tmp_path / "out", flip_every_first_sign)
    report = validate(tmp_path / "out", against=model, **SMALL)
    assert {"bytes", "layer", "logits"} <= set(failed(report))
    assert report.first_failure == "model.embed_tokens: codes: 258 of 16512 differ from the trained ones"


@pytest.mark.slow
def test_the_folder_of_the_merged_checkpoint_can_be_compared_with(exported, trained, tmp_path):
    record = ConversionRecord(tuple(bit_layers(trained)), WeightScheme(), ActivationScheme())
    save_converted(trained, record, tmp_path / "merged")
    report = validate(exported, against=tmp_path / "merged", **SMALL)
    assert report.passed, report.first_failure


@pytest.mark.slow
def test_a_trained_model_that_attends_otherwise_than_the_folder_says_is_still_the_same_model(exported, make_trained):
    model = make_trained()
    model.set_attn_implementation("eager")
    assert validate(exported, against=model, **SMALL).passed


@pytest.mark.slow
def test_without_a_trained_model_the_report_says_what_it_does_not_prove(exported):
    report = validate(exported, **SMALL)
    assert report.passed
    assert "no trained model was given" in report.compared_with


@pytest.mark.slow
def test_one_wrong_sign_with_repaired_hashes_is_found_in_its_layer(folder, trained, tamper):
    def flip_one_sign(tensors):
        tensors[f"{LAYER}.planes"][0, 5, 3] ^= 1

    tamper(folder, flip_one_sign)
    assert validate(folder, **SMALL).passed  # consistent with itself: only the trained model can tell
    report = validate(folder, against=trained, **SMALL)
    assert {"bytes", "layer", "logits"} <= set(failed(report))
    assert report.first_failure == f"{LAYER}: codes: 1 of 8192 differ from the trained ones"
    assert all(LAYER in str(level.first_failure) for level in report.levels if level.name in ("layer", "logits"))


@pytest.mark.slow
def test_one_wrong_scale_and_one_wrong_norm_are_named(folder, trained, tamper):
    tamper(folder, lambda tensors: tensors[f"{LAYER}.scale"][0].mul_(2))
    assert check_bytes(folder, trained).first_failure == f"{LAYER}: scale: differs from the trained one"
    tamper(folder, lambda tensors: tensors[f"{LAYER}.scale"][0].div_(2))
    tamper(folder, lambda tensors: tensors["model.norm.weight"][3].mul_(1.5))
    report = validate(folder, against=trained, **SMALL)
    assert report.first_failure == "model.norm.weight: differs from the trained one"
    assert [level.first_failure.split(":")[0] for level in report.levels if level.name == "logits"] == ["model.norm"]
    assert report.levels[2].passed  # the packed layers themselves are right


BAD_SCALES = {
    "negative zero": -0.0,
    "negative": -1.0,
    "subnormal": 2.0**-20,
    "infinite": float("inf"),
    "NaN": float("nan"),
}


@pytest.mark.parametrize("value", BAD_SCALES.values(), ids=BAD_SCALES.keys())
def test_a_scale_that_no_training_gives_is_refused_even_without_the_trained_model(folder, tamper, value):
    tamper(folder, lambda tensors: tensors[f"{LAYER}.scale"][0].fill_(value))
    level = check_bytes(folder, None)
    assert level.first_failure == f"{LAYER}: scale: neither 0 nor a finite normal number above it"


def test_a_damaged_folder_gives_a_report_and_not_an_exception(folder, trained):
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    report = validate(folder, against=trained, **SMALL)
    assert failed(report) == list(LEVEL_NAMES)
    assert "is truncated" in report.first_failure
    assert all("not run" in level.detail for level in report.levels[1:])


@pytest.mark.slow
def test_a_model_with_other_layers_is_not_the_trained_one(exported, make_trained):
    report = validate(exported, against=make_trained(roles=("mlp",)), **SMALL)
    assert "model.layers.0.self_attn" in report.first_failure
    assert "in one of the two models only" in report.first_failure


@pytest.mark.slow
def test_another_trained_model_fails_every_level_that_looks_at_it(exported, make_trained):
    report = validate(exported, against=make_trained(seed=9), **SMALL)
    assert set(failed(report)) == set(LEVEL_NAMES) - {"integers", "native"}, "which compare the folder with itself"


def test_a_trained_model_in_another_precision_is_refused(exported, make_trained):
    with pytest.raises(FormatError, match=r"must be a float32 model on the CPU, but .*bfloat16.*\.float\(\)\.cpu\(\)"):
        validate(exported, against=make_trained().bfloat16())


@pytest.mark.slow
def test_prompts_of_ones_own_are_used_and_an_empty_one_is_refused(exported, trained):
    report = validate(exported, against=trained, prompts=["abc", "de", "fgh"], new_tokens=2, num_tokens=64)
    assert report.passed
    assert report.levels[4].figures["prompts"] == 3
    with pytest.raises(DataError, match="prompt is empty"):
        validate(exported, prompts=["abc", ""], num_tokens=64)


@pytest.mark.slow
def test_progress_names_each_level_as_it_starts(exported):
    started = []
    validate(exported, progress=started.append, all_isas=False, **SMALL)
    assert started == list(LEVEL_NAMES)


@pytest.fixture
def subject(exported, trained):
    return Subject(read_manifest(exported), load(exported), trained, "the trained model")


def test_a_wrong_weight_in_memory_fails_the_integers_and_the_layer(subject, exported):
    layer = subject.packed.get_submodule(LAYER)
    codes, scale = ops.unpack(layer.stream, layer.weight)
    codes[7, 9] *= -1
    planes, weight = pack_planes(codes, "binary"), layer.weight
    layer.stream, _ = ops.pack(planes, scale, weight.num_inputs, weight.group_size, "binary", "int8")
    integers = check_integers(subject, exported, ("portable",))
    assert integers.first_failure.startswith(f"{LAYER}: {weight.kernel} gives ")
    assert integers.first_failure.endswith("at token 0, output 7, group 0")
    assert check_layers(subject, torch.arange(9)[None]).first_failure.startswith(f"{LAYER}: ")


def test_a_wrong_bias_fails_the_layer_but_not_the_integers(subject, exported):
    subject.packed.get_submodule("model.layers.0.self_attn.k_proj").bias[2] += 1
    assert check_integers(subject, exported, ("portable",)).passed
    failure = check_layers(subject, torch.arange(9)[None]).first_failure
    assert failure.startswith("model.layers.0.self_attn.k_proj: ")
    assert failure.endswith("at [0, 0, 2]")


def test_logits_that_are_not_finite_fail_even_when_both_models_agree(subject):
    assert check_logits(subject, [torch.arange(5)[None]]).passed
    with torch.no_grad():
        subject.packed.model.norm.weight.fill_(float("nan"))
    level = check_logits(replace(subject, expected=subject.packed), [torch.arange(5)[None]])
    assert level.first_failure == "model.norm: a value is not finite"


def test_worst_case_codes_reach_the_largest_sum(trained):
    codes, _ = bit_layers(trained)[LAYER].quantized()
    x_codes = worst_case_codes(codes, "int8", torch.Generator().manual_seed(0)).int()
    sums = x_codes @ codes.int().T
    negatives = int((codes[0] < 0).sum())
    assert int(sums[2, 0]) == 128 * negatives + 127 * (codes.shape[1] - negatives)
    assert x_codes.min() == -128
    assert x_codes.max() == 127
    assert set(worst_case_codes(codes, "sign", torch.Generator()).unique().tolist()) == {-1, 1}


def test_a_greedy_continuation_is_that_of_generate(subject):
    prompt = torch.tensor([[72, 101, 108, 108, 111]])
    expected = subject.packed.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)
    with torch.no_grad():
        assert torch.equal(greedy_continuation(subject.packed, prompt, 6), expected)


def test_a_report_serialises_and_renders_its_failure():
    levels = (Level("bytes", "files", {"files": 3}), Level("integers", "kernel", {}, "layer 7: 1 instead of 2"))
    report = ValidationReport("folder", "the trained model", levels)
    assert not report.passed
    assert json.loads(json.dumps(report.to_dict()))["levels"][1]["passed"] is False
    console = Console(record=True, width=120)
    console.print(report.render())
    text = console.export_text()
    assert "folder: NOT VALID" in text
    assert "first difference: layer 7: 1 instead of 2" in text
    assert "files 3" in text


def test_a_report_with_a_level_missing_has_not_passed():
    assert not ValidationReport("folder", "x", (Level("bytes", "files"),)).passed
