"""Reference pages, made from what the program itself says: keys, choices, verbs, public names, recipes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import bitnet_train
from bitnet_train.cli.arguments import program_parser, verb_parser
from bitnet_train.config.layout import house
from bitnet_train.verbs import VERBS, Call, Verb
from bitnet_train.verbs.ls import ls
from bitnet_train.verbs.show import show
from scripts.site.links import anchor

TOP = "top level"
Row = dict[str, Any]


def configuration() -> str:
    """Return the page of every key: its type, default, choices or range and meaning; and of the named choices."""
    keys = show(Call(VERBS["show"], quiet=True, keys=True))["keys"]
    lists = ls(Call(VERBS["ls"], quiet=True))
    lines = [
        "# Configuration",
        "",
        "Made from the settings of the program as the site is built. Every key can be set on the command line, "
        "`weight.planes=2`, or in a recipe; its last part is enough where no other key ends so. "
        "`bitnet-train show RECIPE` prints a whole configuration and where each value came from, "
        "`bitnet-train show --keys` this page.",
        "",
    ]
    for section, names in groupby(keys, key=lambda name: name.partition(".")[0] if "." in name else TOP):
        lines += [f"## {section}", "", *_choices(section, lists.get(section, []))]
        lines += ["| key | type | default | allowed | meaning |", "|---|---|---|---|---|"]
        lines += [_key(name, keys[name]) for name in names]
        lines += [""]
    return "\n".join(lines)


def _choices(section: str, files: list[Row]) -> Iterator[str]:
    """Yield the named choices of a section, `SECTION=NAME`; nothing where it has none."""
    if files and section != "recipes":
        yield from ("| choice | what |", "|---|---|")
        yield from (f"| `{section}={row['name']}` | {_cell(row['what'])} |" for row in files)
        yield ""


def _key(name: str, facts: Row) -> str:
    choices = ", ".join(f"`{choice}`" for choice in facts["choices"])
    default = "must be given" if facts["default"] == "???" else f"`{_plain(facts['default'])}`"
    cells = (
        f'<span id="{name}"></span>`{name}`',
        f"`{facts['type']}`",
        default,
        choices or facts["range"],
        facts["doc"],
    )
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=list)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("*", "\\*")


def commands() -> str:
    """Return the page of every verb, with its `--help`."""
    lines = [
        "# Commands",
        "",
        "Made from the program's own help as the site is built.",
        "",
        *_console(program_parser().format_help()),
    ]
    for verb in VERBS.values():
        lines += ["", f"## {verb.name}", "", *_console(verb_parser(verb).format_help()), *_reads(verb)]
    return "\n".join(lines) + "\n"


def _console(text: str) -> list[str]:
    return ["```text", *text.rstrip().splitlines(), "```"]


def _reads(verb: Verb) -> Iterator[str]:
    """Yield which keys a verb reads, where it does not read all."""
    if verb.reads:
        yield ""
        sections = (name.rstrip(".") for name in dict.fromkeys(verb.reads))
        links = (f"[`{name}`](configuration.md#{name})" for name in sections)
        yield f"It reads the keys of {', '.join(links)}; others have no effect here, and are refused."


def python_names() -> str:
    """Return the page of the public names, each from its docstring by mkdocstrings."""
    names = [name for name in bitnet_train.__all__ if not name.startswith("_")]
    blocks = [line for name in names for line in (f"::: bitnet_train.{name}", "")]
    return "\n".join(
        ["# Python reference", "", "::: bitnet_train", "    options:", "      members: false", "", *blocks]
    )


def recipe_files() -> str:
    """Return the page of every recipe, baseline and grid of runs, as its file stands."""
    folder = house() / "recipes"
    lines = ["# Recipes in full", "", "`bitnet-train cp NAME` gives a copy of one to edit.", ""]
    for path in sorted(folder.rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        name = path.relative_to(folder).with_suffix("").as_posix()
        text = path.read_text(encoding="utf-8").rstrip().splitlines()
        lines += [f"## `{name}` {{ #{anchor(name)} }}", "", "```yaml", *text, "```", ""]
    return "\n".join(lines)
