"""What goes to the hub: the files of a folder, a card with figures, hashes that fit; through a hub of our own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from bitnet_train.errors import ConfigError
from bitnet_train.exporters.hub import check_hub_name, staged
from bitnet_train.exporters.record import verify_export
from bitnet_train.exporters.registry import export_as
from bitnet_train.packed.reader import verify_files
from tests.fixtures.hub import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as started:
        yield started


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_has_the_figures_and_hashes_that_fit_and_the_folder_stays_as_it_is(folder: Path) -> None:
    before = contents(folder)
    with staged(folder, "\n## Figures\n", {"training.svg": "<svg/>"}) as copy:
        manifest = verify_files(copy)
        assert manifest.files.keys() == before.keys() - {"manifest.json"} | {"training.svg"}
        assert (copy / "README.md").read_bytes() == before["README.md"] + b"\n## Figures\n"
        assert manifest.sizes.total_bytes == sum(len(data) for data in contents(copy).values()) - len(
            contents(copy)["manifest.json"]
        )
        assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == [copy.name]
    assert contents(folder) == before
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []
    verify_files(folder)


def test_an_export_in_another_format_has_its_record_made_to_fit(folder: Path, tmp_path: Path) -> None:
    export_as("plain", folder, tmp_path / "plain")
    with staged(tmp_path / "plain", "figures", {"training.svg": "<svg/>"}) as copy:
        assert "training.svg" in verify_export(copy).files
    verify_export(tmp_path / "plain")


def test_a_failure_while_it_is_uploaded_leaves_no_copy(folder: Path) -> None:
    with pytest.raises(RuntimeError), staged(folder, "", {}):
        raise RuntimeError
    assert [path for path in folder.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["me", "/x", "me/", "a/b/c", ""])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no repository"):
        check_hub_name(name)


def push(folder: Path, hub: Hub, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bitnet_train", "export", str(folder), "export.push_to_hub=me/mine", *words]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_secret"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_the_files_of_a_packed_folder_arrive_in_one_commit_of_a_private_repository(folder: Path, hub: Hub) -> None:
    done = push(folder, hub)
    assert done.returncode == 0, done.stderr
    assert hub.created == [{"name": "mine", "organization": "me", "is_private": True}]
    assert len(hub.commits) == 1
    (files,) = hub.commits
    assert files.keys() == contents(folder).keys()
    assert b"| size | \xe2\x80\x93 | " in files["README.md"]
    received = folder.parent / "received"
    received.mkdir()
    for name, data in files.items():
        (received / name).write_bytes(data)
    verify_files(received)
    assert hub.tokens == {"Bearer hf_secret"}
    assert push(folder, hub, "export.hub_private=false").returncode == 0
    assert hub.created[1]["is_private"] is False


@pytest.mark.slow
def test_a_run_goes_out_with_its_figures_and_its_curve_and_is_not_packed_again(finished: Path, hub: Hub) -> None:
    before = contents(finished / "artefact")
    done = push(finished, hub)
    assert done.returncode == 0, done.stderr
    assert contents(finished / "artefact") == before
    (files,) = hub.commits
    card, facts = files["README.md"].decode(), json.loads((finished / "facts" / "evaluate.json").read_text())
    text = facts["texts"][0]
    assert f"| perplexity, {text['name']} |" in card.replace("\\", "")
    assert f"({text['perplexity_ratio']:.2f}x)" in card
    assert f"{100 * text['top1_agreement']:.1f} %" in card
    assert "validate | – | passed, 6 levels |" in card
    assert "](training.svg)" in card
    assert files["training.svg"].startswith(b"<svg")
    head = ModelCard(card).data
    assert {result.metric_value for result in head.eval_results} >= {
        text["student"]["perplexity"] for text in facts["texts"]
    }
    assert (head.license, head.model_name) == ("apache-2.0", "mine")
    assert json.loads((finished / "facts" / "export.json").read_text())["hub"].startswith(f"{hub.address}/me/mine/")


@pytest.mark.slow
def test_figures_of_other_weights_are_left_out(finished: Path, hub: Hub, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    done = push(run, hub, "export.force=true")  # packed again: the same tensors, so the figures stand
    assert done.returncode == 0, done.stderr
    assert b"perplexity" in hub.commits[-1]["README.md"]
    for name in ("evaluate", "validate"):
        os.utime(run / "facts" / f"{name}.json", (1, 1))
    assert push(run, hub).returncode == 0
    card = hub.commits[-1]["README.md"]
    assert b"| size |" in card
    assert b"perplexity" not in card.partition(b"## Figures")[2]
    assert b"bitnet-train validate" not in card.partition(b"## Figures")[2]


@pytest.mark.slow
def test_a_hub_that_refuses_is_an_error_that_shows_no_key(folder: Path, hub: Hub) -> None:
    hub.refuses = True
    done = push(folder, hub)
    assert done.returncode == 1
    assert "was written, but not uploaded to me/mine" in done.stderr
    assert "hf auth login" in done.stderr
    assert "hf_secret" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
