"""A tokenizer's chat template: what it is given, what of that it reads, and what ends a turn.

The template gets every message as the data has it: role, content, and the other fields (`tool_calls`, `name`,
`reasoning_content`, ...), beside the row's `tools` and the variables of `data.chat_template_variables`. Jinja ignores
what a template does not ask for, so fields that its source never names are counted and reported.

Templates disagree about calls: some write `arguments` with `tojson` and want an object, some paste them and want text,
and some look at calls only where `content` is none. A call with a known argument is rendered each way, and the first
that shows the argument as JSON, or as the template's own markup, is used.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from jinja2 import TemplateSyntaxError, meta, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.templates.render import render_ahead, render_chat
from bitnet_train.train.data.examples import Tools
from bitnet_train.train.data.messages import REASONING, ROLES, Message
from bitnet_train.train.data.tool_calls import with_text_arguments

Turn = dict[str, Any]

_COMMENT = re.compile(r"{#.*?#}", re.DOTALL)
_GENERATION = re.compile(r"{%-?\s*(end)?generation\s*-?%}")  # a tag of transformers, unknown to Jinja
_LINKS = ("tool_call_id", "id")  # they say which message belongs to which, nothing that could be lost
_PROBE = {"name": "probed", "arguments": {"needle": "hay"}}
_CALL_FORMS = tuple((content, as_text) for as_text in (False, True) for content in (None, ""))


class ChatTemplate:
    """The chat template of a tokenizer, with the variables it is given.

    `notes` counts, in words, what the template was given and did not read. Raises DataError when a variable is not
    one of the template's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any] | None = None) -> None:
        self.tokenizer = tokenizer
        self.variables = dict(variables or {})
        self.notes: Counter[str] = Counter()
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self.special = tuple(special | {str(tokenizer.eos_token)} if tokenizer.eos_token else special)
        self._call_forms: dict[str, tuple[str | None, bool]] = {}
        _check_variables(tokenizer, self.variables)

    @property
    def exists(self) -> bool:
        """Whether the tokenizer has a template."""
        return bool(self.tokenizer.chat_template)

    def text(self, messages: Sequence[Message], tools: Tools, where: str, *, ask: bool = False) -> str:
        """Return the rendered turns; `ask` adds the generation prompt. Raises DataError where the template does."""
        if not messages:
            raise DataError(
                f"{where}: the chat begins with the assistant, so there is no prompt that its first turn answers.\n"
                "Give that turn `weight: 0` (it is then only read), or drop it."
            )
        try:
            return self._apply(self._turns(messages, tools), tools, ask)
        except Exception as error:  # templates raise whatever Jinja and their authors like
            roles = ", ".join(message.role for message in messages)
            reason = getattr(error, "reason", error)
            raise DataError(
                f"{where}: the chat template refused the turns ({roles}): {reason}{self._hint(tools)}"
            ) from error

    def render_ahead(self, messages: Sequence[Message], tools: Tools) -> None:
        """Have the texts rendered at once that the trained turns of a chat are found by."""
        ends = [at for at, message in enumerate(messages) if message.trained and at]
        chats = [
            (messages, False),
            *((messages[:at], True) for at in ends),
            *((messages[: at + 1], False) for at in ends),
        ]
        with suppress(Exception):  # of any kind: `text` says what is wrong
            turns = ((self._turns(some, tools), ask) for some, ask in chats)
            render_ahead(self.tokenizer, turns, _list_of(tools), self.variables)

    def reads(self, name: str, tools: Tools) -> bool:
        """Return whether the template's source has this name anywhere."""
        return name in _words(self.source(tools))

    def source(self, tools: Tools) -> str:
        """Return the template that is used with these tools; a tokenizer can have one of its own for tools."""
        return str(self.tokenizer.get_chat_template(tools=_list_of(tools)))

    def variables_read(self, tools: Tools) -> list[str]:
        """Return the names of the variables that are meant to be set by `data.chat_template_variables`."""
        source = self.source(tools)
        return sorted(_variables(source) - _own(source) - _not_settable(self.tokenizer))

    def note_unread(self, messages: Sequence[Message], tools: Tools) -> None:
        """Count the fields of a chat that the template does not name, and roles that are not the usual ones.

        Reasoning has several names, which transformers translates; whether it is written is seen in the text.
        """
        names = [name for message in messages for name in message.fields if name not in (*_LINKS, *REASONING)]
        names += ["tools"] * bool(tools)
        for name in names:
            if not self.reads(name, tools):
                of = "chats: `tools` are" if name == "tools" else f"messages: their `{name}` is"
                self.notes[f"{of} not read by the chat template"] += 1
        for message in messages:
            if message.role not in ROLES:
                self.notes[f"turns of role `{message.role}`, which is not one of {', '.join(ROLES)}"] += 1

    def _turns(self, messages: Sequence[Message], tools: Tools) -> list[Turn]:
        has_calls = any("tool_calls" in message.fields for message in messages)
        empty, as_text = self._call_form(tools) if has_calls else ("", False)
        return [_turn(message, empty, as_text) for message in messages]

    def _apply(self, turns: list[Turn], tools: Tools, ask: bool) -> str:
        return render_chat(self.tokenizer, turns, tools=_list_of(tools), ask=ask, variables=self.variables)

    def _call_form(self, tools: Tools) -> tuple[str | None, bool]:
        """Return (content of a turn without text, whether arguments are text) as this template shows calls."""
        source = self.source(tools)
        if source not in self._call_forms:
            shown = (form for form in _CALL_FORMS if self._shows_calls(*form, tools))
            self._call_forms[source] = next(shown, ("", False))
        return self._call_forms[source]

    def _shows_calls(self, empty: str | None, as_text: bool, tools: Tools) -> bool:
        call = {"type": "function", "id": "call00001", "function": _PROBE}
        calls = with_text_arguments([call]) if as_text else [call]
        turns: list[Turn] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": empty, "tool_calls": calls},
            {"role": "tool", "name": "probed", "tool_call_id": call["id"], "content": "!"},
            {"role": "assistant", "content": "."},
            {"role": "user", "content": "?"},
        ]
        try:
            text = self._apply(turns, tools, ask=False)
        except Exception:  # see `text`
            return False
        return "needle" in text and not any(wrong in text for wrong in ("'needle'", r"\"needle", "None"))

    def _hint(self, tools: Tools) -> str:
        settable = self.variables_read(tools)
        hints = (
            ["The row gives no `tools`, which this template reads."] if not tools and self.reads("tools", tools) else []
        )
        if settable:
            hints.append(f"Variables that `data.chat_template_variables` can give it: {', '.join(settable)}.")
        return "\n" + " ".join(hints) if hints else ""


def _turn(message: Message, empty: str | None, as_text: bool) -> Turn:
    """Return a message as the template gets it, calls in the form it shows."""
    fields = dict(message.fields)
    if fields.get("tool_calls") and as_text:
        fields["tool_calls"] = with_text_arguments(fields["tool_calls"])
    content = empty if fields.get("tool_calls") and not message.content else message.content
    return {"role": message.role, "content": content, **fields}


def _list_of(tools: Tools) -> list[dict[str, Any]] | None:
    return [dict(tool) for tool in tools] or None


def _check_variables(tokenizer: PreTrainedTokenizerBase, variables: Mapping[str, Any]) -> None:
    if not variables:
        return
    if not tokenizer.chat_template:
        raise DataError("`data.chat_template_variables` is set, but the tokenizer has no chat template. Set it to {}.")
    templates = tokenizer.chat_template
    sources = list(templates.values()) if isinstance(templates, dict) else [str(templates)]
    settable = sorted(set[str]().union(*map(_variables, sources)) - _not_settable(tokenizer))
    unknown = sorted(set(variables) - set(settable))
    if unknown:
        raise DataError(
            f"`data.chat_template_variables` sets {', '.join(unknown)}, which the chat template does not read.\n"
            f"It reads: {', '.join(settable) or 'none'}. Drop or rename the key."
        )


@cache
def _words(source: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", _COMMENT.sub("", source)))


@cache
def _variables(source: str) -> frozenset[str]:
    """Return the names a template looks up from outside; none where Jinja cannot parse it, which rendering reports."""
    tree = _parsed(source)
    return frozenset(meta.find_undeclared_variables(tree) - set(DEFAULT_NAMESPACE)) if tree else frozenset()


@cache
def _own(source: str) -> frozenset[str]:
    """Return the names a template sets itself without asking whether they are defined: its working variables."""
    tree = _parsed(source)
    if tree is None:
        return frozenset()
    tests = [*tree.find_all(nodes.Test), *(each for each in tree.find_all(nodes.Filter) if each.name == "default")]
    asked = {test.node.name for test in tests if isinstance(test.node, nodes.Name)}
    return frozenset(name.name for name in tree.find_all(nodes.Name) if name.ctx == "store") - asked


def _parsed(source: str) -> nodes.Template | None:
    environment = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return environment.parse(_GENERATION.sub("", source))
    except TemplateSyntaxError:  # rendering it says so
        return None


def _not_settable(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the names that transformers itself gives every template, or takes as its own arguments."""
    own = set(inspect.signature(tokenizer.apply_chat_template).parameters)
    return own | {"messages", "raise_exception", "strftime_now", *tokenizer.special_tokens_map}
