from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from bitnet_train.packed import export_packed, read_manifest
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.load import load
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.validation import check_native as check
from bitnet_train.validation.check_model import Subject
from bitnet_train.validation.check_native import check_native
from bitnet_train.validation.validate import validate

GENERATOR = torch.Generator().manual_seed(1)
BATCHES = [torch.randint(0, 256, shape, generator=GENERATOR) for shape in ((6, 9), (1, 60))]


def checked(folder, against=None, new_tokens=6):
    model = load(against or folder)
    return check_native(Subject(read_manifest(folder), model, model, "itself"), folder, BATCHES, new_tokens)


@pytest.fixture
def copy(pretrained_folder, tmp_path):
    return shutil.copytree(pretrained_folder, tmp_path / "copy")


def change(folder, edit):
    """Change tensors of a folder; the native runtime is then loaded without checking hashes."""
    tensors = load_file(folder / "weights.safetensors")
    edit(tensors)
    save_file(tensors, folder / "weights.safetensors", metadata={"format": "pt"})


def next_float(values, at):
    values.view({2: torch.int16, 4: torch.int32}[values.element_size()])[at] += 1


def swap(tensors, one, other):
    for part in ("planes", "scale"):
        tensors[f"{one}.{part}"], tensors[f"{other}.{part}"] = tensors[f"{other}.{part}"], tensors[f"{one}.{part}"]


@pytest.mark.slow
def test_every_family_passes(family_folder):
    level = checked(family_folder)
    assert level.passed, level.first_failure
    assert level.figures["greedy_tokens"] == 7 * 6
    assert level.figures["logit_tokens"] == 6 * 9 + 60 + 6 * (9 + 5) + 60 + 5


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["int8", "int4", "sign"])
@pytest.mark.parametrize("name", ["binary", "ternary"])
def test_every_scheme_passes(make_folder, name, activation):
    folder = make_folder("llama", WeightScheme(name, "group", 32), activation, ("attention", "mlp", "head"))
    level = checked(folder)
    assert level.passed, level.first_failure


@pytest.mark.slow
def test_the_bundled_model_passes_and_torchs_own_operations_are_near(pretrained_folder):
    level = checked(pretrained_folder, new_tokens=24)
    assert level.passed, level.first_failure
    logits = NativeModel.load(pretrained_folder).logits(BATCHES[1][0].tolist())
    assert 0 < level.figures["torch_typical_difference"] < 0.1 * logits.std()
    assert level.figures["torch_max_abs_difference"] > level.figures["torch_typical_difference"]
    assert level.figures["torch_other_choices"] <= 7


@pytest.mark.slow
@pytest.mark.parametrize(
    "defect",
    [
        lambda t: t["model.rotary_emb.inv_freq"].zero_(),
        lambda t: t["model.rotary_emb.inv_freq"].copy_(t["model.rotary_emb.inv_freq"].flip(0)),
        lambda t: t["model.rotary_emb.inv_freq"].mul_(1.25),
        lambda t: swap(t, "model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj"),
        lambda t: swap(t, "model.layers.2.self_attn.k_proj", "model.layers.2.self_attn.q_proj"),
        lambda t: swap(t, "model.layers.1.self_attn.o_proj", "model.layers.2.self_attn.o_proj"),
        lambda t: t["model.layers.3.input_layernorm.weight"].mul_(1.5),
        lambda t: t["model.norm.weight"].mul_(1.25),
        lambda t: next_float(t["model.norm.weight"], 7),
        lambda t: t["model.embed_tokens.weight"][42, 3].add_(0.01),
        lambda t: t["model.embed_tokens.weight"].copy_(t["model.embed_tokens.weight"].roll(1, 0)),
        lambda t: t["model.norm.weight"].fill_(float("nan")),
    ],
    ids=(
        "no_rope",
        "reversed",
        "faster",
        "gate_is_up",
        "q_is_k",
        "o_of_another",
        "norm",
        "last_norm",
        "one_ulp",
        "one_value",
        "table",
        "nan",
    ),
)
def test_a_native_runtime_that_computed_something_else_would_fail(copy, pretrained_folder, defect):
    change(copy, defect)
    level = checked(copy, against=pretrained_folder)
    assert re.match(r"held-out text: logits: .* at \[\d+, \d+\]|.* a value is not finite", str(level.first_failure))


@pytest.mark.slow
def test_a_missing_sliding_window_would_fail(make_folder, tmp_path):
    folder = make_folder("mistral_with_a_window")
    without = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((without / "config.json").read_text())
    (without / "config.json").write_text(json.dumps({**config, "sliding_window": None}))
    assert "at [8, " in str(checked(without, against=folder).first_failure), "the first position that sees less"


@pytest.mark.slow
def test_other_tokens_are_found_and_named(pretrained_folder, monkeypatch):
    class Forgetful(NativeModel):
        def generate_ids(self, token_ids, max_new_tokens=128, **options):
            made = super().generate_ids(token_ids, max_new_tokens, **options)
            return [*made[:2], (made[2] + 1) % 4096, *made[3:]]

    monkeypatch.setattr(check, "NativeModel", Forgetful)
    prompt = BATCHES[0][0].tolist()
    right = NativeModel.load(pretrained_folder).generate_ids(prompt, 3, stop_ids=())[2]
    failure = f"prompt {prompt}, new token 2: {(right + 1) % 4096} instead of {right}"
    assert checked(pretrained_folder).first_failure == failure


def test_a_model_that_no_operations_can_be_lent_to_fails_the_level_with_the_reason(make_folder):
    folder = make_folder()
    model = load(folder).bfloat16()
    level = check_native(Subject(read_manifest(folder), model, model, "itself"), folder, BATCHES, 2)
    assert "is torch.bfloat16 on cpu" in str(level.first_failure)


@pytest.mark.slow
def test_a_folder_that_does_not_fit_passes_with_the_reason(make_folder, make_trained, tmp_path):
    level = checked(make_folder(activation="none"))
    assert level.passed
    assert level.detail.startswith("not applicable: model.layers.0.self_attn.q_proj takes float activations")
    export_packed(make_trained("gpt2"), None, tmp_path / "out", {})
    report = validate(tmp_path / "out", num_prompts=2, new_tokens=2, num_tokens=64, all_isas=False)
    assert report.passed
    assert report.levels[-1].detail.startswith("not applicable: GPT2LMHeadModel is not one of")


def test_a_folder_that_only_the_native_runtime_refuses_fails_with_its_words(copy, pretrained_folder):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rms_norm_eps": -1.0}))
    level = checked(copy, against=pretrained_folder)
    assert "`rms_norm_eps` must be a finite number above 0" in str(level.first_failure)


@pytest.mark.slow
def test_a_tokenizer_that_reads_otherwise_is_found(pretrained_folder, monkeypatch):
    monkeypatch.setattr(check, "load_tokenizer", lambda folder: lambda text: {"input_ids": [7]})
    assert "tokenizer: 'def main():' becomes" in str(checked(pretrained_folder).first_failure)


def test_a_prompt_as_long_as_the_context_is_cut_so_that_something_is_written(make_folder):
    folder = make_folder()
    model = load(folder)
    rows = [torch.randint(0, 256, (2, 200), generator=GENERATOR)]
    level = check_native(Subject(read_manifest(folder), model, model, "itself"), folder, rows, 8)
    assert level.passed, level.first_failure
    assert level.figures["greedy_tokens"] == 2 * 8


@pytest.mark.slow
def test_validate_runs_the_level_on_text(pretrained_folder):
    report = validate(pretrained_folder, num_prompts=4, new_tokens=2, num_tokens=128, all_isas=False, native_tokens=5)
    assert report.passed, report.first_failure
    assert report.levels[-1].name == "native"
    assert report.levels[-1].figures["greedy_tokens"] == 5 * 5
