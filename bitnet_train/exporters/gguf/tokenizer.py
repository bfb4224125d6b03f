"""The tokenizer of the file, from the `tokenizer.json` of the packed folder: all of it, or a refusal.

byte-level BPE        model "gpt2": tokens in GPT-2's alphabet, merges in order, a known pre-tokenizer
SentencePiece BPE     model "llama": tokens with a low line for a space, a score a token
no tokenizer          model "no_vocab": token ids in, token ids out
"""

from __future__ import annotations

from bitnet_train.errors import FormatError
from bitnet_train.exporters.gguf.byte_level import read_byte_level
from bitnet_train.exporters.gguf.pre_tokenizer import is_byte_level
from bitnet_train.exporters.gguf.sentencepiece import read_sentencepiece
from bitnet_train.exporters.gguf.special_tokens import read_special_tokens
from bitnet_train.exporters.gguf.vocabulary import Vocabulary
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.json_text import parse_json
from bitnet_train.packed.source import PackedSource


def read_vocabulary(source: PackedSource, vocab_size: int, options: ExportOptions) -> Vocabulary:
    """Read the tokenizer of a packed folder for an embedding of `vocab_size` rows.

    Raises FormatError for a tokenizer that llama.cpp does not have, or whose pre-tokenizer is not known.
    """
    path = source.companion("tokenizer.json")
    if path is None:
        return Vocabulary("no_vocab", notes=["no tokenizer in the packed folder: token ids only"])
    tokenizer = parse_json(path.read_text(encoding="utf-8"))
    kind = tokenizer["model"].get("type")
    if kind != "BPE":
        raise FormatError(
            f"The tokenizer is a {kind} model, and only BPE is written into a GGUF. Use another `export.format`."
        )
    special = read_special_tokens(source, tokenizer)
    if is_byte_level(tokenizer):
        return read_byte_level(tokenizer, vocab_size, special, options)
    return read_sentencepiece(tokenizer, vocab_size, special, options)
