from __future__ import annotations

import io
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bitnet_train.model.convert import convert
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.train.loop.diagnostics import Telemetry, popcount_histogram, quantised_layers
from bitnet_train.train.loop.signals import Interrupted
from tests.fixtures.tiny_run import DieAt, llama, run, tiny_module


def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def test_the_histogram_counts_plus_ones_per_whole_word() -> None:
    codes = -torch.ones(2, 64 * 2 + 10, dtype=torch.int8)
    codes[0, :64] = 1
    codes[1, 64:69] = 1
    codes[1, 128:] = 1  # an incomplete word: left out
    histogram = popcount_histogram(codes)
    assert (len(histogram), histogram[64], histogram[5], histogram[0], sum(histogram)) == (65, 1, 1, 2, 4)
    assert sum(popcount_histogram(codes[:, :10])) == 0


def test_layers_are_listed_once_under_clean_names_with_the_adapter_included() -> None:
    student = tiny_module().student
    layers = quantised_layers(student)
    assert len(layers) == 14
    assert "model.layers.0.self_attn.q_proj" in layers
    with torch.no_grad():
        for layer in layers.values():
            layer.lora_B["default"].weight.fill_(0.1)
    changed = [not torch.equal(layer.latent(), layer.bit_linear.weight) for layer in layers.values()]
    assert all(changed)


@pytest.mark.slow
def test_figures_match_what_they_are_defined_as(tmp_path: Path) -> None:
    module, telemetry = tiny_module(steps=4, lr=5e-2), Telemetry(tmp_path, 2, console())
    initial = {name: layer.quantized()[0].clone() for name, layer in quantised_layers(module.student).items()}
    run(tmp_path, module, callbacks=[telemetry], validate_every_steps=0)
    rows = [json.loads(line) for line in (tmp_path / "debug.jsonl").open()]
    assert [row["step"] for row in rows] == [2] * 14 + [4] * 14
    layers = quantised_layers(module.student)
    for row in rows[14:]:
        codes, scale = layers[row["layer"]].quantized()
        assert row["flips_init"] == pytest.approx(float((codes != initial[row["layer"]]).float().mean()))
        assert row["zeros"] == 0.0
        assert row["scale"] == pytest.approx([np.min(scale.numpy()), np.median(scale.numpy()), np.max(scale.numpy())])
        assert row["activation"] == sorted(row["activation"])
        assert row["activation"][0] > 0
    assert any(row["flips_init"] > 0 for row in rows)
    assert any(row["flips"] != row["flips_init"] for row in rows[14:])
    assert "popcount 0-64" in telemetry.console.file.getvalue()


@pytest.mark.slow
def test_ternary_zeros_are_seen(tmp_path: Path) -> None:
    student = llama()
    convert(student, weight=WeightScheme(name="ternary"))
    module = tiny_module(steps=1)
    module.student = student
    run(tmp_path, module, callbacks=[Telemetry(tmp_path, 1, console())], validate_every_steps=0)
    shares = [json.loads(line)["zeros"] for line in (tmp_path / "debug.jsonl").open()]
    assert all(0.2 < share < 0.45 for share in shares)  # a Gaussian has P(|w| < mean|w| / 2) = 0.31


@pytest.mark.slow
def test_flips_since_conversion_survive_a_resume(tmp_path: Path) -> None:
    def telemetry() -> list:
        return [Telemetry(tmp_path, 4, console())]

    with pytest.raises(Interrupted):
        run(tmp_path, tiny_module(lr=5e-2), callbacks=[*telemetry(), DieAt(5, signal.SIGTERM)])
    run(tmp_path, tiny_module(lr=5e-2), callbacks=telemetry(), resume="auto")
    resumed = [json.loads(line) for line in (tmp_path / "debug.jsonl").open()]
    run(tmp_path / "whole", tiny_module(lr=5e-2), callbacks=[Telemetry(tmp_path / "whole", 4, console())])
    whole = [json.loads(line) for line in (tmp_path / "whole" / "debug.jsonl").open()]
    keep = ("step", "layer", "flips_init", "zeros", "near_zero", "popcount", "activation")
    assert [[row[key] for key in keep] for row in resumed] == [[row[key] for key in keep] for row in whole]


@pytest.mark.parametrize(("value", "wanted"), [("1", True), ("true", True), ("0", False), ("", False), (None, False)])
def test_the_environment_switches_telemetry_on(
    monkeypatch: pytest.MonkeyPatch, value: str | None, wanted: bool
) -> None:
    if value is None:
        monkeypatch.delenv("BITNET_DEBUG", raising=False)
    else:
        monkeypatch.setenv("BITNET_DEBUG", value)
    assert Telemetry.wanted(False) == wanted
    assert Telemetry.wanted(True)


@pytest.mark.slow
def test_telemetry_changes_no_weight(tmp_path: Path) -> None:
    finals = []
    for name, callbacks in (("with", [Telemetry(tmp_path, 1, console())]), ("without", [])):
        module = tiny_module(steps=4)
        run(tmp_path / name, module, callbacks=callbacks)
        finals.append([p.detach().clone() for p in module.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*finals, strict=True))
