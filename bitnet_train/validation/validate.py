"""Prove that a packed folder computes what was trained, at six levels, each finer than the one after it.

    bytes      every file, tensor and plane is what was written; codes and scales are those of the trained model
    integers   the kernel's integer products are the oracle's, on every instruction set this machine has
    layer      on real activations, each layer's output has the bits of the trained layer's output
    logits     the logits of the whole model are those of the trained model
    tokens_and_perplexity   it writes the same text, and is as good on held-out text
    native     the native runtime computes what the packed model computes (`check_native.py`)

Of all of them the tolerance is 0, and it is derived, not hoped for. A packed layer and a trained layer in evaluation
mode compute the same exact integers and then the same float32 operations in the same order (`kernels/reference.py`);
every module that is not packed is the same torch code on the same float32 values (they are stored exactly), with the
same shapes, in the same process. So every logit has the same bits, and any difference at all is a defect. This needs
the trained model in float32 on the CPU; other devices order their sums differently. The native runtime orders them
in its own way too: for the comparison with it, the packed model is lent its float operations.

Same tokens: each prompt is continued greedily by the packed model, and then both models name their likeliest token
after every prefix of that text. If all agree, greedy decoding of both is the same text, by induction over the tokens.
The first batch of prompts is also decoded by both models on their own.

Where the folder holds the token embedding or the head in int8, the trained model trained it so, and computes it as the
folder does. One that was rounded only on the way out (`export.head=int8`) was rounded on purpose: the trained model is
then given the same rounding for as long as it is compared (`oracle.rounded_tables`), its own float table, made into
codes and computed by the reference. So the tolerance stays 0, and what the rounding costs shows in the perplexity.

Without a trained model the folder is compared with itself computed by the reference: that proves the bytes and the
kernel, not the training, and the report says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from transformers import PreTrainedModel

from bitnet_train.errors import FormatError
from bitnet_train.kernels import ops
from bitnet_train.model.config_fields import max_positions, vocab_size
from bitnet_train.model.converted import load_converted
from bitnet_train.packed.manifest import Manifest
from bitnet_train.packed.reader import open_weights, read_manifest
from bitnet_train.runtime.load import load, load_tokenizer
from bitnet_train.validation.check_bytes import check_bytes
from bitnet_train.validation.check_integers import check_integers
from bitnet_train.validation.check_model import Subject, check_layers, check_logits, check_tokens
from bitnet_train.validation.check_native import check_native
from bitnet_train.validation.check_tables import add_table_products
from bitnet_train.validation.oracle import (
    oracle,
    replace_by_oracle,
    rounded_tables,
    table_oracle,
    tables_rounded_on_the_way_out,
)
from bitnet_train.validation.prompts import Texts, validation_texts
from bitnet_train.validation.report import LEVEL_NAMES, Level, ValidationReport

_REFERENCE_NAME = "the reference kernel on the same folder (no trained model was given)"


def validate(
    path: str | Path,
    *,
    against: str | Path | PreTrainedModel | None = None,
    prompts: Sequence[str] | None = None,
    num_prompts: int = 32,
    new_tokens: int = 16,
    num_tokens: int = 2048,
    all_isas: bool = True,
    native_tokens: int = 16,
    progress: Callable[[str], object] | None = None,
) -> ValidationReport:
    """Check the packed folder at `path` at all six levels; nothing is raised for a folder that fails.

    Parameters
    ----------
    path
        A folder that `export_packed` wrote.
    against
        The trained model: the folder of a merged checkpoint, or the model itself (float32, on the CPU; it is put into
        evaluation mode). None compares with the reference kernel.
    prompts, num_prompts
        Texts to continue; the default is a built-in list, filled up with windows of held-out text to `num_prompts`.
    new_tokens
        Tokens that each prompt is continued by.
    num_tokens
        Tokens of held-out text for the perplexity.
    all_isas
        Prove the integers on every instruction set of this machine; False: only on the one in use.
    native_tokens
        Tokens that the native runtime and torch both continue each of ten prompts by.
    progress
        Called with the name of each level when it starts.
    """
    announce = progress or (lambda _name: None)
    folder = Path(path)
    trained = trained_model(against)
    name = "the trained model" if trained is not None else _REFERENCE_NAME
    announce(LEVEL_NAMES[0])
    levels = [check_bytes(folder, trained)]
    with ExitStack() as until_done:
        try:
            subject = _subject(folder, trained, name, until_done)
        except FormatError as error:
            levels += [Level(missed, f"not run: {error}", {}, f"not run: {error}") for missed in LEVEL_NAMES[1:]]
            return ValidationReport(str(path), name, tuple(levels))
        texts = _texts(folder, subject, prompts, num_prompts, num_tokens)
        isas = ops.available_isas() if all_isas else (ops.backend(),)
        steps: dict[str, Callable[[], Level]] = {
            "integers": lambda: add_table_products(check_integers(subject, folder, isas), subject, isas),
            "layer": lambda: check_layers(subject, texts.prompts[-1][:1]),
            "logits": lambda: check_logits(subject, [*texts.prompts, *(row["input_ids"] for row in texts.rows)]),
            "tokens_and_perplexity": lambda: check_tokens(subject, texts, new_tokens),
            "native": lambda: check_native(
                subject, folder, [*texts.prompts, *(row["input_ids"] for row in texts.rows)], native_tokens
            ),
        }
        for step, run in steps.items():
            announce(step)
            levels.append(run())
        return ValidationReport(str(path), subject.expected_name, tuple(levels))


def trained_model(against: str | Path | PreTrainedModel | None) -> PreTrainedModel | None:
    """Return the trained model in evaluation mode; FormatError when it is not float32 on the CPU."""
    if against is None:
        return None
    model = load_converted(against)[0] if isinstance(against, str | Path) else against
    wrong = next(
        (
            f"{name} is {tensor.dtype} on {tensor.device}"
            for name, tensor in model.named_parameters()
            if tensor.dtype != torch.float32 or tensor.device.type != "cpu"
        ),
        None,
    )
    if wrong:
        raise FormatError(f"`against` must be a float32 model on the CPU, but {wrong}. Call `.float().cpu()` first.")
    return model.eval()


def _subject(folder: Path, trained: PreTrainedModel | None, name: str, until_done: ExitStack) -> Subject:
    """Load what is compared; a trained model has its tables rounded until `until_done` is left."""
    manifest = read_manifest(folder)
    packed = load(folder, verify=False)
    if trained is None:
        return Subject(manifest, packed, _by_the_reference(folder, manifest), name)
    # a choice of the process, not of the folder: both must sum in the same order
    packed.set_attn_implementation(trained.config._attn_implementation or "eager")
    said = _rounding(trained, manifest)
    until_done.enter_context(rounded_tables(trained, manifest))
    return Subject(manifest, packed, trained, name + said)


def _rounding(trained: PreTrainedModel, manifest: Manifest) -> str:
    """Say which tables of the trained model are compared rounded."""
    tables = tables_rounded_on_the_way_out(trained, manifest)
    names = " and ".join({"embedding": "token embedding", "linear": "head"}[table.kind] for table in tables)
    kinds = " and ".join(dict.fromkeys(f"int{table.bits}" for table in tables))
    return f", its {names} rounded to {kinds} alike" if names else ""


def _by_the_reference(folder: Path, manifest: Manifest) -> PreTrainedModel:
    model = load(folder, verify=False)
    with open_weights(folder, manifest) as weights:
        layers = {layer.name: oracle(weights.layer(layer)) for layer in manifest.layers}
        layers |= {table.name: table_oracle(weights.table(table)) for table in manifest.tables}
    replace_by_oracle(model, layers)
    return model


def _texts(folder: Path, subject: Subject, prompts: Sequence[str] | None, num_prompts: int, num_tokens: int) -> Texts:
    model = subject.packed
    has_tokenizer = "tokenizer_config.json" in subject.manifest.files
    return validation_texts(
        load_tokenizer(folder) if has_tokenizer else None,
        vocab_size(model),
        prompts=prompts,
        num_prompts=num_prompts,
        num_tokens=num_tokens,
        longest_row=max_positions(model) or num_tokens,
    )
