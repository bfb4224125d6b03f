"""Looking before running: `ls`, `show`, `cp`. Each returns its facts and prints them for people."""

from __future__ import annotations

import json
import shutil
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import yaml

from bitnet_train.cli.arguments import Call
from bitnet_train.cli.columns import fold, fold_named
from bitnet_train.config.compose import Composed, compose, to_dict
from bitnet_train.config.layout import groups, recipes
from bitnet_train.config.suggest import did_you_mean, known_keys
from bitnet_train.config.target import find_target
from bitnet_train.errors import ConfigError
from bitnet_train.train.trackers.redaction import redact

_NO_VERBS = ("machine", "budget", "start")  # facts that are kept on the way to those of a verb


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


def show(call: Call) -> dict[str, Any]:
    """Print the composed configuration as YAML with the origin of each value, or with `--keys` every key's meaning."""
    composed = compose(call.words[0] if call.words else None, call.overrides)
    values = redact(to_dict(composed.config))
    if not call.quiet:
        print(_keys() if call.keys else annotated_yaml(composed, values))
    if call.keys:
        return {"keys": {name: _key_facts(name) for name in known_keys()}}
    return {"config": values, "origins": composed.origins, "choices": composed.choices, "notes": composed.notes}


def cp(call: Call) -> dict[str, Any]:
    """Copy a recipe, or the saved configuration of a run, to a file to edit; never over a file that exists."""
    if not call.words:
        raise ConfigError(f"`bitnet-train cp` needs a recipe: {', '.join(recipes())}.")
    recipe, *given = call.words
    target = find_target(recipe)
    source = recipes().get(recipe, Path(target.label))
    file_name = f"{Path(target.name).name}.yaml"
    to = Path(given[0] if given else file_name).expanduser()
    if to.is_dir():
        to = to / file_name
    if to.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"`{to}`: a recipe's name ends in .yaml. Write `{to}.yaml`.")
    if to.exists():
        raise ConfigError(f"{to} exists already and is kept. Name another file: `bitnet-train cp {target.name} FILE`.")
    if not source.is_file():
        raise ConfigError(f"`{recipe}` has no configuration to copy. Recipes: {', '.join(recipes())}.")
    try:
        shutil.copyfile(source, to)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error.strerror}. Name a folder that exists.") from error
    if not call.quiet:
        print(f"Copied {target.label} to {to}. Edit it, then: bitnet-train run {to}")
    return {"from": str(source), "to": str(to)}


def annotated_yaml(composed: Composed, values: dict[str, Any]) -> str:
    """Return YAML that parses to `values`, each line with the file its value came from."""
    lines = [f"# note: {note}" for note in composed.notes]
    return "\n".join(lines + _yaml_lines(values, "", composed.origins))


def _yaml_lines(values: dict[str, Any], prefix: str, origins: dict[str, str]) -> list[str]:
    lines: list[str] = []
    indent = "  " * prefix.count(".")
    for name, value in values.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and full not in known_keys():
            lines += [f"{indent}{name}:", *_yaml_lines(value, f"{full}.", origins)]
        else:
            origin = f"  # {origins[full]}" if full in origins else ""
            lines.append(f"{indent}{name}: {_one_line(value)}{origin}")
    return lines


def _one_line(value: Any) -> str:
    return yaml.safe_dump([value], default_flow_style=True, width=10**6, allow_unicode=True).strip()[1:-1]


def _keys() -> str:
    rows = []
    for name in known_keys():
        facts = _key_facts(name)
        choices = f" [{', '.join(facts['choices'])}]" if facts["choices"] else ""
        default = fold(f"{name}: {_one_line(facts['default'])}", 4, first=0)
        meaning = fold(f"{facts['type']}: {facts['doc']}{choices}", 4)
        rows.append(f"{default}\n{meaning}")
    return "\n".join(rows)


def _key_facts(name: str) -> dict[str, Any]:
    field = known_keys()[name]
    default = field.default_factory() if field.default is MISSING and callable(field.default_factory) else field.default
    meaning = {"doc": field.metadata["doc"], "choices": list(field.metadata["choices"])}
    return {"type": str(field.type), "default": default, **meaning}


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
        told = json.loads((run / "facts" / "run.json").read_text(encoding="utf-8"))
        perplexity, train, size = told["perplexity"], told["train"], told["size"]
    except (OSError, ValueError, KeyError):
        return None
    return (
        f"{perplexity['ratio']:.2f}x perplexity ({perplexity['trained']:.2f} of {perplexity['full_precision']:.2f}), "
        f"{train['tokens']:,} tokens, {size['total_bytes'] / 1e6:.1f} MB, validation {told['validation']}"
    )


def _stages_done(run: Path) -> str:
    """Return the verbs that a run has finished, first to last; `machine` and `budget` are no verbs."""
    done = sorted((run / "facts").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return ", ".join(path.stem for path in done if path.stem not in _NO_VERBS) or "nothing finished yet"


def _print_rows(name: str, rows: list[dict[str, Any]], *, brief: bool) -> None:
    if brief:
        print(f"{name:<12}{fold('  '.join(row['name'] for row in rows), 12).lstrip()}")
        return
    print(f"{name}:" if rows else f"{name}: none yet")
    if rows:
        print(fold_named((row["name"], row["what"]) for row in rows))
    print()
