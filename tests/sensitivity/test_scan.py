from __future__ import annotations

import math

import pytest
import torch

from bitnet_train.errors import DataError
from bitnet_train.evaluate.comparison import compare
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert, plan_conversion
from bitnet_train.model.overrides import read_overrides
from bitnet_train.model.settings import Selection
from bitnet_train.packed import export_packed
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from bitnet_train.sensitivity.reference import Reference
from bitnet_train.sensitivity.scan import Scanner, total_bytes

BINARY = WeightScheme("binary", "group", 128)
EVERYTHING = Selection(roles=("attention", "mlp", "head", "embedding"))


@pytest.fixture(scope="module")
def tiny():
    return load_pretrained("tiny")


@pytest.fixture(scope="module")
def rows(tiny):
    ids = tiny.tokenizer("import os\n\n\ndef read_lines(path):\n    with open(path) as file:\n" * 3)["input_ids"]
    return {"input_ids": torch.tensor([ids, ids[::-1]]), "labels": torch.tensor([ids, ids[::-1]])}


@pytest.fixture(scope="module")
def scan(tiny, rows):
    plan = plan_conversion(tiny.model, Selection(), BINARY)
    return Scanner(tiny.model, plan, BINARY, ActivationScheme(), rows).scan()


@pytest.mark.slow
def test_a_reference_measures_what_the_evaluation_measures(tiny, rows):
    reference = Reference(tiny.model, rows)
    same = reference.measure(tiny.model)
    assert (same.kl, same.top1) == (0.0, 1.0)
    assert same.perplexity == pytest.approx(reference.perplexity)
    other = load_pretrained("tiny").model
    convert(other, weight=BINARY)
    ours, theirs = reference.measure(other), compare(other, tiny.model, rows)
    assert ours.kl == pytest.approx(theirs.kl, rel=1e-6)
    assert ours.top1 == pytest.approx(theirs.top1_agreement)
    assert ours.perplexity == pytest.approx(theirs.student.perplexity, rel=1e-6)


def test_rows_without_a_label_are_refused(tiny, rows):
    with pytest.raises(DataError, match="at least one labelled token"):
        Reference(tiny.model, {**rows, "labels": torch.full_like(rows["labels"], -100)})


@pytest.mark.slow
def test_every_part_is_alone_worse_than_float_and_better_than_everything(scan):
    assert len(scan.results) == 7 + 4
    families = [result for result in scan.results if result.part.kind == "family"]
    assert all(0 < result.only.kl < scan.everything.kl for result in families)
    assert sum(result.planned_bytes for result in families) == scan.planned_bytes
    assert all(result.ternary is not None and result.ternary.kl != result.only.kl for result in scan.results)
    assert len({result.spared.kl for result in scan.results}) == len(scan.results)


@pytest.mark.slow
def test_a_scan_leaves_the_model_as_it_was(tiny, scan):
    fresh = load_pretrained("tiny").model
    assert all(torch.equal(a, b) for a, b in zip(tiny.model.parameters(), fresh.parameters(), strict=True))
    assert not any(module._forward_pre_hooks for module in tiny.model.modules())


def test_bytes_are_those_of_the_packed_folder(tiny, tmp_path):
    model = load_pretrained("tiny").model
    entries = read_overrides(
        [{"pattern": "down_proj", "name": "ternary"}, {"role": "head", "granularity": "row"}], BINARY
    )
    plan = convert(model, selection=EVERYTHING, weight=BINARY, overrides=entries)
    sizes = export_packed(model, tiny.tokenizer, tmp_path / "packed", {}).sizes
    shapes = {row.name: row.shape for row in plan.rows}
    assert total_bytes(plan.schemes, shapes) == sizes.packed_bytes + sizes.scale_bytes


@pytest.mark.slow
def test_head_and_embedding_are_parts_and_a_ternary_plan_needs_no_second_try(tiny, rows):
    ternary = WeightScheme("ternary", "row")
    plan = plan_conversion(tiny.model, EVERYTHING, ternary)
    scan = Scanner(tiny.model, plan, ternary, ActivationScheme(), rows).scan()
    assert {"lm_head", "model.embed_tokens"} <= {result.part.pattern for result in scan.results}
    assert all(result.ternary is None for result in scan.results)
    assert math.isfinite(scan.everything.kl)
