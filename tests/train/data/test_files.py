from __future__ import annotations

from pathlib import Path

import pytest

from bitnet_train.errors import DataError
from bitnet_train.train.data.files import ABOUT, BESIDE, OTHER, TEST, FoundFiles, find_files, held_out_files
from tests.fixtures.data_examples import shared_data


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def names(found: FoundFiles) -> dict[str, list[str]]:
    """Return the names by split and by the reason that they were left out."""
    said = {"train": found.named(found.train), "validation": found.named(found.validation)}
    for file, reason in found.left_out.items():
        said.setdefault(reason, []).extend(found.named([file]))
    return {what: files for what, files in said.items() if files}


def test_a_folder_is_searched_in_sorted_order_and_a_glob_narrows_it(tmp_path: Path) -> None:
    make(tmp_path, "b/2.txt", "a/1.txt", "a/3.jsonl", "a/ignored.bin")
    assert names(find_files(str(tmp_path))) == {"train": ["a/1.txt", "a/3.jsonl", "b/2.txt"], OTHER: ["a/ignored.bin"]}
    assert names(find_files(str(tmp_path / "*" / "*.txt"))) == {"train": ["a/1.txt", "b/2.txt"]}


def test_a_downloaded_data_set_is_sorted_into_its_splits(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "LICENSE", ".gitattributes", ".cache/huggingface/a.json", "dataset_info.json")
    make(tmp_path, "data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet")
    make(tmp_path, "data/test-00000-of-00001.parquet", "docs/usage.md", "load.py")
    assert names(find_files(str(tmp_path))) == {
        "train": ["data/train-00000-of-00001.parquet"],
        "validation": ["data/validation-00000-of-00001.parquet"],
        TEST: ["data/test-00000-of-00001.parquet"],
        ABOUT: ["LICENSE", "README.md", "dataset_info.json"],
        BESIDE: ["docs/usage.md", "load.py"],
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("test.jsonl.gz", "test"),
        ("wiki.valid.raw", "validation"),
        ("my_dev_set.csv", "validation"),
        ("held_out.txt", "validation"),
        ("data/eval/rows.json", "test"),
        ("val/0.txt", "validation"),
        ("testimony.jsonl", "train"),
        ("evaluations/contest.txt", "train"),
        ("latest.jsonl", "train"),
    ],
)
def test_a_split_is_a_whole_word_of_a_name(name: str, split: str, tmp_path: Path) -> None:
    make(tmp_path, name, "rows.jsonl")
    said = names(find_files(str(tmp_path)))
    assert name in said[TEST if split == "test" else split]
    assert "rows.jsonl" in said["train"]


def test_a_folder_of_programs_is_trained_on_with_its_tests(tmp_path: Path) -> None:
    make(tmp_path, "main.py", "test_main.py", "tests/test_more.py", "notes.md", "README.md")
    found = names(find_files(str(tmp_path)))
    assert found == {"train": ["main.py", "notes.md", "test_main.py", "tests/test_more.py"], ABOUT: ["README.md"]}


@pytest.mark.parametrize("name", ["test.jsonl", "README.md", "valid.txt"])
def test_a_file_named_outright_is_taken_whatever_its_name(name: str, tmp_path: Path) -> None:
    make(tmp_path, name, "train.jsonl")
    assert names(find_files(str(tmp_path / name))) == {"train": [name]}


def test_a_glob_leaves_the_test_split_out_unless_it_asks_for_nothing_else(tmp_path: Path) -> None:
    make(tmp_path, "train.jsonl", "test-0.jsonl", "test-1.jsonl")
    assert names(find_files(str(tmp_path / "*.jsonl")))["train"] == ["train.jsonl"]
    assert names(find_files(str(tmp_path / "test-*.jsonl"))) == {"train": ["test-0.jsonl", "test-1.jsonl"]}


def test_a_folder_without_anything_to_train_on_says_what_it_has(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "test.jsonl", "valid.jsonl")
    with pytest.raises(
        DataError, match=r"holds no file to train on, .*: valid\.jsonl, test\.jsonl\. Name a file outright"
    ):
        find_files(str(tmp_path))


def test_a_validation_path_means_the_split_that_is_held_out(tmp_path: Path) -> None:
    make(tmp_path / "both", "train.jsonl", "test.jsonl", "valid.jsonl")
    make(tmp_path / "test_only", "train.jsonl", "test.jsonl")
    make(tmp_path / "plain", "rows.jsonl")
    held_out = [held_out_files(str(tmp_path / name)) for name in ("both", "test_only", "plain")]
    assert [found.named(found.train) for found in held_out] == [["valid.jsonl"], ["test.jsonl"], ["rows.jsonl"]]


def test_a_path_that_matches_nothing_names_the_key_and_the_formats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"`data.path=.*none.*` holds no data files\. Allowed: \.jsonl, .*\.csv.*\.gz"):
        find_files(str(tmp_path / "none*.txt"))
    with pytest.raises(DataError, match=r"`data\.validation_path=.*none` holds no data files"):
        held_out_files(str(tmp_path / "none"))


def test_a_file_of_unknown_kind_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "sheet.xlsx").write_text("")
    with pytest.raises(DataError, match=r"cannot read .*sheet\.xlsx"):
        find_files(str(tmp_path / "sheet.xlsx"))


def test_real_folders_are_sorted() -> None:
    assert names(find_files(str(shared_data("gsm8k")))) == {
        "train": ["train.jsonl"],
        TEST: ["test.jsonl"],
        ABOUT: ["LICENSE"],
    }
    assert names(find_files(str(shared_data("pretrain-demo")))) == {"train": ["c4_demo.jsonl", "wiki_demo.txt"]}
    assert names(find_files(str(shared_data("corpus"))))["validation"] == ["heldout.jsonl.gz"]
