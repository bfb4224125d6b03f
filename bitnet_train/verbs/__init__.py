"""THE table of verbs: what each does, what its first word may name, examples. Help, dispatch, tests run over it.

One file a verb, in pipeline order below. Each stage reads what earlier stages left in the run directory, does one
thing, writes its facts there as JSON and returns them. Text for people goes through `console` and is silent with
`--quiet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from keyword import iskeyword
from types import MappingProxyType

RECIPE = "RECIPE, recipe.yaml, or run directory"
RUN = "run directory"
MODEL = "run or artefact directory"
ANY_MODEL = "run or artefact directory, export, or GGUF file"
SOURCE = "GGUF file or Hugging Face folder"
TALKS = "run or artefact directory, GGUF file, Hugging Face folder, or tiny"

WORD_KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        RECIPE: ("none", "recipe", "run"),
        RUN: ("run",),
        MODEL: ("run", "artefact"),
        ANY_MODEL: ("run", "artefact", "model"),
        SOURCE: ("none", "model"),
        TALKS: ("run", "artefact", "model", "bundled model"),
    }
)

_READ_BY_ALL = ("run", "debug", "trainer.num_threads")
_VARIABLES = "data.chat_template_variables"  # of the text that the finished model is asked with


@dataclass(frozen=True)
class Verb:
    """One row: `word` says what the first word names, "" for none; `is_stage` means that it takes a configuration.

    A verb that works on a recipe opens the model and the text that are named: they must be there. It reads most keys,
    and records the rest for the verbs after it. One that works on what training left records nothing: `reads` has the
    sections and keys that it reads beside those of the run, and another key has no effect there.
    """

    name: str
    summary: str
    word: str
    examples: tuple[str, ...]
    is_stage: bool = True
    many: bool = False  # whether it takes several of that word
    text: str = ""  # what a second word is: the prompt; "" for a verb without one
    dry_run: str = ""  # what `--dry-run` shows; "" for a verb without it
    quick: str = ""  # what `--quick` leaves out; "" for a verb without it
    beside: str = ""  # what `--beside` adds; "" for a verb without it
    writes: bool = True  # into the run that it works on, if it works on one
    reads: tuple[str, ...] = ()  # see above
    reads_anyway: tuple[str, ...] = ()  # keys that have an effect here where they are idle elsewhere

    @property
    def opens_inputs(self) -> bool:
        """Whether it opens the model and the text that the configuration names."""
        return self.word == RECIPE

    @property
    def function(self) -> str:
        """The function that does it, and the file of this room that it is in."""
        return f"{self.name}_" if iskeyword(self.name) else self.name


@dataclass(frozen=True)
class Call:
    """What was asked: a verb, the words that name things, the `key=value` words, the flags."""

    verb: Verb
    words: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    json: bool = False
    quiet: bool = False
    dry_run: bool = False
    quick: bool = False
    beside: bool = False
    keys: bool = False
    prompt: str | None = None  # text to continue; `-` = what comes on standard input


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        verb.name: verb
        for verb in (
            Verb(
                "run",
                "the whole way: convert, train, merge, export, validate, compare",
                RECIPE,
                (
                    "run quickstart",
                    "run quickstart --quick",
                    "run my_recipe.yaml weight=ternary_row trainer.max_steps=1000",
                ),
                quick="a first result in about a minute: little training, less text, a smaller proof (`debug=quick`)",
            ),
            Verb(
                "train",
                "convert and train only; on a run directory, continue it",
                RECIPE,
                ("train quickstart run.dir=runs/mine", "train quickstart --dry-run", "train runs/mine"),
                dry_run="show size, tokens, memory, first row; train nothing",
            ),
            Verb(
                "sweep",
                "try values of keys in short trainings, a run each, and keep the best as a recipe",
                "RECIPE, recipe.yaml, or folder of a sweep",
                (
                    "sweep quickstart optimizer.lr=5e-4..5e-3 trainer.max_steps=100 trainer.validate_every_steps=20",
                    "sweep smollm2_binary_full weight=binary_group64,binary_group128 optimizer.lr=1e-4..1e-3/3 "
                    "sweep.sampler=grid sweep.dir=runs/my_sweep",
                    "sweep runs/my_sweep",
                ),
                False,
                dry_run="show what would be tried; train nothing",
            ),
            Verb(
                "convert",
                "show which layers become 1-bit and what plain swapping costs",
                RECIPE,
                ("convert smollm2_binary_full model.source=./smollm2.gguf",),
            ),
            Verb(
                "sensitivity",
                "show which families and blocks suffer most from 1-bit weights, and what a few megabytes would buy",
                RECIPE,
                (
                    "sensitivity quickstart",
                    "sensitivity smollm2_binary_full sensitivity.max_tokens=1024 sensitivity.extra_mb=2",
                ),
            ),
            Verb(
                "reconstruct",
                "train block by block only, from files and into files: for a model larger than memory",
                RECIPE,
                (
                    "reconstruct smollm2_binary_full model.source=./big_model data=files data.path=corpus.txt",
                    "reconstruct runs/mine",
                ),
                dry_run="show which layers become 1-bit, and the budget; train nothing",
                reads_anyway=("blockwise.",),
            ),
            Verb(
                "merge",
                "fold the adapters of a trained run into its latents",
                RUN,
                ("merge runs/mine",),
                reads=_READ_BY_ALL,
            ),
            Verb(
                "export",
                "pack the merged model of a run, or write it for llama.cpp, transformers, firmware",
                MODEL,
                ("export runs/mine", "export runs/mine export=gguf export.type=q1_0", "export ./artefact export=plain"),
                reads=(*_READ_BY_ALL, "export", "logger"),
            ),
            Verb(
                "import",
                "bring a model that is 1-bit already in, as a packed folder",
                SOURCE,
                ("import ./bonsai.gguf", "import model.source=OWNER/NAME run.dir=runs/theirs"),
            ),
            Verb(
                "validate",
                "prove that the packed folder computes what was trained, and that exports hold its weights",
                ANY_MODEL,
                (
                    "validate runs/mine",
                    "validate ./artefact validate.num_prompts=200",
                    "validate ./model.gguf validate.against=./artefact",
                ),
                reads=(*_READ_BY_ALL, "validate", "logger"),
            ),
            Verb(
                "evaluate",
                "the packed model beside its original: perplexity, agreement, multiple choice, texts; and a report",
                MODEL,
                (
                    "evaluate runs/mine",
                    "evaluate runs/mine evaluate.texts=[wiki.test.raw] window_tokens=2048 window_overlap=false",
                    "evaluate runs/mine evaluate.choices=[arc.jsonl] evaluate.prompts=[HumanEval.jsonl.gz,qmsum.jsonl]",
                    "evaluate ./artefact evaluate.texts=[./book.txt] evaluate.against=./original report=./report",
                ),
                reads=(
                    *(*_READ_BY_ALL, "evaluate", "logger", "generate.prompt", "generate.engine", "generate.threads"),
                    *("generate.max_new_tokens", "data.context_tokens", _VARIABLES),
                ),
                reads_anyway=(_VARIABLES,),
            ),
            Verb(
                "generate",
                "continue a prompt with the packed model",
                MODEL,
                (
                    'generate runs/mine "def read_lines(path):"',
                    "generate runs/mine --prompt -",
                    "generate ./artefact generate.temperature=0.8 generate.min_p=0.1 generate.stop=[END,STOP]",
                ),
                text="TEXT",
                writes=False,
                reads=(*_READ_BY_ALL, "generate", _VARIABLES),
                reads_anyway=(_VARIABLES,),
            ),
            Verb(
                "serve",
                "answer programs that ask as they ask OpenAI: chats and texts, many at once",
                "MODEL ...",
                (
                    "serve runs/mine",
                    "serve ./artefact ./model.gguf serve.port=8000 serve.most_models=2",
                    "serve ./artefact serve.host=0.0.0.0 serve.key_file=./key",
                ),
                False,
                many=True,
                reads=("serve", "generate.engine", "generate.threads", "generate.cache_dtype", _VARIABLES),
                reads_anyway=(_VARIABLES,),
            ),
            Verb(
                "chat",
                "talk to a model in the terminal: history, several lines, /commands; the original beside it",
                TALKS,
                (
                    "chat runs/mine",
                    "chat runs/mine --beside generate.temperature=0.7",
                    "chat ./model.gguf chat.answer_tokens=1024 chat.history=~/.chat_history",
                ),
                beside="the original model answers too: `model.source` of the run, or `chat.against`",
                writes=False,
                reads=(
                    *(*_READ_BY_ALL, "chat", _VARIABLES),
                    *(f"generate.{key}" for key in ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")),
                    *(f"generate.{kind}_penalty" for kind in ("repetition", "frequency", "presence")),
                    *("generate.logit_bias", "generate.stop"),
                    *("generate.engine", "generate.threads", "generate.cache_dtype"),
                ),
                reads_anyway=(_VARIABLES,),
            ),
            Verb(
                "playground",
                "a page in the browser: upload a model, swap its layers, see what one bit costs and what it gains",
                "MODEL ...",
                (
                    "playground",
                    "playground ./smollm2.gguf runs/mine",
                    "playground tiny serve.port=9000 playground.dir=./play",
                ),
                False,
                many=True,
                reads=(
                    *("run.root", "playground"),
                    *("serve.host", "serve.port", "serve.key_file", "serve.hosts", "serve.origins"),
                ),
            ),
            Verb(
                "bench",
                "tokens per second and memory, per instruction set and threads, beside a float model and llama.cpp",
                MODEL,
                ("bench runs/mine", "bench ./artefact bench.threads=[1,2] bench.against=tiny bench.gguf=./model.gguf"),
                reads=(*_READ_BY_ALL, "bench", "logger"),
            ),
            Verb(
                "report",
                "make the page of a run anew (curves, layers, sizes, texts), also while it trains; or compare several",
                "RUN ...",
                (
                    "report runs/mine",
                    "report runs/mine runs/other",
                    "report runs/mine runs/other report.to=./compared.html",
                ),
                False,
                many=True,
                reads=("report",),
            ),
            Verb(
                "ls",
                "list recipes, groups with their choices, and runs",
                "recipes, runs, or a GROUP",
                ("ls", "ls weight"),
                False,
            ),
            Verb(
                "show",
                "print the composed configuration and where each value came from",
                "RECIPE, recipe.yaml, run or artefact directory",
                ("show quickstart weight=ternary_row", "show --keys"),
                False,
            ),
            Verb(
                "cp",
                "copy a recipe here to edit it",
                "RECIPE [FILE]",
                ("cp quickstart", "cp quickstart my_recipe.yaml"),
                False,
            ),
            Verb("doctor", "check this machine: versions, kernel, disk, tracking, GPU", "", ("doctor",), False),
        )
    }
)
