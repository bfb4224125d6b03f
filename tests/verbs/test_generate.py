"""`bitnet-train generate`: which engine answers, and what it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest

from bitnet_train.__main__ import main
from bitnet_train.config.compose import compose, to_yaml
from bitnet_train.packed import export_packed
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.verbs import generate as continuation


@pytest.fixture(scope="module")
def artefact(make_trained, byte_tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("continuation") / "out"
    export_packed(make_trained(), byte_tokenizer, folder, {})
    return folder


@pytest.fixture(scope="module")
def foreign(make_trained, byte_tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / "out"
    export_packed(make_trained("gpt2"), byte_tokenizer, folder, {})
    return folder


def generate(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> dict:
    capsys.readouterr()
    code = main(["generate", str(folder), "generate.max_new_tokens=6", "generate.prompt=ab", *words, "--json"])
    return {"code": code, **json.loads(capsys.readouterr().out)}


@pytest.mark.slow
def test_the_native_engine_answers_where_it_can_and_torch_agrees(artefact, capsys) -> None:
    native = generate(capsys, artefact)
    assert native["engine"] == "native"
    assert native["token_ids"] == NativeModel.load(artefact).generate("ab", max_new_tokens=6).token_ids
    by_torch = generate(capsys, artefact, "generate.engine=hf")
    assert by_torch["engine"] == "hf"
    assert (by_torch["text"], by_torch["token_ids"]) == (native["text"], native["token_ids"])


def test_both_engines_end_at_every_token_of_the_generation_settings_and_take_nothing_else_from_them(
    artefact, make_trained, byte_tokenizer, tmp_path, capsys
) -> None:
    """A penalty that nobody asked for would make of the greedy text another one, in one engine of the two."""
    whole = NativeModel.load(artefact).generate("ab", max_new_tokens=6).token_ids
    model = make_trained()
    model.generation_config.eos_token_id = [256, whole[3]]
    model.generation_config.repetition_penalty = 9.0
    model.generation_config.min_new_tokens = 6
    export_packed(model, byte_tokenizer, tmp_path / "out", {})
    expected = whole[: whole.index(whole[3]) + 1]
    for engine in ("native", "hf"):
        assert generate(capsys, tmp_path / "out", f"generate.engine={engine}")["token_ids"] == expected


@pytest.mark.parametrize("engine", ["native", "hf"])
def test_a_chat_of_a_file_is_answered_with_its_system_message_and_its_history(
    artefact, capsys, tmp_path, engine
) -> None:
    history = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello."}]
    (tmp_path / "chat.json").write_text(json.dumps(history))
    words = [f"generate.engine={engine}", f"messages={tmp_path / 'chat.json'}", "generate.system=Be brief."]
    answer = generate(capsys, artefact, *words)
    written_out = "system: Be brief.\nuser: hi\nassistant: Hello.\nuser: ab\nassistant:"
    expected = NativeModel.load(artefact).generate(written_out, max_new_tokens=6)
    assert (answer["token_ids"], answer["num_prompt_tokens"]) == (expected.token_ids, expected.num_prompt_tokens)
    assert [message["role"] for message in answer["messages"]] == ["system", "user", "assistant", "user"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "hf"])
def test_a_run_answers_with_the_chat_template_variables_that_it_was_trained_with(
    make_trained, byte_tokenizer, tmp_path, capsys, engine
) -> None:
    tokenizer = deepcopy(byte_tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}{{ ':' if enable_thinking else ':<think></think>' }}"
    export_packed(make_trained(), tokenizer, tmp_path / "run" / "artefact", {})
    words = ["data=chat_files", "data.path=a.jsonl", "data.chat_template_variables={enable_thinking: false}"]
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(compose("quickstart", words).config))
    expected = {"run": "ab:<think></think>", "run/artefact": "ab:<think></think>"}
    for folder, prompt in expected.items():
        answer = generate(capsys, tmp_path / folder, f"generate.engine={engine}", "generate.chat=true")
        assert answer["num_prompt_tokens"] == len(tokenizer(prompt).input_ids), folder
    (tmp_path / "run" / "artefact").rename(tmp_path / "moved")
    words = ["data.chat_template_variables={enable_thinking: true}", f"generate.engine={engine}", "chat=true"]
    answer = generate(capsys, tmp_path / "moved", *words)
    assert answer["num_prompt_tokens"] == len(tokenizer("ab:").input_ids)


def test_a_system_message_without_a_chat_is_wrong_usage(artefact, capsys) -> None:
    answer = generate(capsys, artefact, "generate.system=x")
    assert answer["code"] == 2
    assert "Set `generate.chat=true` too" in answer["error"]["message"]


@pytest.mark.slow
def test_torch_answers_for_other_architectures_and_says_why_once(foreign, capsys) -> None:
    assert main(["generate", str(foreign), "generate.max_new_tokens=3"]) == 0
    told = capsys.readouterr()
    assert told.err.count("does not fit the native engine: GPT2LMHeadModel is not one of") == 1
    assert "note" not in told.out
    assert generate(capsys, foreign, "generate.engine=hf")["engine"] == "hf"


def test_an_engine_that_is_named_and_does_not_fit_is_wrong_usage(foreign, capsys, tmp_path) -> None:
    answer = generate(capsys, foreign, "generate.engine=native")
    assert answer["code"] == 2
    assert "does not fit: GPT2LMHeadModel" in answer["error"]["message"]
    answer = generate(capsys, foreign, f"prompt_cache={tmp_path / 'cache'}")
    assert "`generate.prompt_cache` is kept by the native engine alone" in answer["error"]["message"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["generate.engine=fast"], "auto, native, hf"),
        (["generate.min_p=1.5"], "`generate.min_p=1.5`"),
        (["generate.threads=0"], "`generate.threads=0`"),
        (["generate.stop=['']"], "holds an empty string"),
        (["prompt_cache=x", "generate.engine=hf"], "Set `generate.engine` to auto or native"),
        (["generate.max_new_tokens=4000"], "together 4002, but this model's context is 256 tokens"),
    ],
)
def test_wrong_settings_are_refused_in_words(artefact, capsys, words, part) -> None:
    assert main(["generate", str(artefact), "generate.prompt=ab", *words]) != 0
    assert part in capsys.readouterr().err


def test_every_setting_reaches_the_engine(artefact, capsys, tmp_path, monkeypatch) -> None:
    asked = {}

    class Asked(NativeModel):
        def generate(self, prompt, **options):
            asked.update(options)
            return super().generate(prompt, **options)

    monkeypatch.setattr("bitnet_train.runtime.native.model.NativeModel", Asked)
    words = ["generate.temperature=0.7", "generate.top_k=5", "generate.top_p=0.9", "min_p=0.05", "generate.seed=3"]
    generate(capsys, artefact, *words, "generate.stop=[q,zz]", f"prompt_cache={tmp_path / 'cache'}", "chat=true")
    expected = {
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.05,
        "seed": 3,
        "stop": ("q", "zz"),
        "chat": True,
    }
    assert expected.items() <= asked.items()
    assert (tmp_path / "cache").is_file()
    assert asked["max_new_tokens"] == 6


def test_the_text_is_streamed_after_the_prompt(artefact, capsys) -> None:
    assert main(["generate", str(artefact), "generate.max_new_tokens=6", "generate.prompt=[b]"]) == 0
    made = NativeModel.load(artefact).generate("[b]", max_new_tokens=6)
    assert capsys.readouterr().out == f"[b]{made.text}\n"


@pytest.mark.slow
def test_the_native_engine_needs_no_torch(artefact) -> None:
    code = (
        "import sys\nfrom bitnet_train.__main__ import main\n"
        "assert main(['generate', sys.argv[1], 'generate.max_new_tokens=2']) == 0\n"
        "print([name for name in ('torch', 'transformers', 'lightning') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artefact)], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_the_settings_of_both_engines_are_the_same(artefact) -> None:
    from bitnet_train.config import Config
    from bitnet_train.runtime.generation import GenerationKeywords

    assert set(continuation.sampling(Config())) == set(GenerationKeywords.__annotations__)
