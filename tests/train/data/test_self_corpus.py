from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.train.data.self_corpus import model_digest, self_documents
from bitnet_train.train.data.settings import SelfCorpusConfig
from tests.fixtures.data_examples import make_llama, make_tokenizer

CONFIG = SelfCorpusConfig(documents=5, document_tokens=20, batch_documents=2)
PROMPTS = ["def add(a, b):\n    return a + b\n", "fox"]


def test_the_teacher_writes_as_many_documents_as_asked_no_longer_than_asked(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    documents = self_documents(make_llama(), tokenizer, CONFIG, tmp_path)
    assert len(documents) == CONFIG.documents == len(set(documents))
    lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in documents]
    assert max(lengths) < 2 * CONFIG.document_tokens  # text of unusual tokens may come back as more of them


@pytest.mark.slow
def test_the_corpus_is_a_function_of_the_seed(tmp_path: Path) -> None:
    first, again, other = (
        self_documents(make_llama(), make_tokenizer(), replace(CONFIG, seed=seed), tmp_path / folder)
        for seed, folder in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert first == again
    assert first != other


def test_the_global_random_state_and_the_mode_of_every_module_are_left_alone(tmp_path: Path) -> None:
    teacher = make_llama()
    teacher.model.layers[0].train()
    modes = [module.training for module in teacher.modules()]
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    self_documents(teacher, make_tokenizer(), CONFIG, tmp_path)
    assert torch.equal(torch.rand(4), expected)
    assert [module.training for module in teacher.modules()] == modes


def test_each_token_is_read_once_whatever_the_model_was_saved_with(tmp_path: Path) -> None:
    teacher = make_llama()
    teacher.generation_config.use_cache = False
    lengths: list[int] = []
    teacher.model.embed_tokens.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    self_documents(teacher, make_tokenizer(), replace(CONFIG, documents=1), tmp_path)
    assert len(lengths) > 1
    assert set(lengths) == {1}


def test_padding_beyond_the_vocabulary_of_the_model_changes_no_document(tmp_path: Path) -> None:
    beyond = make_tokenizer()
    beyond.add_special_tokens({"pad_token": "<pad>"})
    teacher = make_llama(vocabulary=beyond.pad_token_id)
    found = self_documents(teacher, beyond, CONFIG, tmp_path / "one", PROMPTS)
    assert found == self_documents(teacher, make_tokenizer(), CONFIG, tmp_path / "other", PROMPTS)


def test_documents_continue_the_prompts_in_turn(tmp_path: Path) -> None:
    documents = self_documents(make_llama(), make_tokenizer(), CONFIG, tmp_path, PROMPTS)
    assert [text.startswith("fox") for text in documents] == [False, True, False, True, False]
    assert all(text.startswith("def add(") for text in documents[::2])


def test_prompts_of_unequal_length_are_continued_as_if_alone(tmp_path: Path) -> None:
    """Near-greedy sampling leaves no chance: a padded prompt and the same prompt alone are continued alike."""
    config = replace(CONFIG, documents=2, temperature=1e-4)
    together = self_documents(make_llama(), make_tokenizer(), config, tmp_path, PROMPTS)
    alone = self_documents(make_llama(), make_tokenizer(), replace(config, documents=1), tmp_path, PROMPTS[1:])
    assert len(together[1]) > 10
    assert alone[0].startswith(together[1])  # the padding counts towards the length, so the padded one ends earlier


def test_the_second_time_comes_from_the_cache(tmp_path: Path) -> None:
    first = self_documents(make_llama(), make_tokenizer(), CONFIG, tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    assert self_documents(make_llama(), make_tokenizer(), CONFIG, tmp_path) == first
    assert path.stat().st_mtime_ns == written


@pytest.mark.slow
def test_another_teacher_setting_or_prompt_is_another_corpus(tmp_path: Path) -> None:
    other = make_llama()
    with torch.no_grad():
        other.model.norm.weight[0] += 2**-20
    for teacher, config, prompts in (
        (make_llama(), CONFIG, []),
        (other, CONFIG, []),
        (make_llama(), replace(CONFIG, top_p=0.9), []),
        (make_llama(), CONFIG, PROMPTS),
    ):
        self_documents(teacher, make_tokenizer(), config, tmp_path, prompts)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lambda whole: whole[:-9], lambda whole: whole.replace(b"a", b"b"), lambda _: b"[]"])
def test_a_damaged_corpus_is_written_again_with_a_message(
    damage: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    first = self_documents(make_llama(), make_tokenizer(), CONFIG, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert self_documents(make_llama(), make_tokenizer(), CONFIG, tmp_path) == first
    assert "is damaged" in caplog.text


def test_the_digest_of_a_model_sees_names_types_and_bytes() -> None:
    model = make_llama()
    digests = [model_digest(model), model_digest(model.bfloat16()), model_digest(make_llama())]
    assert digests[0] == digests[2] != digests[1]


def test_without_bos_eos_or_prompts_there_is_nothing_to_begin_from(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(bos=False)
    tokenizer.eos_token = None
    with pytest.raises(DataError, match=r"no BOS or EOS to begin from\. Give prompts"):
        self_documents(make_llama(), tokenizer, CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"documents": 0}, "documents=0"),
        ({"batch_documents": 0}, "batch_documents=0"),
        ({"prompt_tokens": 0}, "prompt_tokens=0"),
        ({"document_tokens": 9}, r"document_tokens=9.*at least 10"),
        ({"temperature": 0.0}, r"temperature=0\.0"),
        ({"top_p": 1.5}, r"top_p=1\.5"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_key(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"`data\.self_corpus.*{message}"):
        SelfCorpusConfig(**values)
