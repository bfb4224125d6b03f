"""The token with which a chat template closes the assistant's turn: what a model trained on chats writes to stop.

Often no setting names it: a base model's `generation_config.json` knows the end of a text, and its tokenizer a template
that ends a turn with another token. Such a model, trained on chats, would write the end of its turn and go on.
"""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from bitnet_train.templates.render import render_chat

_ANSWER = "ANSWER"


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return its id; None without a template, or where the text after an answer begins with no special token."""
    if not tokenizer.chat_template:
        return None
    chat = [{"role": "user", "content": "QUESTION"}, {"role": "assistant", "content": _ANSWER}]
    try:
        text = render_chat(tokenizer, chat, ask=False)
    except Exception:  # of any kind: a template is somebody's code, and may want other messages
        return None
    rest = text.rpartition(_ANSWER)[2].lstrip() if _ANSWER in text else ""
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"] if rest else []
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return int(ids[0]) if ids and ids[0] in special else None
