"""Keys of training: data, loss, teacher, schedule, optimizer, trainer, logger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bitnet_train.config.schema_key import key


@dataclass
class SelfCorpusConfig:
    """`data.source=self`: how the full-precision model writes the corpus."""

    documents: int = field(default=512, metadata=key("documents written"))
    document_tokens: int = field(default=256, metadata=key("tokens per document, prompt included"))
    temperature: float = field(default=1.0, metadata=key("sampling temperature"))
    top_p: float = field(default=0.95, metadata=key("probability mass kept; 1 = the whole distribution"))
    batch_documents: int = field(default=32, metadata=key("documents written together"))
    prompt_tokens: int = field(
        default=8, metadata=key("tokens taken from each prompt text, when `data.path` gives any")
    )
    seed: int = field(default=0, metadata=key("seed of sampling"))


@dataclass
class DataConfig:
    """What the model reads and how it is cut into rows."""

    source: str = field(default="stdlib", metadata=key("where rows come from", "stdlib", "files", "hub", "self"))
    path: str | None = field(
        default=None, metadata=key("files: file, folder or glob; hub: dataset id; self: prompt texts", path=True)
    )
    mix: list[dict[str, Any]] = field(
        default_factory=list,
        metadata=key(
            "files: several data sets, [{path: a.jsonl, weight: 2}, {path: b.txt}]; a weight is a share of the rows "
            "read; an entry may also have kind and validation_path"
        ),
    )
    validation_path: str | None = field(default=None, metadata=key("files: held-out rows of their own", path=True))
    name: str | None = field(default=None, metadata=key("hub: configuration name of the dataset"))
    split: str = field(default="train", metadata=key("hub: split to train on"))
    validation_split: str | None = field(default=None, metadata=key("hub: split to validate on"))
    kind: str = field(
        default="auto",
        metadata=key(
            "shape of a row; auto = by its fields; completion = prompt and answer as they stand, without a template",
            *("auto", "text", "chat", "instruction", "completion"),
        ),
    )
    text_field: str | None = field(
        default=None, metadata=key("column of the text; null = found by its usual names, as all columns below")
    )
    messages_field: str | None = field(default=None, metadata=key("column of a chat's messages"))
    prompt_field: str | None = field(default=None, metadata=key("column of an instruction"))
    input_field: str | None = field(default=None, metadata=key("column of an instruction's input"))
    answer_field: str | None = field(default=None, metadata=key("column of an instruction's answer"))
    system_field: str | None = field(default=None, metadata=key("column of the system prompt"))
    chat_template_variables: dict[str, Any] = field(
        default_factory=dict,
        metadata=key("variables the chat template is given, such as {enable_thinking: false}"),
    )
    lone_surrogates: str = field(
        default="refuse",
        metadata=key("half a UTF-16 pair in a text; replace = read U+FFFD in its place", "refuse", "replace"),
    )
    context_tokens: int = field(default=256, metadata=key("tokens per row"))
    min_tokens: int = field(default=16, metadata=key("text: windows shorter than this many tokens are dropped"))
    validation_fraction: float = field(default=0.05, metadata=key("share of rows held out, by a hash of their content"))
    max_documents: int | None = field(default=None, metadata=key("documents read at most; null = all"))
    max_train_rows: int | None = field(default=None, metadata=key("rows trained on at most; null = all"))
    max_validation_rows: int | None = field(default=None, metadata=key("rows held out at most; null = all"))
    packing: str = field(
        default="auto",
        metadata=key(
            "several documents in a row, none of which sees another; auto = where rows become fewer and the model can",
            "auto",
            "always",
            "never",
        ),
    )
    crop_padding: bool = field(default=True, metadata=key("cut the columns that are padding in a whole batch"))
    self_corpus: SelfCorpusConfig = field(default_factory=SelfCorpusConfig)


@dataclass
class LossConfig:
    """The weighted sum that training lowers, nats per token."""

    kl: float = field(default=1.0, metadata=key("weight of the forward KL divergence from the frozen model's logits"))
    reverse_kl: float = field(
        default=0.0, metadata=key("weight of the reverse KL divergence, from the student's side: seeks modes")
    )
    ce: float = field(default=0.0, metadata=key("weight of the cross-entropy with the text"))
    hidden: float = field(default=0.0, metadata=key("weight of the squared distance of normalised hidden states"))
    attention: float = field(
        default=0.0, metadata=key("weight of the KL between the relations of queries, keys, values in one block")
    )
    attention_layer: int = field(
        default=-1, metadata=key("block of the attention term; negative = from the end, -1 = the last")
    )
    temperature: float = field(default=1.0, metadata=key("softmax temperature of both KL terms"))
    hidden_balance: bool = field(
        default=True,
        metadata=key("scale hidden and attention by measured gradient norms, at the first step and `balance_step`"),
    )
    balance_step: int = field(default=100, metadata=key("optimiser step at which the balance is measured"))


@dataclass
class TeacherConfig:
    """Who the student is compared with, and whether its answers are kept."""

    source: str | None = field(
        default=None,
        metadata=key(
            "another model of the same vocabulary, as `model.source` names one; null = the model itself",
            path=True,
            model=True,
        ),
    )
    cache: str = field(
        default="none",
        metadata=key("topk = keep the likeliest tokens of every row on disk, for `loss.kl` alone", "none", "topk"),
    )
    top_k: int = field(default=64, metadata=key("tokens kept per position; the others share one bucket"))
    cache_dir: str | None = field(
        default=None, metadata=key("folder of kept answers, shared by runs; null = the run's own cache", path=True)
    )


@dataclass
class ScheduleConfig:
    """How the learning rate and the hardness of the quantiser move."""

    lr: str = field(
        default="cosine", metadata=key("learning rate after warm-up", "cosine", "linear", "constant", "wsd")
    )
    warmup_fraction: float = field(default=0.03, metadata=key("share of the steps that warm up"))
    final_lr_fraction: float = field(
        default=0.0, metadata=key("learning rate of the last step, as a share of the peak")
    )
    decay_fraction: float = field(default=0.2, metadata=key("wsd: share of the steps that decay"))
    hardness: str = field(default="hard", metadata=key("how the quantiser hardens", "hard", "tanh", "lambda"))
    soft_fraction: float = field(default=0.4, metadata=key("share of the steps with a soft quantiser"))
    tanh_start: float = field(default=0.3, metadata=key("tanh: first steepness"))
    tanh_end: float = field(default=100.0, metadata=key("tanh: last steepness; 100 and above is the hard quantiser"))


@dataclass
class OptimizerConfig:
    """AdamW on what trains."""

    name: str = field(default="adamw", metadata=key("optimiser", "adamw"))
    lr: Any = field(default=3e-4, metadata=key("peak learning rate; auto = 2 * reach * mean|W| of the latents / steps"))
    reach: float = field(
        default=3.0, metadata=key("`lr=auto`: how far a latent can travel, in mean|W|; published runs: 2 to 5")
    )
    scale_lr_factor: float = field(
        default=1.0, metadata=key("learning rate of learnable scales, as a factor on `optimizer.lr`")
    )
    dense_lr_factor: float = field(
        default=1.0, metadata=key("learning rate of unconverted matrices that train, as a factor on `optimizer.lr`")
    )
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95], metadata=key("AdamW decay rates"))
    weight_decay: float = field(
        default=0.0,
        metadata=key("weight decay of LoRA factors and unconverted matrices; latents and scales never decay"),
    )
    clip_norm: float = field(default=1.0, metadata=key("largest gradient norm; 0 = no clipping"))


@dataclass
class TrainerConfig:
    """How long, how wide, on what."""

    max_steps: int = field(
        default=300, metadata=key("optimiser steps, unless `max_tokens`, `max_epochs` or `max_minutes` is given")
    )
    max_tokens: int | None = field(default=None, metadata=key("tokens read, padding included; sets the steps"))
    max_epochs: float | None = field(
        default=None, metadata=key("passes over the training rows, such as 3 or 0.5; sets the steps")
    )
    max_minutes: float | None = field(
        default=None, metadata=key("minutes of training steps, timed at the start; sets the steps")
    )
    batch_rows: int = field(default=16, metadata=key("rows per optimiser step"))
    micro_rows: int = field(default=16, metadata=key("rows per forward pass"))
    short_row_tokens: int | None = field(
        default=None, metadata=key("the first steps read pieces of so many tokens, a part of the context; null = rows")
    )
    short_row_fraction: float = field(default=0.8, metadata=key("share of the steps that read pieces"))
    precision: str = field(
        default="auto",
        metadata=key("arithmetic of training; auto = bf16 where a timing finds it faster", "auto", "fp32", "bf16"),
    )
    validate_every_steps: int = field(default=100, metadata=key("steps between validations; 0 = none"))
    save_every_steps: int = field(default=100, metadata=key("steps between checkpoints"))
    log_every_steps: int = field(default=1, metadata=key("steps between lines of metrics"))
    keep_last: int = field(default=2, metadata=key("checkpoints kept"))
    keep_best: bool = field(
        default=False, metadata=key("keep the checkpoint of the lowest held-out figure too, and merge that one")
    )
    patience: int | None = field(
        default=None, metadata=key("stop after so many validations in a row without improvement; null = never")
    )
    divergence_nats: float | None = field(
        default=3.0, metadata=key("stop when the loss stays so many nats per token above its best; null = never")
    )
    divergence_steps: int = field(default=20, metadata=key("steps in a row that it must stay there"))
    seed: int = field(default=0, metadata=key("seed of data order and initial factors"))
    resume: str = field(
        default="never",
        metadata=key("auto = from the newest whole checkpoint of the run directory; or a checkpoint's path", path=True),
    )
    accelerator: str = field(default="auto", metadata=key("device kind", "auto", "cpu", "gpu"))
    devices: int = field(default=1, metadata=key("number of devices"))
    strategy: str = field(default="auto", metadata=key("Lightning strategy: auto, ddp, fsdp, ..."))
    num_threads: int | None = field(
        default=None, metadata=key("CPU threads; null = what torch takes, or one a core if faster")
    )


@dataclass
class LoggerConfig:
    """Where figures go besides `metrics.jsonl`, which is always written."""

    kind: str = field(default="none", metadata=key("tracker", "wandb", "tensorboard", "csv", "none", "custom"))
    project: str = field(default="bitnet-train", metadata=key("project name in the tracker"))
    name: str | None = field(default=None, metadata=key("run name in the tracker; null = name of the run directory"))
    mode: str = field(
        default="auto", metadata=key("wandb: auto = online if a key is set, else offline", "auto", "online", "offline")
    )
    custom: dict[str, Any] = field(
        default_factory=dict,
        metadata=key("kind `custom`: a Lightning logger as `_target_` and its arguments", path=True),
    )
