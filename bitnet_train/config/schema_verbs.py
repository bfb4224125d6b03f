"""Keys of the verbs that follow training: export, evaluate, validate, sensitivity, generate, bench."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitnet_train.config.schema_key import key


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
    also: list[str] = field(
        default_factory=list,
        metadata=key(
            "further formats to write, each beside the packed folder", "gguf", "hf_bitnet", "plain", "c_array"
        ),
    )
    force: bool = field(default=False, metadata=key("replace an artefact that is there already"))
    out: str | None = field(
        default=None,
        metadata=key("folder to write; null = exports/FORMAT in the run, or beside the packed folder", path=True),
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
    text: str | None = field(default=None, metadata=key("text file to score instead of the held-out split", path=True))
    texts: list[str] = field(
        default_factory=list, metadata=key("further text files to score, such as [wiki.test.raw]", path=True)
    )
    window_tokens: int | None = field(
        default=None, metadata=key("tokens of a window of a text file; null = `data.context_tokens`")
    )
    window_overlap: bool = field(
        default=True,
        metadata=key("predict every token of a text file; false = windows side by side, as figures are published"),
    )
    against: str | None = field(
        default=None,
        metadata=key(
            "model to compare with, as `model.source` names one; null = the run's original; none = no model",
            path=True,
            model=True,
        ),
    )
    choices: list[str] = field(
        default_factory=list, metadata=key("multiple choice: JSON-lines files of question, choices, answer", path=True)
    )
    max_questions: int | None = field(
        default=None, metadata=key("questions asked at most of each file, evenly spread; null = all")
    )
    prompts: list[str] = field(
        default_factory=list,
        metadata=key("prompts to write on: QMSum, HumanEval, MT-bench, or `prompt` JSON lines", path=True),
    )
    num_prompts: int = field(default=4, metadata=key("prompts of each file, evenly spread"))
    prompt_new_tokens: int = field(default=128, metadata=key("tokens written at most after each prompt"))
    prompt_tokens: int | None = field(
        default=None, metadata=key("tokens of a prompt at most; null = what the model's context leaves")
    )
    report: str | None = field(
        default=None,
        metadata=key("folder for report.md and report.html; null = the run directory, if there is one", path=True),
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
    against: str | None = field(
        default=None, metadata=key("merged model to compare with; null = the run's own", path=True)
    )


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
    messages: str | None = field(
        default=None,
        metadata=key(
            "JSON file of a chat, a list of messages; where its last is no question, `generate.prompt` is the next",
            path=True,
        ),
    )
    system: str | None = field(default=None, metadata=key("system message of the chat, before all others"))
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
        default=None,
        metadata=key("file that keeps what the native engine computed of the prompt; read or written", path=True),
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
    against: str | None = field(
        default=None, metadata=key("float model to compare with, as `model.source` names one", path=True, model=True)
    )
    gguf: str | None = field(default=None, metadata=key("GGUF file that `llama-bench` runs beside ours", path=True))
    llama_bench: str | None = field(
        default=None,
        metadata=key("llama.cpp's program; null = BITNET_TRAIN_LLAMA_BENCH, or `llama-bench` on the PATH", path=True),
    )
