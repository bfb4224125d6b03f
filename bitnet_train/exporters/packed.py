"""The packed folder as it is handed over: with `native.json` beside it where the C++ core computes it.

`packed/writer.py` writes the folder and knows no runtime; this adds what programs without Python need
(`runtime/native/description.py`, docs/embed.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.packed import writer
from bitnet_train.packed.manifest import Manifest
from bitnet_train.runtime.native.description import write_native


def export_packed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out_dir: str | Path,
    facts: dict[str, Any] | None = None,
    *,
    force: bool = False,
    embedding: str = "exact",
    head: str = "exact",
) -> Manifest:
    """Pack `model` into the folder `out_dir` and return its manifest; the model stays as it is.

    Parameters
    ----------
    model
        A plain Hugging Face causal LM in float32 with at least one 1-bit layer; adapters merged.
    tokenizer
        Saved beside the weights; None leaves it out, and then only token ids go in and come out.
    out_dir
        A folder that does not exist or is empty.
    facts
        Anything JSON can hold; `base_model` and `recipe`, if there, become fields of the manifest, and `license`, that
        of the original as the hub spells it, goes into the card.
    force
        Replace an earlier export at `out_dir`, and only that: a folder with other files is refused.
    embedding, head
        "exact" keeps the token embedding and the head as they were trained; "int8", "int5" and "int4" round a float
        one to so many bits.

    Raises
    ------
    ConfigError
        When `embedding` or `head` asks for what this model cannot have.
    FormatError
        When adapters are still attached, there is nothing to pack, a tensor is not float32, or the target is taken.
        Nothing has been changed then.
    DiskError
        When the disk is full or read-only. Nothing has been changed then either.

    Examples
    --------
    >>> import bitnet_train as bt
    >>> original = bt.load_pretrained("tiny")
    >>> _ = bt.convert(original.model, "binary_row")  # train it, and then
    >>> manifest = bt.export(original.model, original.tokenizer, "exported", {"license": "apache-2.0"})
    >>> len(manifest.layers), manifest.base_model
    (28, 'tiny')
    """
    return writer.export_packed(
        model, tokenizer, out_dir, facts, force=force, embedding=embedding, head=head, beside=write_native
    )
