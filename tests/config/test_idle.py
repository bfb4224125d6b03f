"""Keys without effect, one example for each row of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bitnet_train.__main__ import main
from bitnet_train.config.check import value_of
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.config.idle import IDLE, Idle, refuse_idle_keys
from bitnet_train.config.layout import recipes
from bitnet_train.config.suggest import known_keys
from bitnet_train.errors import ConfigError
from bitnet_train.verbs import VERBS

EXAMPLES: list[tuple[str, list[str], list[str]]] = [  # in the table's order: key, words, words that give it effect
    ("data.path", ["data=stdlib", "data.path=a.txt"], ["data=files", "data.path=a.txt"]),
    ("data.path", ["data.mix=[{path:a}]", "data.path=b"], ["data.mix=[]", "data.path=b"]),
    ("data.mix", ["data=stdlib", "data.mix=[{path:a}]"], ["data.mix=[{path:a}]"]),
    ("data.validation_path", ["data.validation_path=a.txt"], ["data=files", "data.path=a", "data.validation_path=b"]),
    ("data.split", ["data=files", "data.path=a", "data.split=test"], ["data=hub", "data.path=a/b", "data.split=test"]),
    ("data.validation_fraction", ["validation_fraction=0.1"], ["data=files", "data.path=a", "validation_fraction=0.1"]),
    ("data.self_corpus.documents", ["data.self_corpus.documents=9"], ["data=self", "data.self_corpus.documents=9"]),
    (
        "data.self_corpus.prompt_tokens",
        ["data=self", "data.self_corpus.prompt_tokens=9"],
        ["data=self", "data.path=a", "data.self_corpus.prompt_tokens=9"],
    ),
    ("data.text_field", ["data.text_field=body"], ["data.path=a.csv", "data.text_field=body"]),
    (
        "data.text_field",
        ["data.path=a", "data.kind=chat", "data.text_field=body"],
        ["data.path=a", "data.kind=text", "data.text_field=body"],
    ),
    (
        "data.messages_field",
        ["data.path=a", "data.kind=text", "data.messages_field=m"],
        ["data.path=a", "data.kind=chat", "data.messages_field=m"],
    ),
    (
        "data.answer_field",
        ["data.path=a", "data.kind=text", "data.answer_field=m"],
        ["data.path=a", "data.kind=chat", "data.answer_field=m"],
    ),
    (
        "data.input_field",
        ["data.path=a", "data.kind=completion", "data.input_field=m"],
        ["data.path=a", "data.kind=instruction", "data.input_field=m"],
    ),
    (
        "data.system_field",
        ["data.path=a", "data.kind=text", "data.system_field=m"],
        ["data.path=a", "data.kind=chat", "data.system_field=m"],
    ),
    (
        "data.chat_template_variables",
        ["data.path=a", "data.kind=text", "data.chat_template_variables={a: 1}"],
        ["data.path=a", "data.kind=chat", "data.chat_template_variables={a: 1}"],
    ),
    ("data.min_tokens", ["data=chat_files", "data.path=a", "min_tokens=9"], ["data.path=a", "min_tokens=9"]),
    ("loss.temperature", ["loss=ce", "loss.temperature=2"], ["loss.temperature=2"]),
    ("loss.attention_layer", ["attention_layer=2"], ["loss.attention=1", "attention_layer=2"]),
    ("loss.balance_step", ["balance_step=2"], ["loss=kl_hidden", "balance_step=2"]),
    (
        "loss.balance_step",
        ["loss=kl_hidden", "hidden_balance=false", "balance_step=2"],
        ["loss.hidden=1", "balance_step=2"],
    ),
    ("teacher.cache", ["loss=ce", "teacher.source=tiny"], ["teacher.source=tiny"]),
    ("teacher.top_k", ["teacher.cache=states", "teacher.top_k=9"], ["teacher.cache=topk", "teacher.top_k=9"]),
    ("teacher.cache_dir", ["teacher.cache_dir=d"], ["teacher.cache=states", "teacher.cache_dir=d"]),
    ("schedule.final_lr_fraction", ["schedule.lr=constant", "final_lr_fraction=0.1"], ["final_lr_fraction=0.1"]),
    ("schedule.decay_fraction", ["decay_fraction=0.1"], ["schedule.lr=wsd", "decay_fraction=0.1"]),
    ("schedule.soft_fraction", ["soft_fraction=0.1"], ["schedule=lambda_linear", "soft_fraction=0.1"]),
    ("schedule.tanh_start", ["tanh_start=0.1"], ["schedule=tanh_cosine", "weight.estimator=tanh", "tanh_start=0.1"]),
    ("optimizer.reach", ["reach=2"], ["adapter=none", "optimizer.lr=auto", "reach=2"]),
    ("trainer.max_steps", ["trainer.max_tokens=9000", "max_steps=9"], ["trainer.max_tokens=null", "max_steps=9"]),
    ("trainer.short_row_fraction", ["short_row_fraction=0.1"], ["short_row_tokens=128", "short_row_fraction=0.1"]),
    ("trainer.divergence_steps", ["divergence_nats=null", "divergence_steps=9"], ["divergence_steps=9"]),
    ("logger.project", ["logger=none", "logger.project=mine"], ["logger=wandb", "logger.project=mine"]),
    ("logger.mode", ["logger=mlflow", "logger.mode=offline"], ["logger=wandb", "logger.mode=offline"]),
    ("logger.uri", ["logger=wandb", "logger.uri=/x"], ["logger=mlflow", "logger.uri=/x"]),
    ("logger.upload", ["logger=trackio", "logger.upload=true"], ["logger=mlflow", "logger.upload=true"]),
    ("weight.group_size", ["weight=binary_row", "group_size=64"], ["weight=binary_group128", "group_size=64"]),
    ("weight.clip", ["weight.clip=2"], ["weight.estimator=clipped", "weight.clip=2"]),
    ("adapter.rank", ["adapter=none", "adapter.rank=9"], ["adapter.rank=9"]),
    ("init.damping", ["init.damping=0.1"], ["weight=binary_group128", "init=error_feedback", "init.damping=0.1"]),
    ("init.calibration_rows", ["calibration_rows=9"], ["weight=binary_group128", "init=als", "calibration_rows=9"]),
    ("blockwise.steps", ["blockwise.steps=9"], ["blockwise=on", "blockwise.steps=9"]),
    ("evaluate.window_tokens", ["window_tokens=9"], ["evaluate.texts=[a.txt]", "window_tokens=9"]),
    ("evaluate.max_questions", ["max_questions=9"], ["evaluate.choices=[a.jsonl]", "max_questions=9"]),
    ("evaluate.prompt_new_tokens", ["prompt_new_tokens=9"], ["evaluate.prompts=[a.jsonl]", "prompt_new_tokens=9"]),
    ("generate.top_k", ["generate.top_k=9"], ["generate.temperature=0.5", "generate.top_k=9"]),
    ("generate.threads", ["engine=hf", "generate.threads=1"], ["generate.threads=1"]),
    ("sensitivity.extra_share", ["extra_mb=1", "extra_share=0.5"], ["extra_share=0.5"]),
    ("bench.llama_bench", ["llama_bench=a"], ["bench.gguf=a.gguf", "llama_bench=a"]),
    ("chat.against", ["chat.against=tiny"], ["chat.beside=true", "chat.against=tiny"]),
    ("debug.every_steps", ["debug.every_steps=9"], ["debug.enabled=true", "debug.every_steps=9"]),
    ("run.name", ["run.dir=a", "run.name=b"], ["run.name=b"]),
]


def check(*words: str, read_anyway: tuple[str, ...] = ()) -> None:
    composed = compose(None, words)
    assert refuse_idle_keys(composed.config, composed.origins, composed.target, read_anyway) == []


def test_every_row_of_the_table_has_an_example_and_every_example_works() -> None:
    assert [key for key, _, _ in EXAMPLES if not any(key.startswith(name) for row in IDLE for name in row.keys)] == []
    assert len(EXAMPLES) == len(IDLE)


@pytest.mark.parametrize(
    ("row", "example"), list(zip(IDLE, EXAMPLES, strict=True)), ids=[example[0] for example in EXAMPLES]
)
def test_a_key_without_effect_is_refused_with_what_to_do(row: Idle, example: tuple[str, list[str], list[str]]) -> None:
    _, idle, with_effect = example
    with pytest.raises(ConfigError) as refused:
        check(*idle)
    assert "(command line) has no effect: " in str(refused.value)
    assert row.what_to_do in str(refused.value)
    check(*with_effect)


def test_the_table_names_keys_that_exist() -> None:
    for row in IDLE:
        for key in row.keys:
            assert any(name.startswith(key) if key.endswith(".") else name == key for name in known_keys()), key


@pytest.mark.parametrize("length", ["trainer.max_tokens=9000", "trainer.max_epochs=2", "trainer.max_minutes=3"])
def test_steps_beside_another_length_of_the_run_are_refused(length: str) -> None:
    with pytest.raises(ConfigError, match=r"`trainer\.max_steps=9` \(command line\) has no effect"):
        check(length, "trainer.max_steps=9")


def test_null_is_no_wish() -> None:
    check("data.validation_path=null", "data.name=null")


@pytest.mark.parametrize("name", recipes())
def test_keys_of_a_bundled_recipe_are_not_the_users(name: str) -> None:
    composed = compose(name, ["data.path=a.jsonl"])
    assert refuse_idle_keys(composed.config, composed.origins, composed.target) == []


def test_keys_of_a_recipe_of_ones_own_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "# @package _global_\n" + yaml.safe_dump({"blockwise": {"steps": 9}, "loss": {"attention_layer": 2}})
    )
    composed = compose(str(path))
    notes = refuse_idle_keys(composed.config, composed.origins, composed.target)
    assert notes == [
        f"`loss.attention_layer=2` ({path}) has no effect: `loss.attention` is 0.",
        f"`blockwise.steps=9` ({path}) has no effect: set `blockwise=on`.",
    ]


def test_a_saved_run_may_hold_idle_keys(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(compose("quickstart", ["blockwise.steps=9"]).config))
    composed = compose(str(tmp_path))
    assert value_of(composed.config, "blockwise.steps") == 9
    assert refuse_idle_keys(composed.config, composed.origins, composed.target) == []


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("reconstruct", ["blockwise.steps=9"]),
        ("generate", ["data.kind=text", "data.chat_template_variables={a: 1}"]),
        ("evaluate", ["data.kind=text", "data.chat_template_variables={a: 1}"]),
    ],
)
def test_a_verb_reads_its_own_keys_whatever_is_set(verb: str, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="has no effect"):
        check("data.path=a", *words, read_anyway=VERBS["train"].reads_anyway)
    check("data.path=a", *words, read_anyway=VERBS[verb].reads_anyway)


def test_what_a_verb_reads_anyway_is_idle_somewhere() -> None:
    rows = [set(row.keys) for row in IDLE]
    for verb in VERBS.values():
        assert not verb.reads_anyway or any(row <= set(verb.reads_anyway) for row in rows), verb.name


def test_the_command_line_refuses_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", "data=stdlib", "data.path=chats.jsonl"]) == 2
    assert f"`data.path={Path('chats.jsonl').absolute()}` (command line) has no effect" in capsys.readouterr().err
