"""Prompt files, and both models writing on them: the trained model in torch, its packed folder natively."""

from __future__ import annotations

import gzip
import json
from copy import deepcopy
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.evaluate.prompt_files import read_prompts
from bitnet_train.evaluate.side_by_side import Limits, reason_to_skip, side_by_side
from bitnet_train.evaluate.writers import packed_writer, torch_writer
from bitnet_train.runtime.load import load, load_tokenizer

MEETING = {
    "meeting_transcripts": [{"speaker": "Ann", "content": f"Point {number}."} for number in range(40)],
    "general_query_list": [{"query": "Summarize the meeting.", "answer": "Ann made forty points."}],
    "specific_query_list": [],
}
CODE = {"task_id": "HumanEval/0", "prompt": "def f(x):\n", "canonical_solution": "    return x\n"}
CHAT = {"question_id": 81, "category": "writing", "turns": ["Write a line.", "Another."]}


def written(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.fixture(scope="module")
def writers(exported, trained):
    tokenizer = load_tokenizer(exported)
    student = packed_writer(exported, load(exported), tokenizer, 1)
    return tokenizer, {"student": student, "teacher": torch_writer(trained, tokenizer)}


def test_the_fields_of_a_row_tell_its_kind_also_in_a_gzipped_file(tmp_path: Path) -> None:
    found = read_prompts(written(tmp_path / "all.jsonl.gz", MEETING, CODE, CHAT, {"prompt": "Once"}))
    assert [prompt.kind for prompt in found] == ["summary", "code", "chat", "plain"]
    assert found[0].reference == "Ann made forty points."
    assert found[0].document.startswith("Ann: Point 0.\nAnn: Point 1.")
    assert "\ndef " in found[1].stops
    assert found[2].turns == ("Write a line.", "Another.")


def test_prompts_are_spread_over_the_file_and_the_same_every_time(tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", *({"prompt": f"prompt {number}"} for number in range(10)))
    assert [prompt.turns[0] for prompt in read_prompts(path, 3)] == ["prompt 0", "prompt 3", "prompt 6"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"text": "x"}, "prompt"),
        ({"turns": []}, "turns"),
        ({"task_id": "a", "prompt": ""}, "prompt"),
        ({**MEETING, "general_query_list": []}, "general_query_list"),
        ({**MEETING, "meeting_transcripts": ["text"]}, "meeting_transcripts"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_field(row: dict, field: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows.jsonl, line 2, field `.*{field}"):
        read_prompts(written(tmp_path / "rows.jsonl", CODE, row))


def test_a_file_that_is_missing_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`evaluate.prompts=.*: there is no such file"):
        read_prompts(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("row", [MEETING, CODE, CHAT], ids=["summary", "code", "chat"])
def test_the_packed_model_writes_natively_what_the_trained_one_writes_in_torch(
    row: dict, tmp_path: Path, writers
) -> None:
    tokenizer, both = writers
    prompts = read_prompts(written(tmp_path / "rows.jsonl", row))
    found = side_by_side(prompts, tokenizer, both, Limits(200, 16))
    assert found.engines == {"student": "native", "teacher": "torch"}
    assert len(found.turns) == len(prompts[0].turns)
    assert found.agreement.common_prefix_share == 1
    for turn in found.turns:
        assert turn.answers["student"].text == turn.answers["teacher"].text
        assert 1 <= turn.answers["student"].figures.tokens <= 16
    assert (found.student.parses is not None) == (row is CODE)
    assert (found.student.rouge_l_to_reference is not None) == (row is MEETING)


def test_a_long_transcript_is_cut_and_the_query_stays_whole(tmp_path: Path, writers) -> None:
    tokenizer, _ = writers
    seen: list[str] = []

    class Reader:
        engine = "test"

        def write(self, ids, new_tokens, stop):
            seen.append(tokenizer.decode(ids))
            return writers[1]["student"].write(ids[-20:], new_tokens, stop)

    side_by_side(
        read_prompts(written(tmp_path / "rows.jsonl", MEETING)), tokenizer, {"student": Reader()}, Limits(150, 4)
    )
    assert len(tokenizer(seen[0])["input_ids"]) <= 150
    assert "Ann: Point 0." in seen[0]
    assert "Point 39" not in seen[0]
    assert "Summarize the meeting." in seen[0]


def test_the_second_turn_sees_the_answer_to_the_first(tmp_path: Path, writers) -> None:
    tokenizer, both = writers
    seen: list[str] = []

    class Reader:
        engine = "test"

        def write(self, ids, new_tokens, stop):
            seen.append(tokenizer.decode(ids))
            return both["student"].write(ids, new_tokens, stop)

    prompts = read_prompts(written(tmp_path / "rows.jsonl", CHAT))
    found = side_by_side(prompts, tokenizer, {"student": Reader()}, Limits(200, 8))
    assert found.agreement is None
    first = found.turns[0].answers["student"].text
    assert seen[1].startswith(seen[0])
    assert f"{first}\nuser: Another." in seen[1]


def test_chat_prompts_are_skipped_with_a_reason_without_a_chat_template(tmp_path: Path, tokenizer) -> None:
    prompts = read_prompts(written(tmp_path / "rows.jsonl", CHAT))
    assert reason_to_skip(prompts, tokenizer) == "the model has no chat template"


def test_a_chat_is_asked_with_the_variables_of_its_template(tmp_path: Path, writers) -> None:
    tokenizer, both = deepcopy(writers[0]), writers[1]
    tokenizer.chat_template = "{{ messages[-1]['content'] }}{{ '' if enable_thinking else '<think></think>' }}"
    seen: list[str] = []

    class Reader:
        engine = "test"

        def write(self, ids, new_tokens, stop):
            seen.append(tokenizer.decode(ids))
            return both["student"].write(ids, new_tokens, stop)

    prompts = read_prompts(written(tmp_path / "rows.jsonl", CHAT))
    for variables in ({"enable_thinking": True}, {"enable_thinking": False}, None):
        side_by_side(prompts, tokenizer, {"student": Reader()}, Limits(200, 2), chat_template_variables=variables)
    assert seen[::2] == ["Write a line.", "Write a line.<think></think>", "Write a line.<think></think>"]
