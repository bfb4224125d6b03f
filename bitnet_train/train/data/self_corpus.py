"""`data.source=self`: the frozen full-precision teacher writes the corpus it will later distil.

Data-free distillation (LLM-QAT, arXiv 2305.17888, section 3.1, samples from the model itself): documents are drawn
token by token with temperature and nucleus sampling, beginning either from the BOS token alone or from the first
tokens of given prompt texts. Batch b draws from the seed (seed, b), so the corpus is a function of teacher, settings
and seed, for one machine and version of torch. It is cached under a key of all of them, hash checked on read.

Unlike LLM-QAT no token is chosen greedily: the distribution is the teacher's own, shaped only by temperature and top_p.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import DataError
from bitnet_train.json_text import parse_json
from bitnet_train.model.config_fields import vocab_size
from bitnet_train.progress import track
from bitnet_train.train.data.settings import SelfCorpusConfig
from bitnet_train.train.data.special_tokens import lead_token, pad_token
from bitnet_train.train.data.token_cache import digest, tokenizer_digest, write_cache

log = logging.getLogger(__name__)


def self_documents(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: SelfCorpusConfig,
    cache_dir: Path,
    prompts: Sequence[str] = (),
) -> list[str]:
    """Return the documents the teacher writes, from the cache when they are there.

    Prompts are used in turn, wrapping around. Raises DataError when the teacher has nothing to begin from (neither
    BOS, EOS nor prompts) or wrote only empty documents. The teacher's mode and the global RNG are left as they were.
    """
    key = digest(model_digest(teacher), tokenizer_digest(tokenizer), asdict(config), list(prompts))
    path = cache_dir / f"self-{key[:16]}.json"
    documents = _read(path, key)
    if documents is None:
        documents = _write_documents(teacher, tokenizer, config, prompts)
        record = {"key": key, "sha256": digest(documents), "documents": documents}
        write_cache(path, json.dumps(record, ensure_ascii=True).encode())
    return documents


def model_digest(model: PreTrainedModel) -> str:
    """SHA-256, in hex, over the names, dtypes, shapes and bytes of a model's state."""
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _read(path: Path, key: str) -> list[str] | None:
    if not path.exists():
        return None
    try:
        record = parse_json(path.read_bytes())
        if record["key"] == key and record["sha256"] == digest(record["documents"]):
            return list(record["documents"])
        reason = "its content does not match its hash"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error)
    log.warning("The self-written corpus %s is damaged (%s); writing it again.", path, reason)
    return None


def _write_documents(
    teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: SelfCorpusConfig, prompts: Sequence[str]
) -> list[str]:
    beginnings = _beginnings(tokenizer, config, prompts)
    firsts = range(0, config.documents, config.batch_documents)
    settings = _generation_config(tokenizer, config, vocab_size(teacher))
    training = [module for module in teacher.modules() if module.training]
    teacher.eval()
    documents: list[str] = []
    try:
        for number, first in enumerate(track(firsts, "the teacher writes", total=len(firsts))):
            last = min(first + config.batch_documents, config.documents)
            batch = [beginnings[i % len(beginnings)] for i in range(first, last)]
            written = _sample(teacher, batch, settings, seed=config.seed * 1_000_003 + number)
            documents += [_text_of(ids, tokenizer) for ids in written.tolist()]
    finally:
        for module in training:
            module.training = True
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise DataError("`data.source=self`: the teacher wrote only empty documents. Give prompts with `data.path`.")
    return documents


def _beginnings(
    tokenizer: PreTrainedTokenizerBase, config: SelfCorpusConfig, prompts: Sequence[str]
) -> list[list[int]]:
    start = lead_token(tokenizer)
    lead = [] if start is None else [start]
    texts = [list(tokenizer(prompt, add_special_tokens=False)["input_ids"]) for prompt in prompts]
    beginnings = [lead + ids[: config.prompt_tokens] for ids in texts if ids] or [lead]
    if beginnings == [[]]:
        raise DataError(
            "`data.source=self`: the tokenizer has no BOS or EOS to begin from. Give prompts with `data.path`."
        )
    return beginnings


def _generation_config(
    tokenizer: PreTrainedTokenizerBase, config: SelfCorpusConfig, vocabulary: int
) -> GenerationConfig:
    return GenerationConfig(
        do_sample=True,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=0,
        max_length=config.document_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad_token(tokenizer, vocabulary),
        use_cache=True,  # models saved in training often say False, and each token would read all before it again
    )


@torch.no_grad()
def _sample(teacher: PreTrainedModel, batch: list[list[int]], settings: GenerationConfig, seed: int) -> Tensor:
    """Return int64 [len(batch), <= max_length]; shorter beginnings are padded on the left."""
    writer: Any = teacher  # the annotation of `generate` names a protocol no model meets
    longest = max(map(len, batch))
    pad = settings.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(part)) + part for part in batch], device=teacher.device)
    mask = torch.tensor([[0] * (longest - len(part)) + [1] * len(part) for part in batch], device=teacher.device)
    devices = [teacher.device] if teacher.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return writer.generate(ids, attention_mask=mask, generation_config=settings)


def _text_of(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Decode one document; a character cut in half by the length limit is dropped."""
    return str(tokenizer.decode(ids, skip_special_tokens=True)).rstrip("\N{REPLACEMENT CHARACTER}")
