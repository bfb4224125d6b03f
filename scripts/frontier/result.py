"""The result file: points of both sides that were measured on the same tokens, in one run or in several.

original   its name, hash, parameters and size; `perplexity` by side and text
texts      of each its windows, tokens and the hash of all ids
runs       when, where and how; what was measured names its run by number
points     one a type or folder: its hash and size, its quality by text, and decoding where it was timed
refused    types that llama.cpp does not make of this model, with its words
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bitnet_train.errors import ConfigError
from bitnet_train.whole import write_whole

Facts = dict[str, Any]
LLAMA_CPP, OURS = "llama.cpp", "ours"
ORIGINAL = "the original"


class Result:
    """A result file that is added to, and written whole after every point."""

    def __init__(self, path: Path, original: Facts, texts: dict[str, Facts], run: Facts) -> None:
        """Open `path` for what `run` will measure; ConfigError where it holds another original or other tokens."""
        self._path = path
        self._facts: Facts = {"original": original, "texts": texts, "runs": [], "points": {}, "refused": {}}
        if path.is_file():
            self._facts = json.loads(path.read_text(encoding="utf-8"))
            self._require_same_original(original)
            self._require_same_texts(texts)
            self._facts["texts"] |= texts
        self._run = len(self._facts["runs"])
        self._facts["runs"].append(run)

    def __contains__(self, label: str) -> bool:
        return label in self._facts["points"]

    def states(self, side: str, text: str) -> bool:
        """Whether the original's own perplexity on a text is known as `side` computes it."""
        return text in self._facts["original"].get("perplexity", {}).get(side, {})

    def state_original(self, side: str, perplexity: dict[str, float]) -> None:
        """Keep the original's own perplexity by text, as one side computes it."""
        self._facts["original"].setdefault("perplexity", {}).setdefault(side, {}).update(perplexity)
        self._write()

    def put(self, label: str, side: str, facts: Facts, quality: Facts) -> None:
        """Put a point in the place of what was known of it; of the same bytes, other texts and decoding are kept."""
        self._facts["refused"].pop(label, None)
        known = self._facts["points"].get(label, {})
        kept = known if known.get("sha256") == facts["sha256"] else {}
        point = {"side": side, **facts, "quality": {**kept.get("quality", {}), **quality}, "run": self._run}
        self._facts["points"][label] = {**point, "decode": kept["decode"]} if "decode" in kept else point
        self._write()

    def refuse(self, label: str, reason: str) -> None:
        """Keep why there is no such point."""
        self._facts["points"].pop(label, None)
        self._facts["refused"][label] = reason
        self._write()

    def time(self, label: str, decode: Facts) -> None:
        """Keep how fast a point, or the original, writes."""
        place = self._facts["original"] if label == ORIGINAL else self._facts["points"][label]
        place["decode"] = {**decode, "run": self._run}
        self._write()

    def _write(self) -> None:
        write_whole(self._path, json.dumps(self._facts, indent=1) + "\n")

    def _require_same_original(self, original: Facts) -> None:
        known = self._facts["original"]
        if known["sha256"] != original["sha256"]:
            raise ConfigError(
                f"{self._path} holds points of {known['name']} with the hash {known['sha256'][:12]}; `--original` is "
                f"{original['name']}, {original['sha256'][:12]}. Give the same file, or name another with `--out`."
            )

    def _require_same_texts(self, texts: dict[str, Facts]) -> None:
        known = self._facts["texts"]
        for name in (name for name in texts if name in known):
            if known[name] != texts[name]:
                raise ConfigError(
                    f"{self._path} holds points on other tokens: its text {name} is {_described(known[name])}; now it "
                    f"is {_described(texts[name])}. Give the same `--text`, `--window` and `--windows`, or name "
                    "another file with `--out`."
                )


def _described(text: Facts) -> str:
    return f"{text['windows']} windows of {text['window_tokens']} tokens, hash {text['sha256'][:12]}"
