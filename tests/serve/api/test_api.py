"""The API through programs that people have: the `openai` package, curl, lm_eval; and what it refuses."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitnet_train.runtime.native.model import NativeModel
from tests.fixtures.serving import Server

openai = pytest.importorskip("openai")

PROMPT = "def main("
HI: list[Any] = [{"role": "user", "content": "hi"}]


@pytest.fixture
def client(served: Server) -> Any:
    with openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def model(pretrained_folder: Path) -> NativeModel:
    return NativeModel.load(pretrained_folder, num_threads=1)


def test_openai_completes_a_text_whole_and_streamed(client: Any, model: NativeModel) -> None:
    how = {"model": "tiny", "prompt": PROMPT, "max_tokens": 24}
    sampled = {**how, "temperature": 0.8, "top_p": 0.9, "seed": 5, "extra_body": {"top_k": 50, "min_p": 0.02}}
    expected = model.generate(PROMPT, max_new_tokens=24, temperature=0.8, top_p=0.9, seed=5, top_k=50, min_p=0.02)
    whole = client.completions.create(**sampled)
    assert whole.choices[0].text == expected.text
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, len(expected.token_ids))
    *pieces, last = client.completions.create(**sampled, stream=True, stream_options={"include_usage": True})
    assert "".join(piece.choices[0].text for piece in pieces) == expected.text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage or last.usage.completion_tokens == whole.usage.completion_tokens
    assert last.choices == []


def test_openai_says_penalties_and_biases(client: Any, model: NativeModel) -> None:
    told: Any = {"frequency_penalty": 0.7, "presence_penalty": -0.3, "seed": 11, "temperature": 0.9}
    beyond: Any = {"repetition_penalty": 1.4, "typical_p": 0.8, "top_k": 30}
    plain = model.generate(PROMPT, **told, **beyond, max_new_tokens=16)
    bias: Any = {plain.token_ids[0]: -100, plain.token_ids[3]: 2.5}
    how: Any = {"model": "tiny", "max_tokens": 16, "extra_body": beyond}
    assert client.completions.create(prompt=PROMPT, **told, **how).choices[0].text == plain.text
    how["logit_bias"] = {str(token): value for token, value in bias.items()}
    biased = model.generate(PROMPT, **told, **beyond, max_new_tokens=16, logit_bias=bias)
    assert client.completions.create(prompt=PROMPT, **told, **how).choices[0].text == biased.text != plain.text
    chat = client.chat.completions.create(messages=HI, **told, **how).choices[0].message.content
    assert chat == model.generate(HI, **told, **beyond, max_new_tokens=16, logit_bias=bias).text


def test_logprobs_are_those_of_the_logits_before_a_bias(client: Any, model: NativeModel) -> None:
    first = model.generate(PROMPT, max_new_tokens=1).token_ids[0]
    how: Any = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 2}
    plain = client.completions.create(**how).choices[0].logprobs
    banned = client.completions.create(**how, logit_bias={str(first): -100}).choices[0].logprobs
    assert banned.tokens != plain.tokens
    assert banned.top_logprobs == plain.top_logprobs


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 2.1),
        ("presence_penalty", -2.1),
        ("logit_bias", {"97": 101}),
        ("logit_bias", {"a": 1}),
        ("repetition_penalty", 0),
        ("typical_p", 0),
        ("logit_bias", {"99999": 1}),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_name(client: Any, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=f"`{field}"):
        client.completions.create(model="tiny", prompt=PROMPT, extra_body={field: value})


def test_openai_chats_whole_and_streamed(client: Any, model: NativeModel) -> None:
    messages = [{"role": "system", "content": "Be brief."}, *HI]
    expected = model.generate(messages, max_new_tokens=12, temperature=1.0, seed=3).text
    how = {"model": "tiny", "messages": messages, "max_completion_tokens": 12, "seed": 3}
    whole = client.chat.completions.create(**how)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].message.role == "assistant"
    pieces = list(client.chat.completions.create(**how, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == expected
    assert pieces[0].choices[0].delta.role == "assistant"
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")


def test_choices_have_seeds_that_follow_on_each_other(client: Any) -> None:
    how = {"model": "tiny", "max_tokens": 12, "temperature": 1.5}
    both = client.completions.create(**how, prompt=[PROMPT, "x ="], n=2, seed=7)
    alone = [
        client.completions.create(**how, prompt=prompt, seed=seed).choices[0].text
        for prompt in (PROMPT, "x =")
        for seed in (7, 8)
    ]
    assert [choice.text for choice in both.choices] == alone
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.usage.prompt_tokens == 3 + 2


def test_logprobs_in_both_forms_are_those_of_the_greedy_text(client: Any) -> None:
    text = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=6, temperature=0, logprobs=3)
    told = text.choices[0].logprobs
    assert "".join(told.tokens) == text.choices[0].text
    assert all(len(top) == 3 for top in told.top_logprobs)
    tops = zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True)
    assert all(max(top.values()) == top[token] == logprob for token, logprob, top in tops)
    assert told.text_offset == [sum(map(len, told.tokens[:at])) for at in range(6)]
    chat = client.chat.completions.create(
        model="tiny", messages=HI, max_tokens=4, temperature=0, logprobs=True, top_logprobs=2
    )
    content = chat.choices[0].logprobs.content
    assert "".join(token.token for token in content) == chat.choices[0].message.content
    assert all(token.top_logprobs[0].logprob == token.logprob for token in content)
    assert all(bytes(token.bytes).decode() == token.token for token in content)


@pytest.mark.slow
def test_a_stop_string_ends_a_text_before_it(client: Any) -> None:
    how = {"model": "float", "prompt": PROMPT, "max_tokens": 60, "temperature": 0}
    whole = client.completions.create(**how).choices[0].text
    cut = client.completions.create(**how, stop=[whole[10:14], "\N{SNOWMAN}"]).choices[0]
    assert cut.text == whole[: whole.index(whole[10:14])]
    assert cut.finish_reason == "stop"
    pieces = list(client.completions.create(**how, stop=whole[10:14], stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == cut.text


def test_a_prompt_may_be_token_ids_and_lists_of_them(client: Any, served: Server) -> None:
    ids = served.ask("/tokenize", {"model": "tiny", "prompt": PROMPT})[1]["tokens"]
    how = {"model": "tiny", "max_tokens": 8, "temperature": 0}
    by_text = client.completions.create(**how, prompt=PROMPT).choices[0].text
    assert client.completions.create(**how, prompt=ids).choices[0].text == by_text
    assert [one.text for one in client.completions.create(**how, prompt=[ids, ids]).choices] == [by_text] * 2
    assert client.completions.create(**how, prompt=ids, echo=True).choices[0].text == PROMPT + by_text


def test_a_chat_is_cut_into_tokens_and_put_together_again(served: Server, model: NativeModel) -> None:
    status, cut = served.ask("/tokenize", {"model": "tiny", "messages": HI})
    assert status == 200
    assert cut["tokens"] == model.tokens.prompt_ids(HI)
    assert cut["count"] == len(cut["tokens"])
    assert served.ask("/detokenize", {"model": "tiny", "tokens": cut["tokens"]})[1]["prompt"] == model.tokens.chat(HI)


def test_models_are_listed_and_asked_for_by_name(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny", "float"]
    assert client.models.retrieve("float").id == "float"
    with pytest.raises(openai.NotFoundError, match="this server has tiny, float"):
        client.completions.create(model="gpt-4", prompt=PROMPT)


def test_the_line_that_is_printed_works_in_a_shell(served: Server) -> None:
    line = served.said[1]
    assert line.startswith("curl http://127.0.0.1:")
    done = subprocess.run([*shlex.split(line), "-sS", "-i"], capture_output=True, text=True, timeout=60)
    head, _, body = done.stdout.partition("\n\n")
    assert "200 OK" in head, done.stdout + done.stderr
    assert json.loads(body or done.stdout.partition("\r\n\r\n")[2])["choices"][0]["finish_reason"] in ("stop", "length")


def test_curl_reads_a_stream_to_its_end(served: Server) -> None:
    body = json.dumps({"model": "tiny", "prompt": PROMPT, "max_tokens": 5, "stream": True, "temperature": 0})
    done = subprocess.run(
        ["curl", "-sSN", f"{served.address}/v1/completions", "-d", body], capture_output=True, text=True, timeout=60
    )
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all("choices" in json.loads(line.removeprefix("data: ")) for line in lines[:-1])


REFUSED: list[tuple[Any, int, str | None, str]] = [
    (b"{", 400, None, "no JSON"),
    (b"[" * 100_000, 400, None, "no JSON"),
    (b"\xff\xfe\x00", 400, None, "no JSON"),
    (b'{"model": "tiny", "prompt": "\\ud800"}', 400, None, "no JSON"),
    ({"prompt": "x" * 1_000_000}, 400, None, "The prompt has 1,000,000 characters"),
    ([], 400, None, "must be a JSON object"),
    ({}, 400, "prompt", "`prompt` must be"),
    ({"prompt": 5}, 400, "prompt", "`prompt` must be"),
    ({"prompt": []}, 400, "prompt", "`prompt` must be"),
    ({"prompt": ["a"] * 500}, 400, "prompt", "at most 128"),
    ({"prompt": ""}, 400, None, "The prompt is empty"),
    ({"prompt": [99999]}, 400, None, "Token id 99999 is not one of this model"),
    ({"prompt": [-1]}, 400, "prompt", "`prompt` must be"),
    ({"prompt": "a", "max_tokens": 100_000}, 400, None, "the context of this model is 512 tokens"),
    ({"prompt": "word " * 3000}, 400, None, "the context of this model is 512 tokens"),
    ({"prompt": "a", "max_tokens": "5"}, 400, "max_tokens", "`max_tokens`"),
    ({"prompt": "a", "max_tokens": 0}, 400, "max_tokens", "needs `echo: true`"),
    ({"prompt": "a", "temperature": -1}, 400, "temperature", "`temperature`"),
    ({"prompt": "a", "temperature": True}, 400, "temperature", "`temperature`"),
    (b'{"prompt": "a", "temperature": NaN}', 400, "temperature", "`temperature`"),
    ({"prompt": "a", "n": 0}, 400, "n", "`n`"),
    ({"prompt": ["a"] * 100, "n": 100}, 400, "n", "128 texts at most"),
    ({"prompt": "a", "stop": ["x"] * 50}, 400, "stop", "`stop"),
    ({"prompt": "a", "stop": ""}, 400, "stop", "`stop"),
    ({"prompt": "a", "logprobs": 500}, 400, "logprobs", "`logprobs`"),
    ({"prompt": "a", "logit_bias": {"5": 101}}, 400, "logit_bias", "`logit_bias`"),
    ({"prompt": "a", "frequency_penalty": 2.5}, 400, "frequency_penalty", "`frequency_penalty`"),
    ({"prompt": "a", "suffix": "b"}, 400, "suffix", "is not done by this server"),
    ({"prompt": "a", "heat": 0}, 400, "heat", "is no field"),
    ({"prompt": "a", "stream_options": {"include_usage": True}}, 400, "stream_options", "needs `stream: true`"),
]


@pytest.mark.parametrize(("body", "status", "param", "says"), REFUSED)
def test_a_completion_that_cannot_be_is_refused_in_openais_form(
    served: Server, body: Any, status: int, param: str | None, says: str
) -> None:
    given = {"model": "tiny", **body} if isinstance(body, dict) else body
    found, answer = served.ask("/v1/completions", given)
    assert found == status, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert says in answer["error"]["message"]
    assert answer["error"]["param"] == param


CHATS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "no text as its `content`"),
    ({"messages": [{"content": "hi"}]}, "has no `role`"),
    ({"messages": [*HI, {"role": "assistant", "content": "yes"}]}, "nothing to answer"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "no text"),
    ({"messages": HI, "tools": [{"type": "function"}]}, "`tools` is not done"),
    ({"messages": HI, "response_format": {"type": "json_object"}}, "`response_format` is not done"),
    ({"messages": HI, "top_logprobs": 3}, "needs `logprobs: true`"),
]


@pytest.mark.parametrize(("body", "says"), CHATS)
def test_a_chat_that_cannot_be_is_refused_also_as_a_stream(served: Server, body: dict[str, Any], says: str) -> None:
    for stream in (False, True):
        status, answer = served.ask("/v1/chat/completions", {"model": "tiny", "stream": stream, **body})
        assert status == 400
        assert says in answer["error"]["message"]


def test_fields_that_change_no_answer_are_taken(client: Any) -> None:
    done = client.chat.completions.create(
        **{"model": "tiny", "messages": HI, "max_tokens": 2, "user": "me", "metadata": {"a": "b"}, "store": False},
        **{"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "tools": [], "tool_choice": "none"},
        **{"response_format": {"type": "text"}, "service_tier": "auto"},
    )
    assert done.usage.completion_tokens <= 2


def test_unknown_paths_and_methods_are_refused_in_openais_form(served: Server) -> None:
    for path, body, status in (("/v1/nothing", None, 404), ("/v1/completions", None, 405), ("/health", {}, 405)):
        found, answer = served.ask(path, body)
        assert (found, set(answer["error"])) == (status, {"message", "type", "param", "code"})


def test_a_body_above_the_limit_is_refused(served: Server) -> None:
    line = ["curl", "-s", "-w", "%{http_code}", f"{served.address}/v1/completions", "--data-binary", "@-"]
    done = subprocess.run(line, input=b"x" * 5_000_000, capture_output=True, timeout=60)
    assert done.stdout.endswith(b"413")
    assert b"body_too_large" in done.stdout


def test_no_answer_says_where_anything_lies(served: Server, pretrained_folder: Path) -> None:
    paths = ["/v1/models", "/metrics", "/health", "/v1/nothing"]
    said = json.dumps([served.ask(path) for path in paths]) + json.dumps(served.ask("/v1/models/nothing"))
    assert str(pretrained_folder) not in said
    assert "/tmp" not in said


@pytest.mark.slow
def test_a_client_that_goes_away_is_not_written_for(served: Server) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 500, "ignore_eos": True, "temperature": 0, "n": 100}
    for stream in (False, True):
        before = served.figure("drawn_tokens", model="tiny")
        line = ["curl", "-sN", f"{served.address}/v1/completions", "-d", json.dumps({**body, "stream": stream})]
        client = subprocess.Popen(line, stdout=subprocess.DEVNULL)
        _until(lambda: served.figure("texts_held", model="tiny") > 80)
        workers = served.workers()
        for worker in workers:  # or a fast worker is done before a busy machine has ended the client
            os.kill(worker, signal.SIGSTOP)
        client.kill()
        client.wait()
        _until(lambda: served.figure("texts_held", model="tiny") == 0)
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
        _until(lambda: served.figure("texts_running", model="tiny") == 0)
        assert served.figure("drawn_tokens", model="tiny") - before < 80 * 500


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_and_the_next_request_gets_another(served: Server) -> None:
    body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "n": 8, "stream": True}
    served.ask("/v1/completions", {**body, "stream": False, "n": 1, "max_tokens": 1})
    streams = [
        subprocess.Popen(
            ["curl", "-sN", f"{served.address}/v1/completions", "-d", json.dumps({**body, "stream": stream})],
            stdout=subprocess.PIPE,
            text=True,
        )
        for stream in (True, False)
    ]
    _until(lambda: served.figure("texts_running", model="tiny") == 16)
    for pid in served.workers():
        os.kill(pid, signal.SIGKILL)
    streamed, whole = (stream.communicate(timeout=60)[0] for stream in streams)
    assert streamed.rstrip().splitlines()[-2:][0] == "event: error"
    assert json.loads(streamed.rstrip().splitlines()[-1].removeprefix("data: "))["error"]["code"] == "worker_gone"
    assert json.loads(whole)["error"]["code"] == "worker_gone"
    assert served.ask("/v1/completions", {**body, "stream": False, "n": 1, "max_tokens": 3})[0] == 200
    assert served.figure("model_starts_total", model="tiny") >= 2


def _until(holds: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.01)


@pytest.mark.slow
def test_lm_eval_scores_and_writes_through_its_local_completions_model(
    served: Server, model: NativeModel, pretrained_folder: Path
) -> None:
    lm_eval_models = pytest.importorskip("lm_eval.models.openai_completions")
    from lm_eval.api.instance import Instance

    lm = lm_eval_models.LocalCompletionsAPI(
        base_url=f"{served.address}/v1/completions",
        model="tiny",
        tokenizer=str(pretrained_folder),
        tokenizer_backend="huggingface",
        max_length=256,
        batch_size=4,
    )
    pairs = [("def main(", "self):"), ("import", " os\n"), ("x =", " 1\n"), ("for i in", " range(10)"), ("a =", " b")]
    requests = [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(pairs)]
    for (context, continuation), (score, is_greedy) in zip(pairs, lm.loglikelihood(requests), strict=True):
        ids = model.tokens.encode(context + continuation)
        first = len(model.tokens.encode(context))
        logits = model.logits(ids[:-1]).astype(np.float64)[first - 1 :]
        logs = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        # a dozen float32 logarithms of size 10, each rounded to 2^-20 of it
        assert score == pytest.approx(sum(logs[at, one] for at, one in enumerate(ids[first:])), abs=1e-4)
        assert is_greedy == (logits.argmax(-1).tolist() == ids[first:])
    until = Instance("generate_until", {}, ("def main(", {"until": ["\n\n"], "max_gen_toks": 20, "temperature": 0}), 0)
    assert lm.generate_until([until])[0] == model.generate("def main(", max_new_tokens=20, stop=["\n\n"]).text
