"""One call of the script: what it compares is read and checked first, then measured and written point by point."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from bitnet_train.bench.timing import Workload
from bitnet_train.errors import ConfigError
from bitnet_train.importers.load import load_pretrained
from bitnet_train.packed.reader import hash_file, read_manifest
from bitnet_train.runtime.load import load, load_tokenizer
from scripts.bench.machine_facts import describe_run
from scripts.frontier.decode import Timed, gguf_contender, packed_contender, time_in_turn
from scripts.frontier.engines import LlamaCppModule, Recorded
from scripts.frontier.measure import perplexities, quality
from scripts.frontier.quantised import Quantiser
from scripts.frontier.result import LLAMA_CPP, ORIGINAL, OURS, Facts, Result
from scripts.frontier.sizes import folder_size, gguf_parameters, gguf_size
from scripts.frontier.texts import cut, read_text
from scripts.llama_cpp.libllama import LlamaCpp
from scripts.llama_cpp.libllama_api import VERSION, library_file


class Run:
    """Types and packed folders of one original, and the result file that they go to."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Read all that `options` name; raises errors for people, of the option that is wrong."""
        self._options = options
        self._folders: dict[str, Path] = dict(options.add)
        self._types: list[str] = options.types
        texts = {name: read_text(path, f"--text {name}") for name, path in options.text}
        for folder in self._folders.values():
            read_manifest(folder)
        self._source = load_pretrained(str(options.original))
        tokenizer = self._source.tokenizer
        for name, folder in self._folders.items():
            _require_same_tokens(name, folder, tokenizer)
        sizes = {"window_tokens": options.window, "num_windows": options.windows}
        self._texts = [cut(name, text, tokenizer, **sizes) for name, text in texts.items()]
        self._sha256 = hash_file(options.original)
        self._parameters = gguf_parameters(options.original)
        self._quantiser = self._make_quantiser(tokenizer) if self._types else None
        facts = {text.name: text.facts() for text in self._texts}
        self._result = Result(options.out, self._original_facts(), facts, self._run_facts())
        self._require_measured()

    def measure_types(self) -> None:
        """Make and measure every type beside llama.cpp's own logits of the original."""
        if self._quantiser is None:
            return
        with ExitStack() as opened:
            original = self._original(
                LLAMA_CPP, lambda: LlamaCppModule(opened.enter_context(self._open(self._options.original)))
            )
            for name in self._types:
                try:
                    file = self._quantiser.file(name, self._options.threads)
                    model = self._open(file)
                except ValueError as error:
                    self._refuse(name, str(error))
                    continue
                with model:
                    found = quality(LlamaCppModule(model), original, self._texts, name)
                self._put(name, LLAMA_CPP, self._file_facts(file), found)

    def measure_folders(self) -> None:
        """Measure every packed folder beside the original's weights as floats, as `bitnet-train evaluate` does."""
        if not self._folders:
            return
        original = self._original(OURS, lambda: self._source.model)
        for name, folder in self._folders.items():
            found = quality(load(folder), original, self._texts, name)
            size = folder_size(folder).facts(self._parameters)
            manifest = read_manifest(folder)
            self._put(name, OURS, {"sha256": manifest.sha256, "recipe": manifest.recipe, **size}, found)

    def time(self) -> None:
        """Time all of this run in turn, and with llama.cpp's types the original."""
        for label, decode in time_in_turn(self._contenders(), self._options.rounds).items():
            self._result.time(label, decode)
            _say(f"{label}: {decode['tokens_per_s']:.1f} tokens/s, others kept {decode['others_cores']:.2f} cores busy")

    def _contenders(self) -> dict[str, Timed]:
        options = self._options
        workload = Workload(1, options.new_tokens, options.repeats)
        found: dict[str, Timed] = {}
        if self._quantiser is not None:
            files = {name: self._quantiser.file(name, options.threads) for name in self._types if name in self._result}
            for name, file in {ORIGINAL: options.original, **files}.items():
                found[name] = gguf_contender(file, options.threads, workload)
        for name, folder in self._folders.items():
            found[name] = packed_contender(folder, options.threads, workload)
        return found

    def _original(self, side: str, make: Callable[[], nn.Module]) -> Recorded:
        """Return the original as one side computes it, and state its own perplexity."""
        folder = self._options.work / f"logits-{side}-{self._sha256[:12]}"
        original = Recorded(make, self._source.model.config.vocab_size, folder)
        texts = [text for text in self._texts if not self._result.states(side, text.name)]
        self._result.state_original(side, perplexities(original, texts, f"{ORIGINAL}, {side}"))
        return original

    def _file_facts(self, file: Path) -> Facts:
        return {"sha256": hash_file(file), **gguf_size(file).facts(self._parameters)}

    def _open(self, file: Path) -> LlamaCpp:
        options = self._options
        return LlamaCpp(file, context_tokens=options.window, num_threads=options.threads, own_attention=True)

    def _make_quantiser(self, tokenizer: PreTrainedTokenizerBase) -> Quantiser:
        options = self._options
        return Quantiser(
            options.original, self._sha256, options.importance, options.importance_tokens, tokenizer, options.work
        )

    def _original_facts(self) -> Facts:
        path = self._options.original
        return {"name": path.name, "parameters": self._parameters, **self._file_facts(path)}

    def _run_facts(self) -> Facts:
        told = argparse.Namespace(**vars(self._options))
        told.add, told.text = list(self._folders), [text.name for text in self._texts]  # no path gets into the file
        file = library_file()
        return {
            **describe_run(told),
            "llama_cpp": {"version": VERSION, "build": file.parent.name} if file and self._types else None,
            "importance": self._quantiser.facts() if self._quantiser else None,
        }

    def _require_measured(self) -> None:
        """Refuse to time a folder whose quality is not known."""
        for name in self._folders:
            if self._options.only == "decode" and name not in self._result:
                raise ConfigError(
                    f"`--only decode --add {name}`: {self._options.out} has no such point. Measure it first, without "
                    "`--only decode`."
                )

    def _put(self, label: str, side: str, size: Facts, found: Facts) -> None:
        self._result.put(label, side, size, found)
        figures = ", ".join(f"{each['ratio']:.3f} on {name}" for name, each in found.items())
        _say(f"{label}: {size['file_bytes'] / 1e6:.1f} MB, ratio {figures}")

    def _refuse(self, label: str, reason: str) -> None:
        self._result.refuse(label, reason)
        _say(f"{label}: {reason}")


def _require_same_tokens(name: str, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    if load_tokenizer(folder).get_vocab() != tokenizer.get_vocab():
        raise ConfigError(
            f"`--add {name}={folder}` has another vocabulary than `--original`, so perplexities do not compare. Name a "
            "folder that was made from that model."
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
