"""`scripts.gpu_check --small` goes through on the CPU, keeps each stage, and refuses a GPU that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bitnet_train.train.loop.devices import num_gpus
from scripts.gpu_check import __main__ as gpu_check
from scripts.gpu_check.agreement import SCHEMES, _products_agree, _weights_agree
from scripts.gpu_check.training import POINTS, thinned


@pytest.mark.slow
def test_the_small_form_goes_through_and_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--small", "--out", str(tmp_path / "gpu.json")]

    def pulled(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gpu_check, "train_for", pulled)
        with pytest.raises(KeyboardInterrupt):
            gpu_check.main(words)
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert set(kept) == {"run", "agreement", "speed"}
    assert gpu_check.main(words) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: result[name] for name in kept} == kept, "what was done is not done again"
    assert "speed: kept from" in capsys.readouterr().out
    assert set(SCHEMES) < set(result["agreement"]["holds"])
    assert [row["kind"] for row in result["speed"]["rows"]] == ["linear", "naive", "ours", "groups"]
    assert result["training"]["curve"][-1]["step"] == 2
    assert result["training"]["result"]["perplexity"]["ratio"] > 1


@pytest.mark.skipif(num_gpus() > 0, reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_check.main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert "`trainer.accelerator=gpu`: torch" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_other_options_or_another_device_is_not_gone_on_with(tmp_path: Path) -> None:
    cpu, chosen = torch.device("cpu"), gpu_check.arguments(["--small", "--out", str(tmp_path / "gpu.json")])
    first = gpu_check.begun(chosen, cpu)
    gpu_check.write(chosen.out, {**first, "speed": {}})
    assert "speed" in gpu_check.begun(chosen, cpu)
    chosen.minutes = 5.0
    assert "speed" not in gpu_check.begun(chosen, cpu)
    chosen.out.write_text("{")
    assert set(gpu_check.begun(chosen, cpu)) == {"run"}


def test_a_disagreement_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from scripts.gpu_check import agreement

    cpu, weight, scheme = torch.device("cpu"), torch.randn(16, 128), SCHEMES["binary_group64"]
    assert _weights_agree(weight, scheme, cpu)
    assert _products_agree(weight, torch.randn(4, 128), scheme, cpu)
    real, calls = agreement.quantize, []

    def flipped(*given: object) -> torch.Tensor:
        calls.append(given)
        return -real(*given) if len(calls) == 1 else real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(agreement, "quantize", flipped)
    assert not _weights_agree(weight, scheme, cpu)


def test_a_curve_keeps_its_ends() -> None:
    points = [{"step": step} for step in range(5 * POINTS)]
    assert len(thinned(points)) == POINTS
    assert (thinned(points)[0], thinned(points)[-1]) == (points[0], points[-1])
    assert thinned(points[:3]) == points[:3]
