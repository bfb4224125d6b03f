"""The typed schema: every key a recipe, a group file or the command line may set.

One dataclass per configuration group, one field per key, one line and a unit per field. The fields that a lower
floor reads carry the names of that floor's own dataclass (`weight.granularity` is `WeightScheme.granularity`), so a
stage builds it with `build(WeightScheme, config.weight)`; `tests/contract/test_schema.py` holds the two together
without this file importing torch. Allowed values stand in the field's metadata: the composer checks them, `bitnet-train
show --keys` prints them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
Section = TypeVar("Section")

REQUIRED: Any = "???"  # OmegaConf's mark of a value that a file or the command line must give


def key(default: T, doc: str, *, choices: tuple[str, ...] = ()) -> T:
    """Declare one configuration key: its default, its one-line meaning with the unit, its allowed values."""
    made: Any = field(default_factory=lambda: deepcopy(default), metadata={"doc": doc, "choices": choices})
    return made


def section(kind: type[Section], doc: str) -> Section:
    """Declare one group of keys."""
    made: Any = field(default_factory=kind, metadata={"doc": doc})
    return made


@dataclass
class ModelConfig:
    """Which model, and which of its layers become 1-bit."""

    source: str = key(REQUIRED, "`tiny` (bundled), hub id, local directory, or *.gguf file")
    dtype: str = key("float32", "number type of everything that is not a latent", choices=("float32", "bfloat16"))
    include: list[str] = key([], "layer name patterns to convert; empty = every layer of `model.roles`")
    exclude: list[str] = key([], "layer name patterns to keep in full precision")
    roles: list[str] = key(["attention", "mlp"], "roles to convert", choices=("attention", "mlp", "head", "embedding"))


@dataclass
class WeightConfig:
    """How a weight becomes codes and scales, and how gradients pass through."""

    name: str = key("binary", "codes: binary = +-1, ternary = -1, 0, +1", choices=("binary", "ternary"))
    granularity: str = key("row", "one scale per ...", choices=("tensor", "row", "group"))
    group_size: int = key(128, "inputs per scale, read when granularity is `group`")
    learnable_scale: bool = key(False, "train the scales instead of taking the mean magnitude of the latents")
    scale_dtype: str = key("float16", "type the scales are rounded to, in training too", choices=("float16", "float32"))
    estimator: str = key("identity", "straight-through estimator", choices=("identity", "clipped", "tanh"))
    clip: float = key(1.0, "where the clipped and the tanh estimator stop gradients, in scales")


@dataclass
class ActivationConfig:
    """How the inputs of a converted layer are quantised."""

    name: str = key("int8", "int8 per token, sign = 1 bit per token, none = float", choices=("int8", "sign", "none"))


@dataclass
class AdapterConfig:
    """What trains: low-rank factors, scales, or every latent."""

    kind: str = key(
        "lora_inside",
        "lora_inside = Q(W + sBA), lora_outside = Q(W)x + sBAx, scales_only, none = all latents train",
        choices=("lora_inside", "lora_outside", "scales_only", "none"),
    )
    rank: int = key(64, "rank of the low-rank factors")
    alpha: float = key(128.0, "numerator of the LoRA scale")
    rslora: bool = key(True, "scale by alpha / sqrt(rank) instead of alpha / rank")
    dropout: float = key(0.0, "dropout probability before A; only outside the quantiser")
    train_norms: bool = key(True, "train the norms too")
    train_bias: bool = key(True, "train the biases of converted layers too")
    train_embeddings: bool = key(False, "train the input embedding and the head too")


@dataclass
class SelfCorpusConfig:
    """`data.source=self`: how the full-precision model writes the corpus."""

    documents: int = key(512, "documents written")
    document_tokens: int = key(256, "tokens per document, prompt included")
    temperature: float = key(1.0, "sampling temperature")
    top_p: float = key(0.95, "probability mass kept; 1 = the whole distribution")
    batch_documents: int = key(32, "documents written together")
    prompt_tokens: int = key(8, "tokens taken from each prompt text, when `data.path` gives any")
    seed: int = key(0, "seed of sampling")


@dataclass
class DataConfig:
    """What the model reads and how it is cut into rows."""

    source: str = key("stdlib", "where rows come from", choices=("stdlib", "files", "hub", "self"))
    path: str | None = key(None, "files: file, folder or glob; hub: dataset id; self: prompt texts")
    validation_path: str | None = key(None, "files: held-out rows of their own")
    name: str | None = key(None, "hub: configuration name of the dataset")
    split: str = key("train", "hub: split to train on")
    validation_split: str | None = key(None, "hub: split to validate on")
    kind: str = key("auto", "shape of a row; auto = by its fields", choices=("auto", "text", "chat", "instruction"))
    text_field: str | None = key(None, "column of the text; null = found by its usual names, as all columns below")
    messages_field: str | None = key(None, "column of a chat's messages")
    prompt_field: str | None = key(None, "column of an instruction")
    input_field: str | None = key(None, "column of an instruction's input")
    answer_field: str | None = key(None, "column of an instruction's answer")
    system_field: str | None = key(None, "column of the system prompt")
    context_tokens: int = key(256, "tokens per row")
    min_tokens: int = key(16, "text: windows shorter than this many tokens are dropped")
    validation_fraction: float = key(0.05, "share of rows held out, by a hash of their content")
    max_documents: int | None = key(None, "documents read at most; null = all")
    max_train_rows: int | None = key(None, "rows trained on at most; null = all")
    max_validation_rows: int | None = key(None, "rows held out at most; null = all")
    crop_padding: bool = key(True, "cut the columns that are padding in a whole batch")
    self_corpus: SelfCorpusConfig = section(SelfCorpusConfig, "how the model writes its own corpus")


@dataclass
class LossConfig:
    """The weighted sum that training lowers, nats per token."""

    kl: float = key(1.0, "weight of the forward KL divergence from the frozen model's logits")
    ce: float = key(0.0, "weight of the cross-entropy with the text")
    hidden: float = key(0.0, "weight of the squared distance of normalised hidden states")
    temperature: float = key(1.0, "softmax temperature of the KL term")
    hidden_balance: bool = key(True, "scale the hidden term by measured gradient norms, once, at `balance_step`")
    balance_step: int = key(100, "optimiser step at which the balance is measured")


@dataclass
class ScheduleConfig:
    """How the learning rate and the hardness of the quantiser move."""

    lr: str = key("cosine", "learning rate after warm-up", choices=("cosine", "linear", "constant", "wsd"))
    warmup_fraction: float = key(0.03, "share of the steps that warm up")
    final_lr_fraction: float = key(0.0, "learning rate of the last step, as a share of the peak")
    decay_fraction: float = key(0.2, "wsd: share of the steps that decay")
    hardness: str = key("hard", "how the quantiser hardens", choices=("hard", "tanh", "lambda"))
    soft_fraction: float = key(0.4, "share of the steps with a soft quantiser")
    tanh_start: float = key(0.3, "tanh: first steepness")
    tanh_end: float = key(100.0, "tanh: last steepness; 100 and above is the hard quantiser")


@dataclass
class OptimizerConfig:
    """AdamW on what trains."""

    name: str = key("adamw", "optimiser", choices=("adamw",))
    lr: float = key(3e-4, "peak learning rate")
    scale_lr_factor: float = key(1.0, "learning rate of learnable scales, as a factor on `optimizer.lr`")
    betas: list[float] = key([0.9, 0.95], "AdamW decay rates")
    weight_decay: float = key(
        0.0, "weight decay of LoRA factors and unconverted matrices; latents and scales never decay"
    )
    clip_norm: float = key(1.0, "largest gradient norm; 0 = no clipping")


@dataclass
class TrainerConfig:
    """How long, how wide, on what."""

    max_steps: int = key(300, "optimiser steps")
    batch_rows: int = key(16, "rows per optimiser step")
    micro_rows: int = key(16, "rows per forward pass")
    precision: str = key("fp32", "arithmetic of training", choices=("fp32", "bf16"))
    validate_every_steps: int = key(100, "steps between validations; 0 = none")
    save_every_steps: int = key(100, "steps between checkpoints")
    log_every_steps: int = key(1, "steps between lines of metrics")
    keep_last: int = key(2, "checkpoints kept")
    seed: int = key(0, "seed of data order and initial factors")
    resume: str = key("never", "auto = from the newest whole checkpoint of the run directory; or a checkpoint's path")
    accelerator: str = key("auto", "device kind", choices=("auto", "cpu", "gpu"))
    devices: int = key(1, "number of devices")
    strategy: str = key("auto", "Lightning strategy: auto, ddp, fsdp, ...")
    num_threads: int | None = key(None, "CPU threads; none = what torch takes")


@dataclass
class LoggerConfig:
    """Where figures go besides `metrics.jsonl`, which is always written."""

    kind: str = key("none", "tracker", choices=("wandb", "tensorboard", "csv", "none", "custom"))
    project: str = key("bitnet-train", "project name in the tracker")
    name: str | None = key(None, "run name in the tracker; none = name of the run directory")
    mode: str = key("auto", "wandb: auto = online if a key is set, else offline", choices=("auto", "online", "offline"))
    custom: dict[str, Any] = key({}, "kind `custom`: a Lightning logger as `_target_` and its arguments")


@dataclass
class ExportConfig:
    """What is written at the end."""

    format: str = key("packed", "exporter", choices=("packed",))
    force: bool = key(False, "replace an artefact that is there already")


@dataclass
class EvaluateConfig:
    """Perplexity on held-out text."""

    max_tokens: int = key(32768, "tokens scored at most")
    text: str | None = key(None, "text file to score instead of the held-out split")


@dataclass
class ValidateConfig:
    """Proof that the artefact computes what was trained."""

    num_prompts: int = key(32, "prompts whose logits are compared")
    new_tokens: int = key(16, "tokens continued greedily per prompt")
    num_tokens: int = key(2048, "tokens whose perplexity is compared")
    all_isas: bool = key(True, "check the integers on every instruction set of this CPU")
    against: str | None = key(None, "merged model to compare with; none = the run's own")


@dataclass
class GenerateConfig:
    """How text is continued."""

    prompt: str = key("def main(", "text to continue")
    max_new_tokens: int = key(64, "new tokens at most")
    temperature: float = key(0.0, "0 = greedy")
    top_k: int = key(0, "candidates kept; 0 = all")
    top_p: float = key(1.0, "probability mass kept")
    seed: int = key(0, "seed of sampling")
    chat: bool = key(False, "wrap the prompt in the chat template")


@dataclass
class DebugConfig:
    """Looking inside; BITNET_DEBUG=1 switches it on too."""

    enabled: bool = key(False, "print and log per-layer telemetry")
    every_steps: int = key(50, "steps between prints")


@dataclass
class RunConfig:
    """Where a run writes; nothing outside it is written."""

    root: str = key("runs", "folder of all runs")
    name: str | None = key(None, "folder name of the run; none = the time it starts")
    dir: str | None = key(None, "run directory; none = root/recipe/name")


@dataclass
class Config:
    """Everything a stage may read."""

    recipe: str = key("none", "name of the recipe; set by the command line's first word")
    model: ModelConfig = section(ModelConfig, "which model and which layers")
    weight: WeightConfig = section(WeightConfig, "numbers of a weight")
    activation: ActivationConfig = section(ActivationConfig, "numbers of an input")
    adapter: AdapterConfig = section(AdapterConfig, "what trains")
    data: DataConfig = section(DataConfig, "text")
    loss: LossConfig = section(LossConfig, "what training lowers")
    schedule: ScheduleConfig = section(ScheduleConfig, "learning rate and hardness over time")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW")
    trainer: TrainerConfig = section(TrainerConfig, "steps, rows, precision, devices")
    logger: LoggerConfig = section(LoggerConfig, "tracking")
    export: ExportConfig = section(ExportConfig, "artefact")
    evaluate: EvaluateConfig = section(EvaluateConfig, "perplexity")
    validate: ValidateConfig = section(ValidateConfig, "proof")
    generate: GenerateConfig = section(GenerateConfig, "continuing text")
    debug: DebugConfig = section(DebugConfig, "telemetry")
    run: RunConfig = section(RunConfig, "run directory")
    path: str | None = key(None, "directory named on the command line: a run or an artefact")
    quiet: bool = key(False, "print nothing for people")
    dry_run: bool = key(False, "train: report what would happen, then stop")


CALL_KEYS = ("path", "quiet", "dry_run")  # set by the command line's words and flags, never by a file
