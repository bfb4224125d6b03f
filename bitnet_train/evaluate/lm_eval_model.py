"""A packed folder as a model of EleutherAI's lm-evaluation-harness (lm_eval), registered there as `bitnet_train`.

    import bitnet_train, lm_eval
    lm_eval.simple_evaluate(model="bitnet_train", model_args={"path": "./artefact"}, tasks=["arc_easy"])

or on the command line, with everything that `lm_eval` takes:

    python -m bitnet_train.evaluate.harness --model bitnet_train --model_args path=./artefact --tasks arc_easy

Requests are tokenised by lm_eval's own `TemplateLM`, scored by `log_likelihoods` on the packed weights, and continued
greedily by the native runtime where the folder fits it. Sampling is refused. Imported only once lm_eval is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lm_eval import utils  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]

from bitnet_train.errors import ConfigError
from bitnet_train.evaluate.likelihood import Pair, log_likelihoods, prefix_id
from bitnet_train.evaluate.writers import packed_writer
from bitnet_train.json_text import parse_json
from bitnet_train.model.config_fields import max_positions
from bitnet_train.progress import track
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.templates.render import render_chat

_MAX_NEW_TOKENS = 256
_USUAL_LENGTH = 2048  # where the model states no limit; the harness takes as much for its own
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@register_model("bitnet_train")
class PackedLM(TemplateLM):
    """A packed model that answers lm_eval's requests.

    Parameters
    ----------
    path
        A folder that `export` wrote, with a tokenizer.
    max_length
        The most tokens of a row; None is the model's context.
    batch_size
        Rows computed together at most; "auto" takes as many as keep their logits within 512 MiB.
    num_threads
        Threads of the native runtime; None takes every core.
    chat_template_args, enable_thinking
        Variables of the chat template, and that one of them, as the harness's own Hugging Face model takes them: what
        the run trained with, `data.chat_template_variables`. A mapping, or one in JSON.
    """

    def __init__(
        self,
        path: str,
        max_length: int | None = None,
        batch_size: int | str = "auto",
        num_threads: int | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
        chat_template_args: Mapping[str, Any] | str | None = None,
        enable_thinking: bool | None = None,
    ) -> None:
        super().__init__()
        if device not in (None, "cpu"):
            raise ConfigError(f"`device={device}`: packed models run on the CPU kernels. Leave it out, or say cpu.")
        self.path = Path(path)
        self.model = load(path)
        self.tokenizer: Any = load_tokenizer(path)
        self.max_length = int(max_length or max_positions(self.model) or _USUAL_LENGTH)
        self.max_gen_toks = _MAX_NEW_TOKENS
        self.batch_size = batch_size
        self._rows = 16 if str(batch_size).startswith("auto") else max(1, int(batch_size))
        self._num_threads = None if num_threads is None else int(num_threads)
        self._variables = _variables(chat_template_args)
        if enable_thinking is not None:
            self._variables["enable_thinking"] = enable_thinking

    @property
    def eot_token_id(self) -> int:
        """The end-of-text token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without a context: BOS, else the end-of-text token."""
        found = prefix_id(self.tokenizer)
        return self.eot_token_id if found is None else found

    @property
    def tokenizer_name(self) -> str:
        """What lm_eval keys its caches with."""
        return str(self.path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Return token ids, with what the tokenizer itself puts around a text unless told otherwise."""
        special = add_special_tokens
        if special is None:
            special = not string.startswith(self.tokenizer.bos_token or "\0")
        return list(self.tokenizer(string, add_special_tokens=special, verbose=False)["input_ids"])

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Render a conversation as the prompt that the model was trained with."""
        ask = add_generation_prompt
        return render_chat(self.tokenizer, chat_history, ask=ask, go_on=not ask, variables=self._variables)

    def _loglikelihood_tokens(self, requests: list[Any], **kwargs: Any) -> list[tuple[float, bool]]:
        """Score (texts, context ids, continuation ids) and hand each result to lm_eval's cache."""
        pairs = [Pair(context, continuation) for _, context, continuation in requests]
        scores = log_likelihoods(self.model, pairs, self.max_length, max_rows=self._rows, description="loglikelihood")
        found = [(score.log_prob, score.is_greedy) for score in scores]
        for (texts, _, _), score in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, score)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, each token predicted once, in windows of `max_length`."""
        found = []
        for (text,) in (request.args for request in requests):
            ids = self.tok_encode(text, add_special_tokens=False)
            cut = utils.get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            rows = [(None, *utils.make_disjoint_window(window)) for window in cut]
            found.append(sum(score for score, _ in self._loglikelihood_tokens(rows)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Continue contexts greedily until a stop string, an end of text, or the length; contexts lose their left."""
        writer = packed_writer(self.path, self.model, self.tokenizer, self._num_threads)
        found = []
        for request in track(requests, "generate_until", total=len(requests)):
            context, settings = request.args
            stop, new_tokens = _stop_and_length(settings, self.max_gen_toks)
            room = self.max_length - new_tokens
            if room < 1:
                raise ConfigError(f"`max_gen_toks={new_tokens}` leaves no room in a context of {self.max_length}.")
            found.append(writer.write(self.tok_encode(context)[-room:], new_tokens, stop).text)
            self.cache_hook.add_partial("generate_until", request.args, found[-1])
        return found


def _variables(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return the variables of the chat template; ConfigError where they are no mapping."""
    try:
        found = parse_json(given) if isinstance(given, str) else given or {}
    except ValueError as error:
        raise ConfigError(f"`chat_template_args={given}` is not JSON: {error}.") from error
    if not isinstance(found, Mapping):
        raise ConfigError(f'`chat_template_args={given}` is no mapping. Write {{"name": value}}.')
    return dict(found)


def _stop_and_length(settings: dict[str, Any], default: int) -> tuple[list[str], int]:
    """Return stop strings and the most new tokens; ConfigError where sampling is asked for."""
    if settings.get("do_sample") and settings.get("temperature", 1.0):
        raise ConfigError("`do_sample=true`: this adapter decodes greedily. Set `do_sample=false` or `temperature=0`.")
    until = settings.get("until") or []
    stop = [until] if isinstance(until, str) else [text for text in until if text]
    return stop, int(next((settings[name] for name in _LENGTHS if settings.get(name)), default))
