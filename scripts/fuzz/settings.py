"""Damaged configurations and command lines, through the very function that the command `bitnet-train` calls.

What stands behind a stage is left out: a word that happens to be right would train for minutes. All before it is run,
from reading the words to the checked configuration; `show` is run whole.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from bitnet_train import __main__ as command
from bitnet_train.config.layout import groups, recipes
from bitnet_train.config.suggest import known_keys
from bitnet_train.errors import ConfigError
from bitnet_train.serve.api import server
from bitnet_train.serve.api.server import Door
from bitnet_train.serve.settings import ServeConfig
from bitnet_train.verbs import VERBS
from scripts.fuzz import watch
from scripts.fuzz.targets import Attempt, Outcome

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", " ", "0"),
    *("null", "auto", "???", "${a}", "${oc.env:HOME}", "${oc.env:NO_SUCH}", "x" * 200, "\x00", "\ud83d", "é\u202e"),
    *([], [[]], [None], {}, {"a": {}}, {"_target_": "os.system"}, ["${x}"], "../..", "/", "~", "a\nb", "[1,2", "{a: "),
)
_SHELL = ("'", '"', "[", "]", "{", "}", ",", "=", "$", "${", "\\", "+", "~", "@", ":", "\n", "\t", " ", "--", "é", "🙂")


def configs(work: Path) -> Attempt:
    """Compose a recipe with a key dropped, renamed or of another type, or with words that set nonsense."""
    whole = [name for name in recipes() if called(["show", name], (), work) == "works"]  # others need a path to data
    stories = [yaml.safe_load(recipes()[name].read_text(encoding="utf-8")) for name in whole]

    def attempt(dice: random.Random, number: int) -> Outcome:
        content, words = dice.choice(stories), ()
        names: tuple[str, ...] = ()
        if dice.random() < 0.7:
            content, names = _changed(dice, content)
        if not names or dice.random() < 0.2:
            words = (_word(dice),)
        recipe = work / "changed.yaml"
        text = yaml.safe_dump(content, allow_unicode=True) if content is not None else "null"
        if dice.random() < 0.08:
            text, names = _spoiled(dice, text), ("changed",)
        recipe.write_text(text, encoding="utf-8", errors="surrogateescape")
        given = [word.partition("=")[0].lstrip("+~") for word in words]
        return called(["show", str(recipe), *words], named=(*names, *given, "changed"), work=work)

    return attempt


def argv(work: Path) -> Attempt:
    """Call the command with words from everywhere: verbs, flags, keys, paths, and pieces of shell."""
    (work / "folder").mkdir()
    (work / "file.yaml").write_text("recipe: none\n")
    (work / "empty").touch()
    known = [*recipes(), *groups(), "folder", "file.yaml", "empty", ".", "..", "/", "-", "--", "runs/none", ""]
    flags = ("--json", "--quiet", "--dry-run", "--quick", "--keys", "--prompt", "-p", "--help", "--version", "-h", "-x")

    def word(dice: random.Random) -> str:
        kind = dice.random()
        if kind < 0.2:
            return dice.choice(list(VERBS))
        if kind < 0.4:
            return dice.choice(flags)
        if kind < 0.6:
            return dice.choice(known)
        return _word(dice) if kind < 0.8 else _noise(dice)

    def attempt(dice: random.Random, number: int) -> Outcome:
        words = [dice.choice(list(VERBS))] if dice.random() < 0.8 else []
        words += [word(dice) for _ in range(dice.randrange(6))]
        return called(words, named=(), work=work)

    return attempt


def _changed(dice: random.Random, story: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """Return a copy with one change anywhere, and the names that an error about it may give."""
    content = yaml.safe_load(yaml.safe_dump(story))
    node, path = content, []
    while True:
        key = dice.choice(list(node))
        path.append(str(key))
        child = node[key]
        if not isinstance(child, dict) or not child or dice.random() < 0.3:
            break
        node = child
    how = dice.randrange(4)
    if how == 0:
        del node[key]
    elif how == 1:
        other = dice.choice((key + "s", key[:-1] or "k", key.upper(), key.replace("_", "-"), "no_such_key", "_target_"))
        node[other] = node.pop(key)
        path.append(other)
    else:
        node[key] = dice.choice(_VALUES)
    return content, tuple(path)


def _word(dice: random.Random) -> str:
    """Return a `key=value` word, the key or the value or both wrong."""
    key = dice.choice([*known_keys(), *groups(), "no.such.key", "trainer", "logger.custom._target_", "+x", "~y", "a b"])
    if dice.random() < 0.2:
        key = dice.choice(
            (key + "s", key[1:], key.upper(), f"+{key}", f"~{key}", f"{key}.deeper", key.rpartition(".")[2])
        )
    value = dice.choice(_VALUES) if dice.random() < 0.6 else _noise(dice)
    return f"{key}={value}".replace("\ud83d", "\udcff")  # a byte that is no UTF-8: all that a shell can pass on


def _noise(dice: random.Random) -> str:
    pieces = (*_SHELL, *"abz019._-/", dice.choice(list(known_keys())))
    return "".join(dice.choice(pieces) for _ in range(dice.randrange(12)))


def _spoiled(dice: random.Random, text: str) -> str:
    """Return what is no YAML any more, or another than it seems."""
    at = dice.randrange(len(text) + 1)
    return (
        text[:at]
        + dice.choice(("\t", "\0", "!!python/object/apply:os.system [true]", "&a *a", ": :", "{", "- ", "\udcff"))
        + text[at:]
    )


def called(words: Sequence[str], named: Sequence[str], work: Path) -> Outcome:
    """Call the command in `work`; exit 2 must name one of `named` where there is any."""
    out, err = io.StringIO(), io.StringIO()
    with chdir(work), _stages_left_out(), watch.audited() as events, redirect_stdout(out), redirect_stderr(err):
        try:
            code = command.main(words)
        except SystemExit as stop:  # argparse's own: help, a flag that is unknown
            code = stop.code if isinstance(stop.code, int) else 1
    said, asked = err.getvalue(), " ".join(repr(word[:80]) for word in words)
    assert code in (0, 2), f"{asked} ends with {code}: {said[:600]}"
    assert "Traceback" not in said, f"{asked}: {said[-600:]}"
    assert "doctor" in words[:1] or not watch.reached_out(events), f"{asked}: {watch.reached_out(events)}"
    if code == 0:
        return "works"
    assert said.strip() or not words, f"{asked} ends with 2 and without a word"
    is_named = any(name.split(".")[-1] in said for name in named if name)
    assert is_named or not named, f"{asked} names none of {named}: {said[:600]}"
    return "refused"


@contextmanager
def _stages_left_out() -> Iterator[None]:
    """Let a stage compose and check its configuration, and stop there; a server, before it opens a port."""
    whole, open_door = command._home, server.open_door

    def home(verb: Any) -> Callable[..., Any]:
        return (lambda config: {}) if verb.is_stage else whole(verb)

    def no_door(settings: ServeConfig) -> Door:
        raise ConfigError("There are no servers here.")

    command._home, server.open_door = home, no_door
    try:
        yield
    finally:
        command._home, server.open_door = whole, open_door
