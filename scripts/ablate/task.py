"""What an ablation tells the process of a trial, and the scratch folder that the trial works in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from bitnet_train.run.directory import RunDirectory


@dataclass(frozen=True)
class Task:
    """A recipe with the words of one trial. `text` is a file to measure on besides the held-out split."""

    recipe: str
    words: list[str]
    run_dir: str
    text: str | None = None
    window_tokens: int = 256
    max_text_tokens: int = 32768

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Task:
        """Inverse of `write`."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def start_directory(folder: Path, cache: Path) -> RunDirectory:
    """Make the run directory of a trial with the token files of earlier trials in its cache, as links."""
    directory = RunDirectory(folder)
    directory.cache.mkdir(parents=True)
    for file in cache.glob("tokens-*"):
        (directory.cache / file.name).hardlink_to(file)
    return directory


def keep_tokens(directory: RunDirectory, cache: Path) -> None:
    """Keep the token files a trial made, and nothing else of its cache: what a lever caches is part of its cost."""
    cache.mkdir(parents=True, exist_ok=True)
    for file in directory.cache.glob("tokens-*.safetensors"):
        if not (cache / file.name).exists():
            (cache / file.name).hardlink_to(file)
