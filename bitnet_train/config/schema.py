"""The typed schema: every key a recipe, a group file or the command line may set.

One dataclass per configuration group, one field per key, one line and a unit per field. The fields that a lower
floor reads carry the names of that floor's own dataclass (`weight.granularity` is `WeightScheme.granularity`), so a
stage builds it with `build(WeightScheme, config.weight)`; `tests/contract/test_schema.py` holds the two together
without this file importing torch. Allowed values stand in the field's metadata: the composer checks them, `bitnet-train
show --keys` prints them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

REQUIRED: Any = "???"  # OmegaConf's mark of a value that a file or the command line must give


def key(doc: str, *choices: str) -> dict[str, Any]:
    """Return the metadata of one configuration key: its one-line meaning with the unit, and its allowed values."""
    return {"doc": doc, "choices": choices}


@dataclass
class ModelConfig:
    """Which model, and which of its layers become 1-bit."""

    source: str = field(default=REQUIRED, metadata=key("`tiny` (bundled), hub id, local directory, or *.gguf file"))
    include: list[str] = field(
        default_factory=list, metadata=key("layer name patterns to convert; empty = every layer of `model.roles`")
    )
    exclude: list[str] = field(default_factory=list, metadata=key("layer name patterns to keep in full precision"))
    roles: list[str] = field(
        default_factory=lambda: ["attention", "mlp"],
        metadata=key("roles to convert", "attention", "mlp", "head", "embedding"),
    )


@dataclass
class WeightConfig:
    """How a weight becomes codes and scales, and how gradients pass through."""

    name: str = field(default="binary", metadata=key("codes: binary = +-1, ternary = -1, 0, +1", "binary", "ternary"))
    granularity: str = field(default="row", metadata=key("one scale per ...", "tensor", "row", "group"))
    group_size: int = field(default=128, metadata=key("inputs per scale, read when granularity is `group`"))
    learnable_scale: bool = field(
        default=False, metadata=key("train the scales instead of taking the mean magnitude of the latents")
    )
    scale_dtype: str = field(
        default="float16", metadata=key("type the scales are rounded to, in training too", "float16", "float32")
    )
    estimator: str = field(
        default="identity", metadata=key("straight-through estimator", "identity", "clipped", "tanh")
    )
    clip: float = field(default=1.0, metadata=key("where the clipped and the tanh estimator stop gradients, in scales"))
    overrides: list[dict[str, Any]] = field(
        default_factory=list,
        metadata=key(
            "layers that differ: [{pattern: down_proj, name: ternary}, {role: head, keep: true}]; an entry names a "
            "pattern or a role, then keys above, or `keep` = stays float; of entries that fit, the last decides"
        ),
    )
    input_scale: bool = field(
        default=False,
        metadata=key("train a scale per input too, as OneBit: to measure with, it cannot be merged or packed"),
    )
    sub_norm: bool = field(
        default=False,
        metadata=key("an RMSNorm before output projections, its gain measured: to measure with, it cannot be packed"),
    )


@dataclass
class ActivationConfig:
    """How the inputs of a converted layer are quantised."""

    name: str = field(
        default="int8",
        metadata=key("int8 or int4 per token, sign = 1 bit per token, none = float", "int8", "int4", "sign", "none"),
    )


@dataclass
class AdapterConfig:
    """What trains: low-rank factors, scales, or every latent."""

    kind: str = field(
        default="lora_inside",
        metadata=key(
            "lora_inside = Q(W + sBA), lora_outside = Q(W)x + sBAx, scales_only, none = all latents train",
            "lora_inside",
            "lora_outside",
            "scales_only",
            "none",
        ),
    )
    rank: int = field(default=64, metadata=key("rank of the low-rank factors"))
    alpha: float = field(default=128.0, metadata=key("numerator of the LoRA scale"))
    rslora: bool = field(default=True, metadata=key("scale by alpha / sqrt(rank) instead of alpha / rank"))
    dropout: float = field(default=0.0, metadata=key("dropout probability before A; only outside the quantiser"))
    train_norms: bool = field(default=True, metadata=key("train the norms too"))
    train_bias: bool = field(default=True, metadata=key("train the biases of converted layers too"))
    train_embeddings: bool = field(default=False, metadata=key("train the input embedding and the head too"))
    latent_shrink: float = field(
        default=1.0, metadata=key("lora_inside: factor on the latents; their scales stay, so that sBA flips signs")
    )
    equal_latents: bool = field(
        default=False, metadata=key("lora_inside: latents start as sign times scale, before `latent_shrink`")
    )


@dataclass
class InitConfig:
    """What a converted model starts training from, beyond copies of its weights."""

    equalise: bool = field(
        default=False,
        metadata=key("move per-input scales from 1-bit weights into what comes before them; the float model stays"),
    )
    scales: str = field(
        default="absmean", metadata=key("mean magnitude, or least squares on calibration text", "absmean", "als")
    )
    latents: str = field(
        default="copy",
        metadata=key(
            "the weights, or weights whose codes make up for each other's errors (GPTQ)", "copy", "error_feedback"
        ),
    )
    calibration_rows: int = field(default=32, metadata=key("rows of training text that are looked at"))
    damping: float = field(
        default=0.01, metadata=key("error_feedback: damping of the inputs' second moments, in units of their mean")
    )


@dataclass
class BlockwiseConfig:
    """Training each decoder block alone to give what the full-precision block gives, before all train together."""

    enabled: bool = field(default=False, metadata=key("reconstruct blocks before training end to end"))
    steps: int = field(default=100, metadata=key("optimiser steps per block"))
    rows: int = field(default=256, metadata=key("rows of training text"))
    batch_rows: int = field(default=8, metadata=key("rows per optimiser step"))
    lr: float | None = field(default=None, metadata=key("peak learning rate; null = 2 mean|W| / steps, of each block"))
    loss: str = field(
        default="token_mse",
        metadata=key("squared error over mean square: token by token, or of the batch", "token_mse", "mse"),
    )
    fp_inputs: float = field(default=0.0, metadata=key("share of rows a block reads from the full-precision model"))
    memory_mb: int = field(default=2048, metadata=key("hidden states beyond this many MB lie in a file of the run"))


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
        default=None, metadata=key("files: file, folder or glob; hub: dataset id; self: prompt texts")
    )
    validation_path: str | None = field(default=None, metadata=key("files: held-out rows of their own"))
    name: str | None = field(default=None, metadata=key("hub: configuration name of the dataset"))
    split: str = field(default="train", metadata=key("hub: split to train on"))
    validation_split: str | None = field(default=None, metadata=key("hub: split to validate on"))
    kind: str = field(
        default="auto", metadata=key("shape of a row; auto = by its fields", "auto", "text", "chat", "instruction")
    )
    text_field: str | None = field(
        default=None, metadata=key("column of the text; null = found by its usual names, as all columns below")
    )
    messages_field: str | None = field(default=None, metadata=key("column of a chat's messages"))
    prompt_field: str | None = field(default=None, metadata=key("column of an instruction"))
    input_field: str | None = field(default=None, metadata=key("column of an instruction's input"))
    answer_field: str | None = field(default=None, metadata=key("column of an instruction's answer"))
    system_field: str | None = field(default=None, metadata=key("column of the system prompt"))
    context_tokens: int = field(default=256, metadata=key("tokens per row"))
    min_tokens: int = field(default=16, metadata=key("text: windows shorter than this many tokens are dropped"))
    validation_fraction: float = field(default=0.05, metadata=key("share of rows held out, by a hash of their content"))
    max_documents: int | None = field(default=None, metadata=key("documents read at most; null = all"))
    max_train_rows: int | None = field(default=None, metadata=key("rows trained on at most; null = all"))
    max_validation_rows: int | None = field(default=None, metadata=key("rows held out at most; null = all"))
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
        metadata=key("another model of the same vocabulary, as `model.source` names one; null = the model itself"),
    )
    cache: str = field(
        default="none",
        metadata=key("topk = keep the likeliest tokens of every row on disk, for `loss.kl` alone", "none", "topk"),
    )
    top_k: int = field(default=64, metadata=key("tokens kept per position; the others share one bucket"))
    cache_dir: str | None = field(
        default=None, metadata=key("folder of kept answers, shared by runs; null = the run's own cache")
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
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95], metadata=key("AdamW decay rates"))
    weight_decay: float = field(
        default=0.0,
        metadata=key("weight decay of LoRA factors and unconverted matrices; latents and scales never decay"),
    )
    clip_norm: float = field(default=1.0, metadata=key("largest gradient norm; 0 = no clipping"))


@dataclass
class TrainerConfig:
    """How long, how wide, on what."""

    max_steps: int = field(default=300, metadata=key("optimiser steps, unless `max_tokens` or `max_minutes` is given"))
    max_tokens: int | None = field(default=None, metadata=key("tokens read, padding included; sets the steps"))
    max_minutes: float | None = field(
        default=None, metadata=key("minutes of training steps, timed at the start; sets the steps")
    )
    batch_rows: int = field(default=16, metadata=key("rows per optimiser step"))
    micro_rows: int = field(default=16, metadata=key("rows per forward pass"))
    precision: str = field(default="fp32", metadata=key("arithmetic of training", "fp32", "bf16", "32", "bf16-mixed"))
    validate_every_steps: int = field(default=100, metadata=key("steps between validations; 0 = none"))
    save_every_steps: int = field(default=100, metadata=key("steps between checkpoints"))
    log_every_steps: int = field(default=1, metadata=key("steps between lines of metrics"))
    keep_last: int = field(default=2, metadata=key("checkpoints kept"))
    divergence_nats: float | None = field(
        default=3.0, metadata=key("stop when the loss stays so many nats per token above its best; null = never")
    )
    divergence_steps: int = field(default=20, metadata=key("steps in a row that it must stay there"))
    seed: int = field(default=0, metadata=key("seed of data order and initial factors"))
    resume: str = field(
        default="never",
        metadata=key("auto = from the newest whole checkpoint of the run directory; or a checkpoint's path"),
    )
    accelerator: str = field(default="auto", metadata=key("device kind", "auto", "cpu", "gpu"))
    devices: int = field(default=1, metadata=key("number of devices"))
    strategy: str = field(default="auto", metadata=key("Lightning strategy: auto, ddp, fsdp, ..."))
    num_threads: int | None = field(default=None, metadata=key("CPU threads; null = what torch takes"))


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
        default_factory=dict, metadata=key("kind `custom`: a Lightning logger as `_target_` and its arguments")
    )


@dataclass
class ExportConfig:
    """What is written at the end."""

    format: str = field(
        default="packed",
        metadata=key(
            "packed = our own folder, which the others are written from; gguf = llama.cpp; hf_bitnet = transformers "
            "alone; plain = dense weights; c_array = firmware; gguf_adapter = the adapter of `lora_outside`",
            "packed",
            "gguf",
            "hf_bitnet",
            "plain",
            "c_array",
            "gguf_adapter",
        ),
    )
    force: bool = field(default=False, metadata=key("replace an artefact that is there already"))
    out: str | None = field(
        default=None, metadata=key("folder to write; null = exports/FORMAT in the run, or beside the packed folder")
    )
    embedding: str = field(
        default="exact",
        metadata=key("a token embedding that is not 1-bit: as trained, or rounded to int8 per row", "exact", "int8"),
    )
    head: str = field(
        default="exact",
        metadata=key("a head that is not 1-bit; where it is tied to the embedding, both are one", "exact", "int8"),
    )
    type: str = field(
        default="auto",
        metadata=key(
            "gguf: block type of the 1-bit layers; auto = the smallest that all of them fit",
            "auto",
            "q1_0",
            "q2_0",
            "tq1_0",
            "tq2_0",
        ),
    )
    tables: str = field(
        default="exact",
        metadata=key("gguf: a float embedding or head as it is stored, or rounded", "exact", "f16", "q8_0"),
    )
    pre_tokenizer: str | None = field(
        default=None, metadata=key("gguf: llama.cpp's name of the pre-tokenizer; null = found by its rules")
    )
    linear_class: str = field(
        default="autobitlinear",
        metadata=key("hf_bitnet: convention of `weight_scale`", "autobitlinear", "bitlinear"),
    )
    dtype: str = field(
        default="bfloat16", metadata=key("plain: type of the dense weights", "bfloat16", "float16", "float32")
    )
    push_to_hub: str | None = field(
        default=None, metadata=key("OWNER/NAME on the Hugging Face hub to upload the folder to; null = nowhere")
    )


@dataclass
class EvaluateConfig:
    """What the 1-bit model is worth, beside the model it was made from."""

    max_tokens: int = field(default=32768, metadata=key("tokens scored at most, of each text"))
    text: str | None = field(default=None, metadata=key("text file to score instead of the held-out split"))
    texts: list[str] = field(default_factory=list, metadata=key("further text files to score, such as [wiki.test.raw]"))
    window_tokens: int | None = field(
        default=None, metadata=key("tokens of a window of a text file; null = `data.context_tokens`")
    )
    window_overlap: bool = field(
        default=True,
        metadata=key("predict every token of a text file; false = windows side by side, as figures are published"),
    )
    against: str | None = field(
        default=None,
        metadata=key("model to compare with, as `model.source` names one; null = the run's original; none = no model"),
    )
    choices: list[str] = field(
        default_factory=list, metadata=key("multiple choice: JSON-lines files of question, choices, answer")
    )
    max_questions: int | None = field(
        default=None, metadata=key("questions asked at most of each file, evenly spread; null = all")
    )
    prompts: list[str] = field(
        default_factory=list, metadata=key("prompts to write on: QMSum, HumanEval, MT-bench, or `prompt` JSON lines")
    )
    num_prompts: int = field(default=4, metadata=key("prompts of each file, evenly spread"))
    prompt_new_tokens: int = field(default=128, metadata=key("tokens written at most after each prompt"))
    prompt_tokens: int | None = field(
        default=None, metadata=key("tokens of a prompt at most; null = what the model's context leaves")
    )
    report: str | None = field(
        default=None, metadata=key("folder for report.md and report.html; null = the run directory, if there is one")
    )


@dataclass
class ValidateConfig:
    """Proof that the artefact computes what was trained."""

    num_prompts: int = field(default=32, metadata=key("prompts whose logits are compared"))
    new_tokens: int = field(default=16, metadata=key("tokens continued greedily per prompt"))
    num_tokens: int = field(default=2048, metadata=key("tokens whose perplexity is compared"))
    all_isas: bool = field(default=True, metadata=key("check the integers on every instruction set of this CPU"))
    native_tokens: int = field(
        default=16, metadata=key("tokens that the native runtime and torch continue each of ten prompts by")
    )
    against: str | None = field(default=None, metadata=key("merged model to compare with; null = the run's own"))


@dataclass
class SensitivityConfig:
    """Which parts of a model suffer most, measured without training."""

    max_tokens: int = field(default=512, metadata=key("held-out tokens each trial is measured on, at most"))
    layers: bool = field(default=False, metadata=key("try every layer on its own too, besides families and blocks"))
    extra_mb: float | None = field(
        default=None, metadata=key("megabytes that the suggestion may add; null = `sensitivity.extra_share`")
    )
    extra_share: float = field(
        default=0.25, metadata=key("what the suggestion may add, as a share of the packed layers' bytes")
    )


@dataclass
class GenerateConfig:
    """How text is continued."""

    prompt: str = field(default="def main(", metadata=key("text to continue"))
    max_new_tokens: int = field(default=64, metadata=key("new tokens at most"))
    temperature: float = field(default=0.0, metadata=key("0 = greedy"))
    top_k: int = field(default=0, metadata=key("candidates kept; 0 = all"))
    top_p: float = field(default=1.0, metadata=key("probability mass kept"))
    min_p: float = field(default=0.0, metadata=key("least probability kept, as a share of the likeliest's; 0 = all"))
    seed: int = field(default=0, metadata=key("seed of sampling"))
    chat: bool = field(default=False, metadata=key("wrap the prompt in the chat template"))
    stop: list[str] = field(default_factory=list, metadata=key("strings that end the text, which ends before them"))
    engine: str = field(
        default="auto",
        metadata=key("what computes; auto = native if the artefact fits, else hf", "auto", "native", "hf"),
    )
    threads: int | None = field(default=None, metadata=key("threads of the native engine; null = every core"))
    prompt_cache: str | None = field(
        default=None, metadata=key("file that keeps what the native engine computed of the prompt; read or written")
    )


@dataclass
class BenchConfig:
    """How fast the packed model is, and its peers."""

    prompt_tokens: int = field(default=128, metadata=key("tokens of the prefill"))
    new_tokens: int = field(default=64, metadata=key("tokens decoded, after a prompt of one token"))
    repeats: int = field(default=5, metadata=key("timed runs of each; figures are medians"))
    threads: list[int] = field(default_factory=list, metadata=key("numbers of threads; empty = 1 and every core"))
    isas: list[str] = field(
        default_factory=list, metadata=key("instruction sets; empty = every compiled one that this CPU has")
    )
    contexts: list[int] = field(
        default_factory=list, metadata=key("also time a token after so many tokens, such as [128,1024,8192]")
    )
    against: str | None = field(default=None, metadata=key("float model to compare with, as `model.source` names one"))
    gguf: str | None = field(default=None, metadata=key("GGUF file that `llama-bench` runs beside ours"))
    llama_bench: str | None = field(
        default=None, metadata=key("llama.cpp's program; null = BITNET_TRAIN_LLAMA_BENCH, or `llama-bench` on the PATH")
    )


@dataclass
class DebugConfig:
    """Looking inside; BITNET_DEBUG=1 switches it on too."""

    enabled: bool = field(default=False, metadata=key("print and log per-layer telemetry"))
    every_steps: int = field(default=50, metadata=key("steps between prints"))


@dataclass
class RunConfig:
    """Where a run writes; nothing outside it is written."""

    root: str = field(default="runs", metadata=key("folder of all runs"))
    name: str | None = field(default=None, metadata=key("folder name of the run; null = the time it starts"))
    dir: str | None = field(default=None, metadata=key("run directory; null = root/recipe/name"))


@dataclass
class Config:
    """Everything a stage may read."""

    recipe: str = field(default="none", metadata=key("name of the recipe; set by the command line's first word"))
    model: ModelConfig = field(default_factory=ModelConfig)
    weight: WeightConfig = field(default_factory=WeightConfig)
    activation: ActivationConfig = field(default_factory=ActivationConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    init: InitConfig = field(default_factory=InitConfig)
    blockwise: BlockwiseConfig = field(default_factory=BlockwiseConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    sensitivity: SensitivityConfig = field(default_factory=SensitivityConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    bench: BenchConfig = field(default_factory=BenchConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
    run: RunConfig = field(default_factory=RunConfig)
    path: str | None = field(default=None, metadata=key("directory named on the command line: a run or an artefact"))
    quiet: bool = field(default=False, metadata=key("print nothing for people"))
    dry_run: bool = field(default=False, metadata=key("train: report what would happen, then stop"))


CALL_KEYS = ("path", "quiet", "dry_run")  # set by the command line's words and flags, never by a file
