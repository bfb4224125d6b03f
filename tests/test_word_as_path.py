from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.packed import read_manifest
from bitnet_train.word_as_path import link_out


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A model as the cache of the hub has it: links to files that are named by their hashes."""
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "9a").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/9a")
    return snapshot


def test_links_of_the_cache_of_the_hub_and_within_a_folder_lead_nowhere_else(cached: Path) -> None:
    (cached / "again.json").symlink_to("config.json")
    assert link_out(cached) is None
    (cached.parents[3] / "linked").symlink_to(cached)  # the folder itself is what was named
    assert link_out(cached.parents[3] / "linked") is None


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../outside", "../0124/config.json", "/nowhere/at/all"])
def test_a_link_to_elsewhere_is_found(target: str, cached: Path) -> None:
    (cached / "tokenizer.json").symlink_to(target)
    assert link_out(cached) == cached / "tokenizer.json"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_model_folder_with_a_link_to_elsewhere_is_refused_by_the_name_of_the_link(
    name: str, exported_tiny: Path, tmp_path: Path
) -> None:
    (exported_tiny / name).rename(tmp_path / name)
    (exported_tiny / name).symlink_to(tmp_path / name)
    with pytest.raises(ConversionError, match=f"{name} is a link to a file outside the folder"):
        load_pretrained(str(exported_tiny))


def test_a_packed_folder_is_held_to_the_same(tmp_path: Path, packed_copy: Path) -> None:
    (packed_copy / "weights.safetensors").rename(tmp_path / "elsewhere")
    (packed_copy / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match=r"weights\.safetensors is a link to a file outside its folder"):
        read_manifest(packed_copy)


@pytest.fixture
def exported_tiny(tmp_path: Path, byte_tokenizer) -> Path:
    from tests.fixtures.families import tiny_model

    tiny_model().save_pretrained(tmp_path / "model")
    byte_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def packed_copy(tmp_path: Path, make_trained, byte_tokenizer) -> Path:
    from bitnet_train.packed import export_packed

    export_packed(make_trained(), byte_tokenizer, tmp_path / "packed", {})
    return tmp_path / "packed"
