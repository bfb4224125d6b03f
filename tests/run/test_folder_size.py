from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bitnet_train.config.compose import compose
from bitnet_train.importers.load import source_bytes, tiny_folder
from bitnet_train.packed.manifest import Sizes
from bitnet_train.run.folder_size import folder_size, spoken, warning
from bitnet_train.run.result import FolderSize, ModelSize

LAYERS = Sizes(packed_bytes=16_000_000, scale_bytes=600_000, fp16_bytes=256_000_000, total_bytes=133_600_000)
SMALL = {"folder_bytes": 48_700_000, "weights_bytes": 48_000_000, "original_bytes": 98_400_000, "tables": "int8"}
LARGE = {**SMALL, "folder_bytes": 133_600_000}


def size(**folder: Any) -> ModelSize:
    return ModelSize(LAYERS, FolderSize(**folder))


def folder_with(path: Path, **sizes: int) -> Path:
    path.mkdir()
    for name, num_bytes in sizes.items():
        (path / f"{name}.safetensors").write_bytes(b"0" * num_bytes)
    (path / "tokenizer.json").write_bytes(b"0" * 7)
    return path


def test_the_original_is_measured_as_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"0" * 1234)
    assert source_bytes(str(file)) == 1234
    assert source_bytes(str(folder_with(tmp_path / "shards", first=100, second=20))) == 120, "weights alone"
    assert source_bytes("tiny") == (tiny_folder() / "model.safetensors").stat().st_size


@pytest.mark.parametrize("source", ["nobody/has-this-model", "./no-such-folder"])
def test_an_original_that_is_not_at_hand_has_no_size_and_is_not_fetched(source: str) -> None:
    assert source_bytes(source) is None


def test_the_folder_is_all_its_files(tmp_path: Path) -> None:
    config = compose("quickstart").config
    sizes = folder_size(config, folder_with(tmp_path / "artefact", weights=100))
    assert (sizes.folder_bytes, sizes.weights_bytes) == (107, 100)
    assert sizes.original_bytes == source_bytes("tiny")


def test_both_sizes_are_said_and_one_where_the_other_is_not_known() -> None:
    assert spoken(size(**SMALL)) == "48.7 MB, the original 98.4 MB"
    assert spoken(size(**{**SMALL, "original_bytes": None})) == "48.7 MB"
    assert spoken(size(**{**SMALL, "folder_bytes": 1_550_000})) == "1.55 MB, the original 98.4 MB"


def test_a_folder_that_is_not_smaller_is_warned_of_with_what_to_do() -> None:
    assert warning(size(**SMALL)) is None
    assert warning(size(**{**LARGE, "tables": "exact"})) == (
        "the folder (133.6 MB) is not smaller than the original (98.4 MB): its 1-bit layers take 16.6 MB, the rest "
        "embedding, head and tokenizer. Embedding and head are floats: train with `weight.tables=int8`."
    )
    assert "`model.roles=[attention,mlp,embedding,head]`" in (warning(size(**LARGE)) or "")
    assert warning(size(**{**SMALL, "folder_bytes": 98_400_000})), "as large is not smaller"


@pytest.mark.parametrize("older", [ModelSize(LAYERS), size(**{**LARGE, "original_bytes": None})])
def test_without_an_original_to_compare_with_there_is_no_warning(older: ModelSize) -> None:
    assert warning(older) is None
