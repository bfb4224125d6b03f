"""`bitnet-train ls`: recipes, groups with their choices, and runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bitnet_train.columns import fold, fold_named
from bitnet_train.config.compose import compose
from bitnet_train.config.layout import groups, recipes
from bitnet_train.config.suggest import did_you_mean
from bitnet_train.errors import ConfigError, FormatError
from bitnet_train.json_text import parse_json
from bitnet_train.run.directory import WITHIN_TRAINING
from bitnet_train.run.result import RunFacts
from bitnet_train.verbs import Call


def ls(call: Call) -> dict[str, Any]:
    """List recipes, choices of groups, and runs; one word narrows the list to one of them."""
    root = Path(compose(overrides=call.overrides).config.run.root)
    lists = {"recipes": _described(recipes()), "runs": _runs(root)}
    lists |= {name: _described(files) for name, files in groups().items()}
    word = call.words[0] if call.words else None
    if word is not None and word not in lists:
        raise ConfigError(f"`ls {word}`: no such list.{did_you_mean(word, lists)} Lists: {', '.join(lists)}.")
    shown = lists if word is None else {word: lists[word]}
    if not call.quiet:
        for name, rows in shown.items():
            _print_rows(name, rows, brief=word is None and name in groups())
    return shown


def _described(files: dict[str, Path]) -> list[dict[str, Any]]:
    return [{"name": name, "what": _first_comment(path)} for name, path in files.items()]


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.removeprefix("#").strip() for line in lines if line.startswith("# ") and "@package" not in line]
    return comments[0] if comments else ""


def _runs(root: Path) -> list[dict[str, Any]]:
    saved = sorted({path for depth in ("*", "*/*", "*/*/*") for path in root.glob(f"{depth}/config.yaml")})
    return [{"name": str(path.parent), "what": _figures(path.parent) or _stages_done(path.parent)} for path in saved]


def _figures(run: Path) -> str | None:
    """Return what a run that went the whole way came to, in a few words."""
    try:
        told = RunFacts.from_dict(parse_json((run / "facts" / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, FormatError):
        return None
    scores, megabytes = told.perplexity, told.size.layers.total_bytes / 1e6
    return (
        f"{scores.ratio:.2f}x perplexity ({scores.trained:.2f} of {scores.full_precision:.2f}), "
        f"{told.train.tokens:,} tokens, {megabytes:.1f} MB, validation {told.validation}"
    )


def _stages_done(run: Path) -> str:
    """Return the verbs that a run has finished, first to last."""
    done = sorted((run / "facts").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return ", ".join(path.stem for path in done if path.stem not in WITHIN_TRAINING) or "nothing finished yet"


def _print_rows(name: str, rows: list[dict[str, Any]], *, brief: bool) -> None:
    if brief:
        print(f"{name:<12}{fold('  '.join(row['name'] for row in rows), 12).lstrip()}")
        return
    print(f"{name}:" if rows else f"{name}: none yet")
    if rows:
        print(fold_named((row["name"], row["what"]) for row in rows))
    print()
