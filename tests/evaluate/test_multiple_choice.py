from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.evaluate.likelihood import Likelihood, encode_pair, log_likelihoods
from bitnet_train.evaluate.multiple_choice import (
    Accuracy,
    Question,
    accuracy,
    answer,
    compare_answers,
    read_questions,
    retained,
)

ROW = {"question": "Which is a fruit?", "choices": ["stone", "apple", "car"], "answer": 1}


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_question_is_asked_as_lm_eval_asks_it_and_a_context_stands_as_it_is(tmp_path: Path) -> None:
    context = {"context": "The apple is a", "choices": ["fruit", "stone"], "answer": "b"}
    first, second = read_questions(written(tmp_path / "rows.jsonl", ROW, context))
    assert (first.context, first.continuation("apple"), first.answer) == (
        "Question: Which is a fruit?\nAnswer:",
        " apple",
        1,
    )
    assert (second.context, second.continuation("stone"), second.answer) == ("The apple is a", " stone", 1)
    assert replace(second, context="The ").continuation("stone") == "stone"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"answer": 3}, "answer"),
        ({"answer": "D"}, "answer"),
        ({"answer": None}, "answer"),
        ({"answer": True}, "answer"),
        ({"choices": ["one"]}, "choices"),
        ({"choices": ["one", ""]}, "choices"),
        ({"choices": "one"}, "choices"),
        ({"question": ""}, "question"),
        ({"context": "both"}, "question"),
    ],
)
def test_a_wrong_row_is_named_by_file_line_and_field(change: dict, field: str, tmp_path: Path) -> None:
    path = written(tmp_path / "rows.jsonl", ROW, {**ROW, **change})
    with pytest.raises(DataError, match=rf"rows.jsonl, line 2, field `{field}`"):
        read_questions(path)


def test_files_that_are_missing_empty_or_no_json_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`evaluate.choices=.*nowhere.jsonl`: there is no such file"):
        read_questions(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="has no rows"):
        read_questions(written(tmp_path / "empty.jsonl"))
    (tmp_path / "broken.jsonl").write_text('{"question": \n')
    with pytest.raises(DataError, match=r"broken.jsonl, line 1: not valid JSON"):
        read_questions(tmp_path / "broken.jsonl")


def test_accuracy_takes_the_likeliest_and_the_normalised_one_the_likeliest_per_byte() -> None:
    questions = [Question("", ("ab", "abcdefgh"), 1), Question("", ("ab", "abcdefgh"), 0)]
    likelihoods = [[Likelihood(-2.0, False), Likelihood(-4.0, False)]] * 2
    found = accuracy(questions, likelihoods)
    assert (found.acc, found.acc_norm) == (0.5, 0.5)
    assert accuracy(questions[:1], likelihoods[:1]) == Accuracy(0.0, None, 1.0, None)
    assert found.acc_stderr == pytest.approx(0.5)


def test_retention_is_a_ratio_and_above_chance_takes_chance_off_both() -> None:
    kept = retained(Accuracy(0.4, 0, 0.25, 0), Accuracy(0.5, 0, 0.2, 0), 0.25)
    assert kept.retention == pytest.approx(0.8)
    assert kept.above_chance_retention == pytest.approx(0.6)
    assert kept.above_chance_retention_norm is None


def test_answering_scores_every_choice_as_it_is_scored_alone(student, teacher, tokenizer) -> None:
    questions = [Question(f"{number} and", ("zyx", "seven", " a b c"), number % 3) for number in range(9)]
    alone = [
        [
            log_likelihoods(student, [encode_pair(tokenizer, question.context, question.continuation(choice))], 128)[0]
            for choice in question.choices
        ]
        for question in questions
    ]
    found = answer(student, tokenizer, questions, 128)
    assert found == accuracy(questions, alone)
    both = compare_answers("numbers", questions, found, answer(teacher, tokenizer, questions, 128))
    assert (both.name, both.questions, both.chance) == ("numbers", 9, pytest.approx(1 / 3))
    assert both.retained.retention == pytest.approx(both.student.acc / both.teacher.acc)
    assert compare_answers("alone", questions, found, None).retained is None
