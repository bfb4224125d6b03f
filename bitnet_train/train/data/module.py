"""The data module: rows made once, then batches that are a pure function of (seed, step).

    read_corpus -> tokenise_examples -> TokenRows (cached) -> packing -> StepBatchSampler -> batches (`chunk.collate`)

Only rows that are trained on are packed: what is held out, and what `init` and blocks look at, has a row each.

One training batch holds the rows of one optimiser step, or pieces of rows in the first ones (`short_tokens`). The
loader is endless; the trainer stops at its `max_steps`. Give the trainer `use_distributed_sampler=False`: the sampler
already deals each rank its share.

What a checkpoint keeps is one number, the next batch: the number this module started from plus the batches the
trainer has *processed* since, so batches a loader has prefetched do not count. `state_dict` may be called from
`on_train_batch_end`: the batch that just ended counts.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bitnet_train.errors import ConfigError, DataError
from bitnet_train.facts import read
from bitnet_train.model.config_fields import max_positions
from bitnet_train.train.data.chat import segments
from bitnet_train.train.data.chunk import TokenRows, collate
from bitnet_train.train.data.corpus import read_corpus
from bitnet_train.train.data.epochs import Epochs
from bitnet_train.train.data.facts import DataFacts
from bitnet_train.train.data.mix import Mix
from bitnet_train.train.data.mixed_rows import run_rows
from bitnet_train.train.data.packing import PackedRows
from bitnet_train.train.data.row_lengths import RowLengths
from bitnet_train.train.data.sampler import ShortRows, StepBatchSampler, order_of_pass
from bitnet_train.train.data.settings import DataConfig
from bitnet_train.train.data.token_cache import CACHE_VERSION, digest, load_rows, save_rows, tokenizer_digest
from bitnet_train.train.data.tokenise import tokenise_examples
from bitnet_train.train.data.unread import count_left_out

Batch = dict[str, Tensor]


class BitDataModule(LightningDataModule):
    """Batches for training and validation.

    tokenizer: a fast one. batch_rows: rows of one optimiser step, over all ranks. cache_dir: where token caches go.
    teacher: the full-precision model; needed by `source=self`, and used to check context length and vocabulary, and
    whether it keeps the documents of packed rows apart.
    short_tokens: of the pieces that the first `short_steps` steps read; it divides the context. How many steps those
    are is known, and set, once the length of the run is.
    """

    def __init__(
        self,
        config: DataConfig,
        tokenizer: PreTrainedTokenizerBase,
        batch_rows: int,
        seed: int,
        cache_dir: str | Path,
        teacher: PreTrainedModel | None = None,
        short_tokens: int | None = None,
    ) -> None:
        super().__init__()
        if batch_rows < 1 or seed < 0:
            raise ConfigError(f"batch rows ({batch_rows}) must be at least 1 and the seed ({seed}) at least 0.")
        _check_context(config, tokenizer, teacher)
        self.config, self.tokenizer, self.teacher = config, tokenizer, teacher
        self.batch_rows, self.seed, self.cache_dir = batch_rows, seed, Path(cache_dir)
        self.short_tokens, self.short_steps = short_tokens, 0
        self._rows: dict[str, TokenRows] | None = None
        self._packed: PackedRows | None = None
        self._mix: Mix | None = None
        self._facts: dict[str, Any] = {}
        self._passes: Epochs | None = None
        self._start = 0  # batch the current loader began with, or the next one will
        self._processed_before: int | None = None  # what the trainer had processed by then; None without a loader

    def prepare_data(self) -> None:
        """Make the token cache; Lightning calls this on one process per node."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Load or make the rows of both splits. Raises DataError; see `corpus` and `tokenise`."""
        if self._rows is None:
            made = run_rows(self.config, self._load, self.teacher)
            self._rows, self._packed, self._facts, self._mix = made.alone, made.packed, made.facts, made.mix
            self.teacher = None  # it has written or checked what it had to

    @property
    def is_packed(self) -> bool:
        """Whether rows that are trained on may hold several documents."""
        self.setup()
        return self._packed is not None

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return an endless loader of training batches that begins at the saved position."""
        rows = self._trained_on()
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if self.batch_rows % world:
            raise ConfigError(f"{self.batch_rows} rows per step cannot be shared by {world} processes; use a multiple.")
        self._start, self._processed_before = self._next_batch(), self._processed()
        pieces, short = self._pieces(rows)
        ranks: dict[str, Any] = {"start": self._start, "rank": rank, "world": world}
        sampler = StepBatchSampler(len(rows), self.batch_rows, self.seed, short=short, mix=self._mix, **ranks)
        return DataLoader(_Picks(rows, self.config.crop_padding, pieces), sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch] | list[Batch]:
        """Return the validation rows in order, `batch_rows` at a time; an empty list without a validation split."""
        rows = self._of("validation")
        picks = [list(range(i, min(i + self.batch_rows, len(rows)))) for i in range(0, len(rows), self.batch_rows)]
        return DataLoader(_Picks(rows, self.config.crop_padding), sampler=picks, batch_size=None) if picks else []

    def some_training_rows(self, num_rows: int) -> Batch:
        """Return at most `num_rows` training rows as one batch, as `validation_rows`: those the first pass reads last.

        So what is fitted to them before training, such as blocks, is then trained on text that it has not seen. They
        have one document each.
        """
        last = order_of_pass(len(self._trained_on()), self.seed, 0, self._mix)[-num_rows:]
        if self._packed is not None:
            last = [number for row in last[::-1] for number in self._packed.documents[row]][:num_rows]
        return collate(self._of("train").select(np.unique(last)), crop=True)

    def validation_rows(self) -> Batch:
        """Return all validation rows as one batch: input_ids, labels, attention_mask, each int64 [R, L]."""
        return collate(self._of("validation"))

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's position: the next batch to train on."""
        return {"next_batch": self._next_batch()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the saved batch; the next `train_dataloader()` begins there."""
        self._start, self._processed_before = int(state_dict["next_batch"]), None

    def teardown(self, stage: str) -> None:
        """Keep the position when the trainer lets go, so that a later fit continues there; let go of the trainer.

        It holds the model and its moments, and whoever reads text after training would keep them all.
        """
        self._start, self._processed_before = self._next_batch(), None
        self.trainer = None

    def epochs(self, steps: int, short_steps: int | None = None) -> float:
        """Return the passes over the training rows that the first `steps` steps make; None: the short ones as set."""
        return self._epochs().read(steps, self.short_steps if short_steps is None else short_steps)

    def steps_of_epochs(self, max_epochs: float, lengths: RowLengths) -> int:
        """Return the fewest steps that read `max_epochs` passes; `lengths` says how many of them read pieces."""
        return self._epochs().steps(max_epochs, lengths)

    def describe(self) -> DataFacts:
        """Return what was read: source, kind, unused fields, content and cache hashes, and figures per split."""
        used = {"train_rows": len(self._trained_on()), "validation_rows": len(self._of("validation"))}
        return read(DataFacts, {**self._facts, **used, "batch_rows": self.batch_rows, "seed": self.seed})

    def rows_of_step(self, step: int) -> list[int]:
        """Return the numbers of the rows that a step reads, of all processes; those beyond the rows are of pieces."""
        rows = self._trained_on()
        short = self._pieces(rows)[1]
        return StepBatchSampler(len(rows), self.batch_rows, self.seed, short=short, mix=self._mix).batch(step)

    def first_batch(self, *, short: bool = False) -> Batch:
        """Return the rows, or the `short` pieces, of a first optimiser step, of all processes; the loader stays."""
        rows = self._trained_on()
        if short:
            rows, _ = self._cut(rows)
        mix = None if short else self._mix
        picked = StepBatchSampler(len(rows), self.batch_rows, self.seed, mix=mix).batch(0)
        return collate(rows.select(picked), crop=self.config.crop_padding)

    def first_sample(self) -> list[tuple[str, bool]]:
        """Return the first row of the first batch, decoded, as runs of (text, is trained)."""
        rows = self._trained_on()
        sampler = StepBatchSampler(len(rows), self.batch_rows, self.seed, mix=self._mix)
        row = sampler.batch(0)[0]
        num_tokens = int(rows.lengths[row])
        return segments(rows.input_ids[row, :num_tokens], rows.trained[row, :num_tokens], self.tokenizer)

    def _of(self, split: str) -> TokenRows:
        self.setup()
        assert self._rows is not None
        return self._rows[split]

    def _load(self, config: DataConfig) -> tuple[dict[str, TokenRows], dict[str, Any]]:
        return load_or_tokenise(config, self.tokenizer, self.cache_dir, self.teacher)

    def _trained_on(self) -> TokenRows:
        """Return the rows to train on, packed where they are."""
        rows = self._of("train")
        return rows if self._packed is None else self._packed.rows

    def _epochs(self) -> Epochs:
        if self._passes is None:
            rows = self._trained_on()
            pieces = self._cut(rows)[1] if self.short_tokens is not None else None
            self._passes = Epochs(len(rows), self.batch_rows, self.seed, pieces)
        return self._passes

    def _pieces(self, rows: TokenRows) -> tuple[TokenRows | None, ShortRows | None]:
        """Return the pieces that the first steps read, and their order; None and None where all read whole rows."""
        if self.short_tokens is None or self.short_steps == 0:
            return None, None
        pieces, counts = self._cut(rows)
        return pieces, ShortRows(counts, self.short_steps)

    def _cut(self, rows: TokenRows) -> tuple[TokenRows, np.ndarray]:
        assert self.short_tokens is not None
        pieces, counts = rows.in_pieces(self.short_tokens)
        if len(pieces) == 0:
            raise DataError(
                f"No piece of `trainer.short_row_tokens={self.short_tokens}` tokens has a trained token behind its "
                "first. Take longer pieces, or null."
            )
        return pieces, counts

    def _processed(self) -> int:
        """Return how many training batches the trainer has finished, in this and restored runs."""
        if self.trainer is None:
            return 0
        return int(vars(self.trainer.fit_loop.epoch_loop.batch_progress.total)["processed"])

    def _next_batch(self) -> int:
        if self._processed_before is None:
            return self._start
        return self._start + self._processed() - self._processed_before


class _Picks(Dataset[Batch]):
    """Rows by lists of row numbers: item [i, j, ...] is the collated batch. Numbers beyond the rows are of pieces."""

    def __init__(self, rows: TokenRows, crop: bool, pieces: TokenRows | None = None) -> None:
        self.rows, self.crop, self.pieces = rows, crop, pieces

    def __getitem__(self, indices: list[int]) -> Batch:
        if self.pieces is not None and indices[0] >= len(self.rows):
            return collate(self.pieces.select([index - len(self.rows) for index in indices]), crop=self.crop)
        return collate(self.rows.select(indices), crop=self.crop)


def load_or_tokenise(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, teacher: PreTrainedModel | None
) -> tuple[dict[str, TokenRows], dict[str, Any]]:
    """Return (rows by split, facts), from the cache when the same content was tokenised before."""
    corpus = read_corpus(config, tokenizer, cache_dir, teacher)
    variables = config.chat_template_variables
    settings = [CACHE_VERSION, corpus.kind, config.context_tokens, config.min_tokens, variables]
    key = digest(corpus.content_sha256, tokenizer_digest(tokenizer), settings)
    found = load_rows(cache_dir, key)
    if found is None:
        rows, counts = {}, {}
        for split, examples in (("train", corpus.train), ("validation", corpus.validation)):
            limits = config.context_tokens, config.min_tokens
            made = tokenise_examples(examples, tokenizer, *limits, split, variables)
            rows[split], counts[split] = made[0], asdict(made[1])
        save_rows(cache_dir, key, rows, counts)
        found = rows, counts
    rows, counts = found
    rows = _within_vocabulary(rows, teacher)
    facts = {
        "source": config.source,
        "path": config.path,
        "kind": corpus.kind,
        "context_tokens": config.context_tokens,
        "files": corpus.files,
        "unused_fields": corpus.unused_fields,
        "left_out": count_left_out(corpus, counts),
        "content_sha256": corpus.content_sha256,
        "cache_key": key,
        **counts,
    }
    return rows, facts


def _check_context(config: DataConfig, tokenizer: PreTrainedTokenizerBase, teacher: PreTrainedModel | None) -> None:
    limits: dict[str, int | None] = {"the tokenizer's model_max_length": tokenizer.model_max_length}
    if teacher is not None:
        limits["the model's max_position_embeddings"] = max_positions(teacher)
    for what, limit in limits.items():
        if isinstance(limit, int) and config.context_tokens > limit:
            raise DataError(
                f"`data.context_tokens={config.context_tokens}` exceeds {what}, {limit}. Use {limit} or less."
            )


def _within_vocabulary(rows: dict[str, TokenRows], teacher: PreTrainedModel | None) -> dict[str, TokenRows]:
    """Return the rows with padding that the model can look up; it is masked, so any token of the model will do.

    Raises DataError when a text has a token that the model does not know.
    """
    vocabulary = getattr(teacher.get_input_embeddings(), "num_embeddings", None) if teacher is not None else None
    if vocabulary is None:
        return rows
    known = {
        split: part.padded_with(0) if part.input_ids.max(initial=0) >= vocabulary else part
        for split, part in rows.items()
    }
    largest = max(int(part.input_ids.max(initial=0)) for part in known.values())
    if largest >= vocabulary:
        raise DataError(
            f"The tokenizer gives token {largest}, but the model knows only {vocabulary}. They do not belong together:"
            " load the tokenizer that came with the model."
        )
    return known
