"""What a run may change when it is continued: every key of the schema is in one of four classes.

| class   | keys                                                    | on `train RUN key=value`, once trained |
|---------|---------------------------------------------------------|----------------------------------------|
| fixed   | what trains, on what, towards what: `FIXED`             | refused                                |
| trained | how: `optimizer`, `schedule`, `trainer` but for `FIXED` | said, recorded, used from there on     |
| verbs   | what is done with it: `export`, `logger`, `debug` ...   | said, recorded                         |
| call    | where the run lies and how it was called: `CALL`        | the record keeps its own               |

A later verb (merge, export, evaluate ...) trains nothing: there a fixed or trained key that contradicts the run is
refused (but for `ASKED_ANEW`), and the settings of verbs hold for that call. Two ways to write one value, such as a
relative and an absolute path, are no difference; nor is a file that was moved, where the old place is empty and the new
one is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from bitnet_train.config.paths import path_keys
from bitnet_train.config.suggest import known_keys
from bitnet_train.importers.source import hub_id
from bitnet_train.train.trackers.redaction import redact

Class = Literal["fixed", "trained", "verbs", "call"]
Change = tuple[Any, Any]  # as recorded, as asked for
FIXED = (
    "model",
    "weight",
    "activation",
    "adapter",
    "init",
    "blockwise",
    "data",
    "loss",
    "teacher",
    "optimizer.name",
    "trainer.batch_rows",
    "trainer.products",
    "trainer.short_row_tokens",
    "trainer.short_row_fraction",
    "trainer.seed",
)
TRAINED = ("optimizer", "schedule", "trainer")
MACHINE = ("teacher.cache_dir", "trainer.accelerator", "trainer.num_threads")  # where, not what: free for every verb
SERVING = ("serve", "chat", "playground")
VERBS = (
    "logger",
    "export",
    "evaluate",
    "validate",
    "sensitivity",
    "generate",
    "bench",
    "report",
    "sweep",
    "debug",
    *SERVING,
    *MACHINE,
)
ASKED_ANEW = ("data.chat_template_variables",)  # fixed in training, and free for whoever asks the finished model
CALL = ("recipe", "run", "path", "quiet", "dry_run", "trainer.resume", "export.force")
AS_SETTLED = {
    "trainer.precision": "auto",
    "trainer.products": "auto",
}  # asked so, a continued run keeps what it settled at its start
_ABSENT = object()


def class_of(name: str) -> Class:
    """Return the class of a dotted key; where several entries name it, the longest decides."""
    tables: dict[Class, Iterable[str]] = {"fixed": FIXED, "trained": TRAINED, "verbs": VERBS, "call": CALL}
    named: list[tuple[int, Class]] = [
        (len(entry), kind) for kind, entries in tables.items() for entry in entries if _covers(entry, name)
    ]
    assert named, f"`{name}` is in no class: a new section belongs in a table of {__name__}"
    return max(named)[1]


def names_of(*kinds: Class) -> list[str]:
    """Return every key of these classes."""
    return [name for name in known_keys() if class_of(name) in kinds]


def changes(recorded: Mapping[str, Any], asked: Mapping[str, Any], *kinds: Class) -> dict[str, Change]:
    """Return the keys of these classes whose values differ, by dotted key; what a record lacks is no difference."""
    found = {name: (recorded.get(name, _ABSENT), asked.get(name, _ABSENT)) for name in names_of(*kinds)}
    return {
        name: (before, now)
        for name, (before, now) in found.items()
        if _ABSENT not in (before, now) and not _is_same(name, before, now)
    }


def has_moved(name: str, change: Change) -> bool:
    """Whether a place that the run read lies elsewhere now: nothing is left at the old one."""
    before, now = change
    if name not in path_keys() or not isinstance(before, str) or not isinstance(now, str):
        return False
    old, new = Path(_place(before)), Path(_place(now))
    return new.exists() and not old.exists() and old.name == new.name


def told(found: Mapping[str, Change]) -> str:
    """Return one line a key: `optimizer.lr: 0.0003 -> 0.0001`; what looks like a secret is left out."""
    shown = {name: [_word(redact(value, name)) for value in change] for name, change in found.items()}
    return "\n".join(f"  {name}: {before} -> {now}" for name, (before, now) in shown.items())


def _covers(entry: str, name: str) -> bool:
    return name == entry or name.startswith(f"{entry}.")


def _is_same(name: str, before: Any, now: Any) -> bool:
    if before == now or (name in AS_SETTLED and now == AS_SETTLED[name]):
        return True
    are_paths = name in path_keys() and isinstance(before, str) and isinstance(now, str)
    return are_paths and _place(before) == _place(now)


def _place(word: str) -> str:
    return str(Path(hub_id(word)).expanduser().resolve())


def _word(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
