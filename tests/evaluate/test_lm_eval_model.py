"""A real task of lm_eval, from a local YAML file and without network, on a packed folder: its scores are ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_train.evaluate.likelihood import Pair, encode_pair, log_likelihoods
from bitnet_train.evaluate.multiple_choice import accuracy, read_questions
from bitnet_train.runtime.load import load, load_tokenizer

lm_eval = pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'bitnet-train[lm-eval]'")

TASK = """
task: local_choice
dataset_path: json
dataset_kwargs: {data_files: {test: "ROWS"}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("task") / "rows.jsonl"
    made = [
        {"question": f"What is {n} + 1?", "choices": [f"It is {n + 1}", f"{n}", "None of these"], "answer": n % 3}
        for n in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture(scope="module")
def ours(exported):
    from lm_eval.api.registry import get_model

    import bitnet_train  # noqa: F401  the import that makes the name known

    return get_model("bitnet_train")(str(exported), batch_size=4)


def request(kind: str, *arguments: object):
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


def test_a_task_scores_every_choice_as_we_do(ours, rows: Path, exported: Path) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    (rows.parent / "local_choice.yaml").write_text(TASK.replace("ROWS", str(rows)))
    manager = TaskManager(include_path=str(rows.parent), include_defaults=False)
    found = simple_evaluate(
        model=ours, tasks=["local_choice"], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    samples = sorted(found["samples"]["local_choice"], key=lambda sample: sample["doc_id"])
    model, tokenizer, questions = load(exported), load_tokenizer(exported), read_questions(rows)
    scores = [
        log_likelihoods(
            model,
            [encode_pair(tokenizer, question.context, question.continuation(choice)) for choice in question.choices],
            256,
        )
        for question in questions
    ]
    theirs = [[float(response[0][0]) for response in sample["resps"]] for sample in samples]
    assert theirs == [[pytest.approx(one.log_prob, rel=1e-6) for one in row] for row in scores]
    expected = accuracy(questions, scores)
    assert found["results"]["local_choice"]["acc,none"] == pytest.approx(expected.acc)
    assert found["results"]["local_choice"]["acc_norm,none"] == pytest.approx(expected.acc_norm)


def test_rolling_likelihood_of_a_text_is_that_of_its_tokens_each_predicted_once(ours) -> None:
    text = "A text that is longer than one window. " * 12
    ids = ours.tokenizer(text)["input_ids"]
    assert 256 < len(ids) < 512, "two windows of a context of 256"
    windows = [Pair([ours.eot_token_id], ids[:256]), Pair(ids[-257:256], ids[256:])]
    expected = sum(one.log_prob for one in log_likelihoods(ours.model, windows, 256))
    assert ours.loglikelihood_rolling([request("loglikelihood_rolling", text)]) == [pytest.approx(expected)]


def test_text_is_continued_until_a_stop_string_or_the_length(ours) -> None:
    (free,) = ours.generate_until([request("generate_until", "def f", {"until": [], "max_gen_toks": 12})])
    assert 1 <= len(free) <= 12
    (stopped,) = ours.generate_until([request("generate_until", "def f", {"until": [free[2]], "max_gen_toks": 12})])
    assert stopped == free[: free.index(free[2])]


def test_the_command_knows_the_model() -> None:
    words = [sys.executable, "-m", "bitnet_train.evaluate.harness", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "usage" in done.stdout.lower()


@pytest.mark.parametrize(
    ("given", "think"),
    [
        ({}, "on"),
        ({"enable_thinking": False}, "off"),
        ({"chat_template_args": {"enable_thinking": False}}, "off"),
        ({"chat_template_args": '{"enable_thinking": false}'}, "off"),
    ],
)
def test_variables_of_the_chat_template_are_the_harness_s_own_arguments(
    exported: Path, given: dict, think: str
) -> None:
    from lm_eval.api.registry import get_model

    model = get_model("bitnet_train")(str(exported), **given)
    model.tokenizer.chat_template = "{{ 'off' if enable_thinking is false else 'on' }}:{{ messages[0].content }}"
    assert model.apply_chat_template([{"role": "user", "content": "hello"}]) == f"{think}:hello"


@pytest.mark.parametrize(("given", "why"), [("{", "is not JSON"), ("[1]", "is no mapping")])
def test_variables_that_are_no_mapping_are_refused(exported: Path, given: str, why: str) -> None:
    from lm_eval.api.registry import get_model

    from bitnet_train.errors import ConfigError

    with pytest.raises(ConfigError, match=why):
        get_model("bitnet_train")(str(exported), chat_template_args=given)
