from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.train.data.corpus import Corpus, read_corpus, split_examples
from bitnet_train.train.data.examples import Conversation, Document, Example, Instruction
from bitnet_train.train.data.settings import DataConfig, SelfCorpusConfig
from tests.fixtures.data_examples import make_llama, make_tokenizer, shared_data, write_jsonl

MANY: list[Example] = [Document(f"document {number}") for number in range(1000)]


def read(config: DataConfig, folder: Path, *, teacher: bool = False) -> Corpus:
    return read_corpus(config, make_tokenizer(), folder, make_llama() if teacher else None)


def test_the_share_held_out_is_about_the_fraction_and_both_sides_make_the_whole() -> None:
    train, validation = split_examples(MANY, 0.1)
    assert 70 < len(validation) < 130
    assert sorted(map(repr, train + validation)) == sorted(map(repr, MANY))


def test_the_split_of_an_example_does_not_depend_on_order_or_on_the_others() -> None:
    held_out = set(map(repr, split_examples(MANY, 0.1)[1]))
    shuffled = random.Random(0).sample(MANY, 600)
    assert set(map(repr, split_examples(shuffled, 0.1)[1])) == held_out & set(map(repr, shuffled))


def test_the_split_is_fixed_for_good() -> None:
    """A split that moved with the process or the version would train on what was held out before."""
    assert split_examples(MANY[:40], 0.1)[1] == [
        Document(f"document {number}") for number in [0, 6, 11, 16, 19, 21, 34]
    ]


def test_a_larger_fraction_holds_out_the_same_and_more() -> None:
    small, large = (set(map(repr, split_examples(MANY, fraction)[1])) for fraction in (0.05, 0.2))
    assert small < large


def test_duplicates_stay_on_one_side() -> None:
    train, validation = split_examples(MANY + MANY, 0.1)
    assert not set(map(repr, train)) & set(map(repr, validation))


def test_no_fraction_holds_out_nothing() -> None:
    assert split_examples(MANY, 0) == (MANY, [])


def test_a_single_document_gives_its_end_cut_at_a_line() -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    train, validation = split_examples([Document(text)], 0.1)
    parts = [example.text for example in train + validation if isinstance(example, Document)]
    assert "".join(parts) == text
    assert parts[0].endswith("\n")
    assert 0.8 < len(parts[0]) / len(text) <= 0.9


def test_few_answers_give_the_one_of_smallest_hash() -> None:
    examples: list[Example] = [Instruction("q", str(number)) for number in range(3)]
    train, validation = split_examples(examples, 0.01)
    assert (len(train), len(validation)) == (2, 1)
    assert split_examples(examples[::-1], 0.01)[1] == validation


def test_one_answer_cannot_be_split() -> None:
    with pytest.raises(DataError, match=r"1 example\(s\) cannot be split(.|\n)*`data\.validation_fraction=0`"):
        split_examples([Instruction("q", "a")], 0.5)


def test_the_standard_library_comes_with_its_own_split(tmp_path: Path) -> None:
    corpus = read(DataConfig(max_documents=20), tmp_path)
    assert (len(corpus.train), len(corpus.validation), corpus.kind) == (20, 20, "text")


def test_rows_for_validation_can_be_given(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": "a"}, {"text": "b"}])
    held_out = write_jsonl(tmp_path / "held_out.jsonl", [{"text": "c"}])
    corpus = read(DataConfig(source="files", path=str(train), validation_path=str(held_out)), tmp_path)
    assert corpus.train == [Document("a"), Document("b")]
    assert corpus.validation == [Document("c")]


def test_the_splits_of_a_folder_are_respected_and_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("About the data.")
    for name in ("train", "validation", "test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    corpus = read(DataConfig(source="files", path=str(tmp_path)), tmp_path)
    assert (corpus.train, corpus.validation) == ([Document("train")], [Document("validation")])
    assert corpus.files == {
        "train": ["train.jsonl"],
        "validation": ["validation.jsonl"],
        "describes the folder": ["README.md"],
        "test split": ["test.jsonl"],
    }


def test_a_validation_path_stands_above_the_validation_split_of_the_folder(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    (tmp_path / "own.text").write_text("own")
    config = DataConfig(source="files", path=str(tmp_path), validation_path=str(tmp_path / "own.text"))
    corpus = read(config, tmp_path)
    assert corpus.validation == [Document("own")]
    assert corpus.files["`data.validation_path` is given"] == ["validation.jsonl"]


def test_a_folder_of_chats_leaves_whole_texts_out(tmp_path: Path) -> None:
    (tmp_path / "about.txt").write_text("These chats are about nothing.")
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write_jsonl(tmp_path / "chats.jsonl", [{"messages": turns}])
    corpus = read(DataConfig(source="files", path=str(tmp_path), validation_fraction=0), tmp_path)
    assert (corpus.kind, len(corpus.train)) == ("chat", 1)
    assert corpus.files["text beside rows"] == ["about.txt"]


def test_each_file_of_a_folder_may_name_its_fields_in_its_own_way(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"messages": [{"role": "assistant", "content": "one"}]}])
    write_jsonl(tmp_path / "b.jsonl", [{"conversations": [{"from": "gpt", "value": "two"}]}])
    corpus = read(DataConfig(source="files", path=str(tmp_path), validation_fraction=0), tmp_path)
    assert [example.messages[0].content for example in corpus.train if isinstance(example, Conversation)] == [
        "one",
        "two",
    ]


@pytest.mark.parametrize("limit", [1, 3, 5, 9])
def test_the_limit_of_documents_counts_over_all_files(limit: int, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"{name}{number}"} for number in range(3)])
    config = DataConfig(source="files", path=str(tmp_path), validation_fraction=0, max_documents=limit)
    texts = ["a0", "a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"]
    assert read(config, tmp_path).train == [Document(text) for text in texts[:limit]]


def test_real_chats_of_several_shapes_are_read_as_one_folder(tmp_path: Path) -> None:
    corpus = read(DataConfig(source="files", path=str(shared_data("chat")), max_documents=2000), tmp_path)
    assert corpus.kind == "chat"
    assert corpus.files["train"] == ["dummy_conversation.json", "glaive_toolcall_en_demo.json", "v1_sft_demo.jsonl"]


def test_a_local_data_set_folder_serves_as_hub_data(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"question": str(i), "answer": "a", "note": ""} for i in range(9)])
    config = DataConfig(source="hub", path=str(tmp_path), max_documents=7, validation_fraction=0.3)
    corpus = read(config, tmp_path)
    assert (corpus.kind, len(corpus.train) + len(corpus.validation)) == ("instruction", 7)
    assert corpus.unused_fields == {"note": 7}


def test_the_content_hash_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    config = DataConfig(source="files", path=str(path), validation_fraction=0)
    hashes = []
    for texts in (["a", "b"], ["a", "c"], ["b", "a"], ["a", "b"]):
        write_jsonl(path, [{"text": text} for text in texts])
        hashes.append(read(config, tmp_path).content_sha256)
    assert len(set(hashes)) == 3
    assert hashes[0] == hashes[3]


def test_the_content_hash_follows_the_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"text {i}"} for i in range(100)])
    config = DataConfig(source="files", path=str(tmp_path / "a.jsonl"), validation_fraction=0.1)
    assert (
        read(config, tmp_path).content_sha256 != read(replace(config, validation_fraction=0.3), tmp_path).content_sha256
    )


@pytest.mark.parametrize("content", ["", '{"text": " "}\n'])
def test_empty_data_is_an_error(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=r"no row with content\. Nothing to train on"):
        read(DataConfig(source="files", path=str(tmp_path)), tmp_path)


def test_an_empty_validation_file_is_an_error(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "a"}])
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(DataError, match="The validation split is empty"):
        read(DataConfig(source="files", path=str(path), validation_path=str(tmp_path / "b.jsonl")), tmp_path)


@pytest.mark.slow
def test_the_teacher_writes_the_corpus_and_prompts_are_read_from_the_path(tmp_path: Path) -> None:
    settings = SelfCorpusConfig(documents=6, document_tokens=24, batch_documents=3)
    (tmp_path / "prompt.txt").write_text("The quick brown fox jumps over the lazy dog.")
    plain = read(DataConfig(source="self", self_corpus=settings), tmp_path, teacher=True)
    prompted = DataConfig(source="self", path=str(tmp_path / "prompt.txt"), self_corpus=settings)
    corpus = read(prompted, tmp_path, teacher=True)
    assert plain.content_sha256 != corpus.content_sha256
    texts = [example.text for example in corpus.train if isinstance(example, Document)]
    assert all(text.startswith("The quick") for text in texts)


def test_self_without_a_teacher_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`data\.source=self` needs the full-precision teacher"):
        read(DataConfig(source="self"), tmp_path)
