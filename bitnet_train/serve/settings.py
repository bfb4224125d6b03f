"""Settings of what answers over the network or in a terminal: the sections `serve`, `chat` and `playground`.

A key (of the kind that opens a door) is no setting: configurations are saved and shown. It comes from the environment,
BITNET_TRAIN_KEY, or from a file that is named here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bitnet_train.settings import require_allowed, setting


@dataclass(frozen=True)
class ServeConfig:
    """Where models answer, and what a request may take."""

    host: str = setting("127.0.0.1", "address to listen on; another than this machine's own needs a key")
    port: int = setting(8080, "port to listen on; 0 = a free one", at_least=0, at_most=65535)
    key_file: str | None = setting(
        None, "file whose first line every request must show; null = BITNET_TRAIN_KEY, or none", path=True
    )
    names: tuple[str, ...] = setting((), "names of the models, in their order; empty = what they lie under is called")
    hosts: tuple[str, ...] = setting((), "further host names that requests may ask for")
    origins: tuple[str, ...] = setting((), "web pages that may ask from a browser, such as [http://localhost:3000]")
    most_models: int = setting(1, "models in memory at once; the least recently used makes room", at_least=1)
    most_texts: int = setting(16, "texts of a model that are written at once", at_least=1, at_most=256)
    most_waiting: int = setting(128, "texts of a model that wait for that; more are refused", at_least=0)
    most_tokens: int | None = setting(
        None, "tokens of a prompt and its answer together; null = the model's context", at_least=2
    )
    most_seconds: float = setting(600.0, "seconds until a text ends where it is, the wait included", above=0)
    cache_mb: float = setting(1024.0, "megabytes of keys and values of all texts of a model", above=0)
    prefill_tokens: int = setting(64, "tokens of new prompts that are read in one step of all texts", at_least=1)
    most_body_mb: float = setting(4.0, "megabytes of a request", above=0)
    worker_mb: float | None = setting(
        None, "megabytes of memory of the process of a model, which ends beyond; null = no limit", above=0
    )

    def __post_init__(self) -> None:
        require_allowed(self, "serve")


@dataclass(frozen=True)
class ChatConfig:
    """A chat in a terminal."""

    answer_tokens: int = setting(512, "new tokens of an answer at most", at_least=1)
    when_full: Literal["drop", "refuse"] = setting(
        "drop", "what a conversation longer than the context does: its oldest questions are no longer sent, or refusal"
    )
    beside: bool = setting(False, "let the original answer too, beside the 1-bit model")
    against: str | None = setting(
        None, "model that answers beside it, as `model.source` names one; null = that of the run", path=True, model=True
    )
    conversation: str | None = setting(None, "JSON file of messages to go on with, as `/save` writes it", path=True)
    history: str | None = setting(
        None, "file that keeps what was typed; null = chat_history in the run, without a run none", path=True
    )

    def __post_init__(self) -> None:
        require_allowed(self, "chat")


@dataclass(frozen=True)
class PlaygroundConfig:
    """The playground's page; where it listens, and its key, are those of `serve`."""

    dir: str = setting("runs/playground", "folder of all that the page writes: uploads, jobs, recipes, runs", path=True)
    upload_mb: float = setting(2048.0, "megabytes of an uploaded model", above=0)
    keep_uploads: bool = setting(False, "keep uploaded models when the server ends")
    most_models: int = setting(4, "models that are open at once, each in a process of its own", at_least=1)
    most_jobs: int = setting(64, "jobs that wait or work at once; more are refused", at_least=1)
    worker_mb: float | None = setting(
        None,
        "megabytes of addresses of a model's process, mapped files and libraries too; null = by the size of its file",
        above=0,
    )
    text_tokens: int = setting(512, "tokens that a swap is measured on", at_least=2)

    def __post_init__(self) -> None:
        require_allowed(self, "playground")
