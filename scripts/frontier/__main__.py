"""Measure llama.cpp's types of a model, and packed folders made from it, on the same tokens; write a result file.

    export BITNET_TEST_LLAMA_CPP="$(scripts/build_llama_cpp --native)"
    python -m scripts.frontier --original MODEL.gguf --work DIR --text NAME=PATH ... --importance TEXT
    python -m scripts.frontier --original MODEL.gguf --work DIR --text NAME=PATH ... --add NAME=PACKED_FOLDER ...

The first measures llama.cpp's types, quantised from the original with an importance matrix of TEXT; the second adds
packed folders to the same file. A text is UTF-8, or documents as *.jsonl or *.jsonl.gz. Of each model it is measured

    size       bytes on disk with tokenizer and settings; bits per weight over all parameters of the original
    quality    perplexity, its ratio to the original's, KL from it, and equal first choices, by `bitnet_train.evaluate`
    decode     tokens a second, in turn with the others of the run

Each side is compared with its own figure of the original: llama.cpp's types with the original in llama.cpp, which has
its own defaults (keys and values in float16, flash attention); packed folders with its weights as floats in
transformers, as `bitnet-train evaluate` does. Token ids are those of our tokenizer, led by BOS where it has one. The
files that are made and the original's logits (4 bytes for each token of the texts and each of the vocabulary, 3 GB a
text and side of SmolLM2) stay in --work for the next run, which may add types, folders and texts. `--only decode` times
what was measured before, for when the machine has nothing else to do.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from bitnet_train.errors import BitnetTrainError, ConfigError
from scripts import RESULTS
from scripts.frontier.quantised import TYPES
from scripts.frontier.run import Run
from scripts.llama_cpp.libllama_api import libllama


def named(word: str) -> tuple[str, Path]:
    """Read NAME=PATH."""
    name, _, path = word.partition("=")
    if not (name and path):
        raise argparse.ArgumentTypeError(f"{word!r} is not NAME=PATH")
    return name, Path(path)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; without `--types`, all of them, or none beside `--add`."""
    parser = argparse.ArgumentParser(
        "python -m scripts.frontier", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, required=True, metavar="FILE.gguf")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is made, kept between runs")
    parser.add_argument("--text", type=named, action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--types", nargs="*", choices=TYPES, help="llama.cpp's types; all if left out without --add")
    parser.add_argument("--add", type=named, action="append", default=[], metavar="NAME=FOLDER", help="packed folder")
    parser.add_argument("--importance", type=Path, metavar="TEXT", help="text of the importance matrix, no test text")
    parser.add_argument("--importance-tokens", type=int, default=30_000)
    parser.add_argument("--window", type=int, default=2048, help="tokens of a window")
    parser.add_argument("--windows", type=int, default=8, help="windows of each text, from its start")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=("quality", "decode"), help="leave out the other")
    parser.add_argument("--rounds", type=int, default=3, help="times that decoding is timed in turn")
    parser.add_argument("--repeats", type=int, default=2, help="timed runs in a round")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens of a timed run")
    parser.add_argument("--out", type=Path, default=RESULTS / "frontier_smollm2.json")
    options = parser.parse_args(words)
    if options.types is None:
        options.types = [] if options.add else list(TYPES)
    return options


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be measured; ConfigError names the option and what to do."""
    if not options.original.is_file():
        raise ConfigError(f"`--original`: there is no file {options.original}. Give the GGUF that all are made from.")
    if options.types and options.importance is None:
        raise ConfigError(
            "`--importance` is missing: llama.cpp's types want an importance matrix, and those below 3 bits need it. "
            "Name a text that is not measured on."
        )
    for numbers, least in ((("window", "importance_tokens"), 2), (("windows", "threads", "rounds", "repeats"), 1)):
        for name in numbers:
            if getattr(options, name) < least:
                raise ConfigError(f"`--{name.replace('_', '-')}={getattr(options, name)}`: give {least} or more.")
    for option in ("text", "add"):
        names = [name for name, _ in getattr(options, option)]
        if len(set(names)) < len(names):
            raise ConfigError(f"`--{option}` has a name twice among {', '.join(names)}. Give each a name of its own.")


def main(words: list[str] | None = None) -> None:
    """Measure what is named."""
    options = arguments(words)
    try:
        check(options)
        if options.types:
            libllama()
        torch.set_num_threads(options.threads)
        run = Run(options)
        if options.only != "decode":
            run.measure_types()
            run.measure_folders()
        if options.only != "quality":
            run.time()
    except (BitnetTrainError, RuntimeError, FileNotFoundError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
