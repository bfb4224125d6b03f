"""The native model against the Hugging Face path of the same folder, and against itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import bitnet_train
from bitnet_train.errors import ConfigError, DataError, FormatError
from bitnet_train.packed import export_packed
from bitnet_train.quant.scheme import ACTIVATION_SCHEMES, GRANULARITIES, WEIGHT_SCHEMES, WeightScheme
from bitnet_train.runtime.generate import generate
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.runtime.native.architecture import NotNative
from bitnet_train.runtime.native.model import NativeModel
from bitnet_train.validation.check_model import greedy_continuation
from bitnet_train.validation.shared_operations import shared_operations

IDS = np.random.default_rng(3).integers(0, 256, 40).tolist()
PROMPTS = ["def f(x):", "Once upon a time", "import os", "x"]


@torch.no_grad()
def expected_logits(folder):
    """Those of transformers with the runtime's float operations: the same bits."""
    model = load(folder)
    with shared_operations(model):
        return model(torch.tensor([IDS])).logits[0].numpy()


@pytest.fixture(scope="module")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="module")
def native(folder):
    return NativeModel.load(folder, num_threads=1)


@pytest.fixture(scope="module")
def pretrained(pretrained_folder):
    return NativeModel.load(pretrained_folder, num_threads=1)


def test_every_family_has_the_logits_of_torch(family_folder):
    assert np.array_equal(NativeModel.load(family_folder).logits(IDS), expected_logits(family_folder))


@torch.no_grad()
def test_every_family_has_nearly_the_logits_of_torch_with_its_own_float_operations(family_folder):
    model, reference = NativeModel.load(family_folder), load(family_folder)
    actual, expected = model.logits(IDS), reference(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(actual - expected).mean() < 0.02 * expected.std(), "at most a few moved codes"


@pytest.mark.parametrize("activation", [name for name in ACTIVATION_SCHEMES if name != "none"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", WEIGHT_SCHEMES)
def test_every_scheme_has_the_logits_of_torch(make_folder, name, granularity, activation):
    for scale_dtype, learnable in (("float16", False), ("float32", True)):
        scheme = WeightScheme(name, granularity, 32, learnable, scale_dtype)
        folder = make_folder("llama_biased_and_tied", scheme, activation, tokenizer=False)
        assert np.array_equal(NativeModel.load(folder).logits(IDS), expected_logits(folder))


@pytest.mark.parametrize("family", ["llama", "llama_biased_and_tied", "qwen3"])
@pytest.mark.parametrize("roles", [("mlp",), ("attention", "head"), ("embedding",), ("mlp", "head", "embedding")])
def test_any_choice_of_packed_layers_has_the_logits_of_torch(make_folder, family, roles):
    folder = make_folder(family, WeightScheme("ternary", "group", 32), roles=roles, tokenizer=False)
    assert np.array_equal(NativeModel.load(folder).logits(IDS), expected_logits(folder))


@pytest.mark.parametrize(
    ("family", "tables"),
    [
        ("llama", {"embedding": "int8"}),
        ("llama", {"head": "int8"}),
        ("llama", {"embedding": "int8", "head": "int8"}),
        ("qwen3", {"embedding": "int8", "head": "int8"}),
    ],
)
def test_int8_tables_have_the_logits_of_torch(make_folder, family, tables):
    folder = make_folder(family, tokenizer=False, **tables)
    assert np.array_equal(NativeModel.load(folder).logits(IDS), expected_logits(folder))


@torch.no_grad()
def test_every_family_writes_what_torch_writes(family_folder):
    model, reference = NativeModel.load(family_folder), load(family_folder)
    for start in range(0, 36, 9):
        prompt = IDS[start : start + 4]
        with shared_operations(reference):
            expected = greedy_continuation(reference, torch.tensor([prompt]), 24)[0, 4:].tolist()
        assert model.generate_ids(prompt, 24, stop_ids=()) == expected


def test_the_bundled_model_writes_what_torch_writes(pretrained, pretrained_folder):
    reference, tokenizer = load(pretrained_folder), load_tokenizer(pretrained_folder)
    for prompt in PROMPTS[:2]:
        ours, theirs = (
            pretrained.generate(prompt, max_new_tokens=24),
            generate(reference, tokenizer, prompt, max_new_tokens=24),
        )
        assert (ours.text, ours.token_ids) == (theirs.text, theirs.token_ids)
        assert ours.num_prompt_tokens == theirs.num_prompt_tokens


def test_the_number_of_threads_changes_nothing(folder, native):
    two = NativeModel.load(folder, num_threads=2)
    assert np.array_equal(two.logits(IDS), native.logits(IDS))
    assert two.generate_ids(IDS[:5], 20) == native.generate_ids(IDS[:5], 20)


def test_a_prompt_in_pieces_has_the_logits_of_the_whole(native):
    whole = native.logits(IDS)
    for length in (1, 2, 17, 40):
        assert np.array_equal(native.logits(IDS[:length]), whole[:length])


def test_decoding_chooses_what_the_logits_of_the_whole_text_say(native):
    made = native.generate_ids(IDS[:7], 30, stop_ids=())
    chosen = native.logits([*IDS[:7], *made])[6:-1].argmax(-1).tolist()
    assert made == chosen


def test_sampling_depends_on_the_seed_and_on_nothing_else(native):
    def sample(seed, **options):
        return native.generate_ids(IDS[:4], 20, temperature=1.5, seed=seed, stop_ids=(), **options)

    assert sample(1) == sample(1)
    assert len({tuple(sample(seed)) for seed in range(6)}) >= 5
    assert sample(-1) == sample((1 << 64) - 1)
    greedy = native.generate_ids(IDS[:4], 20, stop_ids=())
    assert sample(1, top_k=1) == sample(2, top_p=1e-6) == sample(3, min_p=0.999999) == greedy
    assert native.generate_ids(IDS[:4], 20, stop_ids=(), temperature=1e-4) == greedy


def test_sampled_tokens_have_the_shares_that_the_logits_say(native):
    logits = native.logits(IDS[:3])[-1].astype(np.float64)
    kept = np.argsort(-logits)[:3]
    shares = np.exp(logits[kept]) / np.exp(logits[kept]).sum()
    drawn = [native.generate_ids(IDS[:3], 1, temperature=1.0, top_k=3, seed=seed)[0] for seed in range(400)]
    assert set(drawn) <= set(kept.tolist())
    for token_id, share in zip(kept, shares, strict=True):
        deviation = (share * (1 - share) / 400) ** 0.5
        assert abs(drawn.count(token_id) / 400 - share) < 5 * deviation + 1e-9


def test_an_end_of_text_token_ends_and_is_returned(native):
    made = native.generate_ids(IDS[:6], 20, stop_ids=())
    at = made.index(made[7])
    assert native.generate_ids(IDS[:6], 20, stop_ids=[made[7]]) == made[: at + 1]
    assert native.stop_ids == (256,)


def test_a_listener_may_end_the_continuation(native):
    made = native.generate_ids(IDS[:6], 10, stop_ids=())
    heard = []
    stopped = native.generate_ids(
        IDS[:6], 10, stop_ids=(), on_token=lambda token: heard.append(token) or len(heard) == 4
    )
    assert stopped == heard == made[:4]


def test_an_error_of_the_listener_arrives_and_the_model_goes_on(native):
    made = native.generate_ids(IDS[:6], 10, stop_ids=())

    def fail(token_id):
        raise ZeroDivisionError("in the listener")

    with pytest.raises(ZeroDivisionError, match="in the listener"):
        native.generate_ids(IDS[:6], 10, on_token=fail)
    assert native.generate_ids(IDS[:6], 10, stop_ids=()) == made


def test_a_shared_beginning_is_computed_once_and_changes_nothing(folder, monkeypatch):
    fresh, used = NativeModel.load(folder), NativeModel.load(folder)
    fed = []
    core = used._engine.remembered._core

    class Watched:
        def __getattr__(self, name):
            return getattr(core, name)

        def generate(self, sequence, token_ids, **options):
            fed.append(len(token_ids))
            return core.generate(sequence, token_ids, **options)

    used._engine.remembered._core = Watched()
    prompts = [IDS[:20], [*IDS[:12], 9, 8], IDS[:20], IDS[:20], IDS[:3], [1, 2], IDS[:25]]
    for prompt in prompts:
        fresh.forget()
        assert used.generate_ids(prompt, 6, stop_ids=()) == fresh.generate_ids(prompt, 6, stop_ids=())
    assert fed[1:5] == [2, 8, 1, 1]
    assert fed[5:] == [2, 25]


def test_what_was_written_is_remembered_for_the_next_turn(native):
    native.forget()
    made = native.generate_ids(IDS[:6], 5, stop_ids=())
    assert native._engine.remembered.known == [*IDS[:6], *made[:4]]
    turn = [*IDS[:6], *made, 3, 4]
    again = native.generate_ids(turn, 5, stop_ids=())
    native.forget()
    assert again == native.generate_ids(turn, 5, stop_ids=())


def test_a_batch_writes_what_each_prompt_writes_alone(native):
    for options in ({}, {"stop": ["e"]}, {"temperature": 1.0, "seed": 3}):
        together = native.generate(PROMPTS, max_new_tokens=12, **options)
        alone = [native.generate(prompt, max_new_tokens=12, **options) for prompt in PROMPTS]
        assert [made.token_ids for made in together] == [made.token_ids for made in alone]
        assert [made.text for made in together] == [made.text for made in alone]
    assert native.generate([], max_new_tokens=2) == []


def test_stop_strings_end_both_engines_alike(pretrained, pretrained_folder):
    reference, tokenizer = load(pretrained_folder), load_tokenizer(pretrained_folder)
    whole = pretrained.generate("def ", max_new_tokens=16)
    cut = whole.text[3:8]
    ours = pretrained.generate("def ", max_new_tokens=16, stop=["never", cut])
    theirs = generate(reference, tokenizer, "def ", max_new_tokens=16, stop=["never", cut])
    assert ours.text == theirs.text == whole.text[: whole.text.index(cut)]
    assert ours.token_ids == theirs.token_ids == whole.token_ids[: len(ours.token_ids)]
    assert len(ours.token_ids) < 16


def test_the_pieces_of_a_stream_make_up_the_text(pretrained):
    for options in ({}, {"temperature": 1.2, "seed": 5}, {"stop": ["e"]}):
        whole = pretrained.generate("Once", max_new_tokens=12, **options)
        assert "".join(pretrained.stream("Once", max_new_tokens=12, **options)) == whole.text
        pieces = []
        pretrained.generate("Once", max_new_tokens=12, **options, stream=pieces.append)
        assert "".join(pieces) == whole.text
        assert all(pieces)


def test_a_stream_may_be_left_early_and_an_error_comes_through(pretrained):
    stream = pretrained.stream("Once upon", max_new_tokens=400)
    first = next(stream)
    stream.close()
    assert first
    assert len(pretrained._engine.remembered.known) < 400
    with pytest.raises(DataError, match="The prompt is empty"):
        next(pretrained.stream(""))
    assert not [thread for thread in threading.enumerate() if thread.name == "bitnet-train stream"]


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "2 + 2?"},
]
WRITTEN_OUT = "system: Be brief.\nuser: hi\nassistant: Hello.\nuser: 2 + 2?\nassistant:"


@pytest.mark.parametrize("chat", [False, True])
def test_a_list_of_messages_is_a_chat_with_its_system_message_and_its_history(native, folder, chat):
    plain = native.generate(WRITTEN_OUT, max_new_tokens=4)
    made = native.generate(CHAT, max_new_tokens=4, chat=chat)
    assert (made.token_ids, made.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)
    assert "".join(native.stream(CHAT, max_new_tokens=4, chat=chat)) == plain.text
    assert [one.text for one in native.generate([CHAT, CHAT[:2]], max_new_tokens=4, chat=chat)] == [
        plain.text,
        native.generate(CHAT[:2], max_new_tokens=4).text,
    ]
    by_torch = generate(load(folder), load_tokenizer(folder), CHAT, max_new_tokens=4, chat=chat)
    assert (by_torch.token_ids, by_torch.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)


def test_a_message_alone_or_a_broken_one_is_refused_by_every_door(native, folder):
    for wrong in (CHAT[0], [{"role": "user", "text": "hi"}], [CHAT[0], "hi"]):
        for ask in (
            lambda prompt: native.generate(prompt, chat=True),
            lambda prompt: list(native.stream(prompt, chat=True)),
            lambda prompt: generate(load(folder), load_tokenizer(folder), prompt, chat=True),
        ):
            with pytest.raises(DataError):
                ask(wrong)


def test_a_chat_prompt_goes_through_the_template(native):
    chat = native.generate("hi", max_new_tokens=4, chat=True)
    plain = native.generate("user: hi\nassistant:", max_new_tokens=4)
    assert (chat.token_ids, chat.num_prompt_tokens) == (plain.token_ids, plain.num_prompt_tokens)


def test_a_prompt_cache_gives_the_same_text_and_is_used(folder, native, tmp_path):
    cache = tmp_path / "deep" / "prompt.safetensors"
    prompt = "the same long beginning, "
    first = native.generate(prompt, max_new_tokens=8, prompt_cache=cache)
    written = cache.read_bytes()
    other = NativeModel.load(folder, num_threads=2)
    assert other.generate(prompt, max_new_tokens=8, prompt_cache=cache).token_ids == first.token_ids
    assert cache.read_bytes() == written, "it held the prompt already"
    longer = NativeModel.load(folder)
    continued = longer.generate(prompt + "and more", max_new_tokens=8, prompt_cache=cache)
    assert continued.token_ids == native.generate(prompt + "and more", max_new_tokens=8).token_ids
    assert len(cache.read_bytes()) > len(written)
    assert [path.name for path in cache.parent.iterdir()] == ["prompt.safetensors"]


def test_a_prompt_cache_of_another_model_is_refused_with_the_reason(make_folder, native, tmp_path):
    cache = tmp_path / "cache"
    native.generate("hello", max_new_tokens=2, prompt_cache=cache)
    other = NativeModel.load(make_folder(weight=WeightScheme("ternary")))
    with pytest.raises(FormatError, match="belongs to another model: it was computed by the one with manifest"):
        other.generate("hello", max_new_tokens=2, prompt_cache=cache)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.generate_ids(IDS[:30], 67), DataError, r"30 tokens and `max_new_tokens` is 67, together 97, but "),
        (lambda m: m.logits(IDS * 3), DataError, r"this model's context is 96 tokens\. Shorten the prompt"),
        (lambda m: m.generate("x" * 97, max_new_tokens=1), DataError, "The prompt has 97 tokens"),
        (lambda m: m.generate(["x", "x" * 97], max_new_tokens=1), DataError, "The prompt has 97 tokens"),
        (lambda m: m.generate_ids([], 3), DataError, "There are no token ids"),
        (lambda m: m.generate_ids([258], 3), DataError, "Token id 258 is not one of this model, which knows 0 to 257"),
        (lambda m: m.logits([-1]), DataError, "Token id -1 is not one"),
        (lambda m: m.generate_ids([1], -3), ConfigError, "`max_new_tokens=-3` is out of range"),
        (lambda m: m.generate_ids([1], 3, temperature=-1.0), ConfigError, "`temperature=-1.0` is out of range"),
        (lambda m: m.generate_ids([1], 3, temperature=float("nan")), ConfigError, "`temperature=nan` is out of range"),
        (lambda m: m.generate_ids([1], 3, top_p=0.0), ConfigError, "`top_p=0.0` is out of range"),
        (lambda m: m.generate_ids([1], 3, min_p=1.0), ConfigError, "`min_p=1.0` is out of range"),
        (lambda m: m.generate_ids([1], 3, top_k=-1), ConfigError, "`top_k=-1` is out of range"),
        (lambda m: m.generate("", max_new_tokens=3), DataError, "The prompt is empty"),
        (lambda m: m.generate("a", max_new_tokens=1, stop=[""]), DataError, "A stop string is empty"),
        (
            lambda m: m.generate(["a"], max_new_tokens=1, stream=print),
            ConfigError,
            "go with one prompt, and several are given",
        ),
    ],
)
def test_what_cannot_be_computed_is_refused_before_any_work_with_the_numbers(native, call, error, message):
    native.forget()
    with pytest.raises(error, match=message):
        call(native)
    assert native._engine.remembered.sequence.length == 0


def test_a_context_may_be_made_smaller_and_is_used_to_its_end(folder):
    small = NativeModel.load(folder, max_tokens=10)
    assert len(small.generate_ids(IDS[:4], 6, stop_ids=())) == 6
    assert small.logits(IDS[:10]).shape == (10, 258)
    with pytest.raises(DataError, match=r"together 11, but `max_tokens` is 10 tokens"):
        small.generate_ids(IDS[:4], 7)
    assert NativeModel.load(folder, max_tokens=10_000).max_tokens == 96
    for name in ("max_tokens", "num_threads"):
        with pytest.raises(ConfigError, match=f"`{name}=0` is out of range"):
            NativeModel.load(folder, **{name: 0})


def test_loading_checks_every_byte_unless_told_not_to(damaged):
    data = bytearray((damaged / "config.json").read_bytes())
    data[-2:] = b" }"
    (damaged / "config.json").write_bytes(data)
    with pytest.raises(FormatError, match=r"config\.json was changed or damaged"):
        NativeModel.load(damaged)
    NativeModel.load(damaged, verify=False)


def test_a_folder_that_does_not_fit_is_refused_with_the_reason_and_the_way_out(make_folder):
    with pytest.raises(NotNative, match=r"takes float activations .*`bitnet_train\.load` computes it"):
        NativeModel.load(make_folder(activation="none"))


def test_a_folder_without_a_tokenizer_still_takes_ids(make_folder):
    model = NativeModel.load(make_folder(tokenizer=False))
    assert len(model.generate_ids([1, 2], 3, stop_ids=())) == 3
    with pytest.raises(FormatError, match="exported without a tokenizer"):
        model.generate("x")


def test_damaged_planes_are_refused_and_the_layer_named(make_trained, tmp_path):
    export_packed(make_trained("odd"), None, tmp_path / "out", {})
    data = bytearray((tmp_path / "out" / "weights.safetensors").read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    at = json.loads(data[8:start])["model.layers.0.mlp.up_proj.planes"]["data_offsets"][0]
    data[start + at + 7] = 1
    (tmp_path / "out" / "weights.safetensors").write_bytes(data)
    with pytest.raises(FormatError, match=r"model\.layers\.0\.mlp\.up_proj: .*padding bits that are not 0"):
        NativeModel.load(tmp_path / "out", verify=False)


def test_memory_and_kernels_are_told(native):
    assert native.memory_bytes()
    assert all(type(value) is int for value in native.memory_bytes().values())
    assert native.kernels()


def test_a_folder_works_from_anywhere_without_torch_or_transformers(folder, native, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    code = (
        "import sys, bitnet_train, json\n"
        "model = bitnet_train.NativeModel.load(sys.argv[1])\n"
        "made = model.generate('hello', max_new_tokens=5, chat=True)\n"
        "print(json.dumps(made.token_ids))\n"
        "print([name for name in ('torch', 'transformers', 'accelerate', 'safetensors.torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(moved)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    token_ids, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert json.loads(token_ids) == native.generate("hello", max_new_tokens=5, chat=True).token_ids


def test_the_public_name_is_there():
    assert bitnet_train.NativeModel is NativeModel
