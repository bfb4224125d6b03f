"""The native model against itself: pieces, threads, samples, listeners, shared beginnings, prompt caches, limits."""

from __future__ import annotations

import numpy as np
import pytest

from bitnet_train.errors import ConfigError, DataError, FormatError
from bitnet_train.quant.scheme import WeightScheme
from bitnet_train.runtime.native.model import NativeModel
from tests.fixtures.native_folders import IDS


@pytest.fixture(scope="module")
def folder(make_folder):
    return make_folder()


@pytest.fixture(scope="module")
def native(folder):
    return NativeModel.load(folder, num_threads=1)


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
        (lambda m: m.generate("a", max_new_tokens=1, stop=[""]), ConfigError, "a list of texts that are not empty"),
        (
            lambda m: m.generate(["a"], max_new_tokens=1, stream=print),
            ConfigError,
            "go with one prompt, and several are given",
        ),
        (lambda m: m.generate_ids([1], 3, stop_ids=[258]), DataError, "Token id 258 is not one of this model"),
        *(
            (
                lambda m, ids=ids: m.generate_ids([1], 3, stop_ids=ids),
                DataError,
                "Token ids are a list of whole numbers",
            )
            for ids in (3, "7", [1.5], ["7"], [None], [True])
        ),
        (lambda m: m.generate_ids([1], 3, on_token=3), ConfigError, "`on_token=3` is out of range: it must be a func"),
        (lambda m: m.generate("a", max_new_tokens=1, stream="out"), ConfigError, "`stream=out` is out of range"),
        *(
            (
                lambda m, path=path: m.generate("a", prompt_cache=path),
                ConfigError,
                "`prompt_cache=.* must be the path of",
            )
            for path in (3, b"cache", ["cache"], True, "")
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


@pytest.mark.parametrize("path", [3, b"artefact", None, ""])
def test_what_is_no_path_is_refused_by_name(path):
    with pytest.raises(ConfigError, match=r"`path=.*must be the path of a file or folder"):
        NativeModel.load(path)
