"""Levels 3 to 5 of `validate`: layers, logits, tokens and perplexity of the packed model against what it must equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bitnet_train.evaluate.perplexity import perplexity
from bitnet_train.model.cached_step import cached_step
from bitnet_train.packed.manifest import Manifest
from bitnet_train.progress import track
from bitnet_train.validation.differences import difference, first_differing_module, output_hooks
from bitnet_train.validation.prompts import Texts
from bitnet_train.validation.report import Level


@dataclass(frozen=True)
class Subject:
    """The packed model and what it must equal: the trained model, or the same folder computed by the reference."""

    manifest: Manifest
    packed: PreTrainedModel
    expected: PreTrainedModel
    expected_name: str

    def layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the packed layers and int8 tables of the manifest, or their counterparts, by name."""
        entries = (*self.manifest.layers, *self.manifest.tables)
        return {entry.name: model.get_submodule(entry.name) for entry in entries}


@torch.no_grad()
def check_layers(subject: Subject, token_ids: Tensor) -> Level:
    """Level 3. On real activations each packed layer gives the bits that its counterpart gives for the same input."""
    expected = subject.layers(subject.expected)
    failures: list[str] = []
    seen: set[str] = set()

    def compare(name: str, x: Any, output: Tensor) -> None:
        seen.add(name)
        how = None if failures else difference(output, expected[name](x))
        failures.extend([f"{name}: {how}"] if how else [])

    with output_hooks(subject.layers(subject.packed), compare):
        subject.packed(token_ids, use_cache=False)
    unused = sorted(set(expected) - seen)
    if unused and not failures:
        failures.append(f"{unused[0]}: never computed")
    detail = f"each layer's output with that of {subject.expected_name}, on the activations of a prompt, bit for bit"
    return Level("layer", detail, {"layers": len(seen), "tokens": token_ids.numel()}, next(iter(failures), None))


@torch.no_grad()
def check_logits(subject: Subject, batches: Sequence[Tensor]) -> Level:
    """Level 4. The logits of both models on the same tokens are equal: the largest difference is exactly 0."""
    largest, failure, num_tokens = 0.0, None, 0
    for token_ids in track(batches, "Validating logits", len(batches)):
        actual, expected = _logits(subject.packed, token_ids), _logits(subject.expected, token_ids)
        num_tokens += token_ids.numel()
        how = difference(actual, expected)
        if how:
            largest = max(largest, float((actual - expected).abs().max()))
            failure = (
                failure or first_differing_module(subject.packed, subject.expected, token_ids[:1]) or f"logits: {how}"
            )
    detail = f"logits with those of {subject.expected_name}; tolerance 0"
    return Level("logits", detail, {"max_abs_difference": largest, "tokens": num_tokens}, failure)


@torch.no_grad()
def check_tokens(subject: Subject, texts: Texts, new_tokens: int) -> Level:
    """Level 5. Both models continue every prompt alike, and have the same perplexity on held-out text."""
    failures: list[str] = []
    num_choices = 0
    for index, token_ids in enumerate(track(texts.prompts, "Validating tokens", len(texts.prompts))):
        sequences = greedy_continuation(subject.packed, token_ids, new_tokens)
        num_choices += token_ids.shape[0] * new_tokens
        if index == 0 and not torch.equal(greedy_continuation(subject.expected, token_ids, new_tokens), sequences):
            failures.append(
                f"prompt {token_ids[0].tolist()}: decoded with a KV cache, the two models write other tokens"
            )
        failures += _differing_choices(subject, sequences, token_ids.shape[1])
    packed, expected = perplexity(subject.packed, texts.rows), perplexity(subject.expected, texts.rows)
    if packed.nats != expected.nats:
        failures.append(f"perplexity: {packed.perplexity!r} instead of {expected.perplexity!r}")
    figures = {
        "prompts": sum(batch.shape[0] for batch in texts.prompts),
        "greedy_tokens": num_choices,
        "text_tokens": packed.tokens,
        "perplexity": packed.perplexity,
        "expected_perplexity": expected.perplexity,
    }
    detail = f"greedy tokens and perplexity with those of {subject.expected_name}"
    return Level("tokens_and_perplexity", detail, figures, next(iter(failures), None))


def _differing_choices(subject: Subject, sequences: Tensor, num_prompt_tokens: int) -> list[str]:
    """Compare the likeliest token of both models after every prefix that ends in the prompt's end or later."""
    chosen, expected = (
        _logits(model, sequences[:, :-1])[:, num_prompt_tokens - 1 :].argmax(-1)
        for model in (subject.packed, subject.expected)
    )
    if torch.equal(chosen, expected):
        return []
    row, step = torch.nonzero(chosen != expected)[0].tolist()
    prompt = sequences[row, :num_prompt_tokens].tolist()
    return [f"prompt {prompt}, new token {step}: {int(chosen[row, step])} instead of {int(expected[row, step])}"]


def greedy_continuation(model: PreTrainedModel, token_ids: Tensor, new_tokens: int) -> Tensor:
    """Return token ids [B, L + new_tokens]: each row continued greedily with a KV cache; nothing stops it early."""
    sequences, step = token_ids, token_ids
    past: Any = None
    for _ in range(new_tokens):
        output, past = cached_step(model, step, past)
        step = output.logits[:, -1:].argmax(-1)
        sequences = torch.cat([sequences, step], dim=1)
    return sequences


def _logits(model: PreTrainedModel, token_ids: Tensor) -> Tensor:
    output: Any = model(token_ids, use_cache=False)
    return output.logits
