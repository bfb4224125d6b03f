"""Every `bitnet-train ...` line that a page shows is one that the program takes: its verb, its words, its keys.

Files and runs that a line names are stood in for by such of their kind: a page's `runs/mine` is a run, `*.gguf` a GGUF
file. What they hold is not read here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bitnet_train.__main__ import overrides_of
from bitnet_train.cli.arguments import read_call
from bitnet_train.config.compose import Composed, compose, to_yaml
from bitnet_train.config.layout import recipes
from bitnet_train.config.unread import refuse_unread_keys
from bitnet_train.run.sweep_asked import read_asked
from bitnet_train.verbs import VERBS, WORD_KINDS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").iterdir())  # files for schedulers: each line a command, or none
BLOCK = re.compile(r"^ {4,}(.*)$|^```(?:bash|sh)?\n([\s\S]*?)^```", re.MULTILINE)
SWEPT = ["optimizer.lr=1e-4..1e-2", "trainer.validate_every_steps=10"]
ENDS = {"&&", "||", "|", ";", "<", ">", ")", "&"}
PLACEHOLDERS = {"RUN": "runs/mine", "RECIPE": "quickstart", "NAME": "quickstart", "MODEL": "tiny", "FILE": "text.txt"}
GLOBAL_FLAGS = {"--help", "--version"}


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words behind each `bitnet-train` in the code blocks of a page, up to what ends a command in a shell."""
    code = re.sub(r"\\\n\s*", " ", "\n".join(found[1] or found[2] or "" for found in BLOCK.finditer(text)))
    for line in code.splitlines():
        if re.search(r"(?:^|[\s(])(?:bitnet-train|-m bitnet_train) ", line.partition(" #")[0]):
            yield from _commands(line)


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line.replace("-m bitnet_train ", "bitnet-train "), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    words = list(lexer)
    for start in (number + 1 for number, word in enumerate(words) if word == "bitnet-train"):
        end = next((number for number in range(start, len(words)) if words[number] in ENDS), len(words))
        yield [PLACEHOLDERS.get(word, word) for word in words[start:end]]


def of_file(path: Path) -> list[tuple[str, ...]]:
    """Return the commands of a page, or of a file that is code as a whole."""
    text = path.read_text(encoding="utf-8")
    block = text if path in PAGES else f"```\n{text}```\n"
    return [tuple(words) for words in command_lines(block)]


SHOWN = sorted({words for path in (*PAGES, *EXAMPLES) for words in of_file(path)})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run, an artefact, a model and a recipe under the names that pages use."""
    folder = tmp_path_factory.mktemp("place")
    text = to_yaml(compose("quickstart").config)
    for name in ("runs/mine", "run", *(f"runs/{name}/TIME" for name in recipes())):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.yaml").write_text(text)
    for name in ("artefact", "runs/mine/artefact"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "manifest.json").write_text("{}")
    for name in ("bonsai.gguf", "smollm2.gguf", "model.gguf"):
        (folder / name).write_bytes(b"GGUF" + bytes(32))
    (folder / "runs" / "my_sweep").mkdir()
    (folder / "runs" / "my_sweep" / "sweep.json").write_text(json.dumps({"recipe": "quickstart", "call": SWEPT}))
    (folder / "runs" / "my_sweep" / "best.yaml").write_text(recipes()["quickstart"].read_text())
    for name in ("texts", "my-llama", "big"):
        (folder / name).mkdir()
    (folder / "text.txt").touch()
    (folder / "my_recipe.yaml").write_text(recipes()["quickstart"].read_text())
    return folder


def test_pages_show_commands_of_most_verbs() -> None:
    assert len(SHOWN) > 60
    assert VERBS.keys() - {words[0] for words in SHOWN} <= {"convert", "show"}


@pytest.mark.slow
def test_every_command_that_a_page_shows_is_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert {" ".join(words): fault for words in SHOWN if (fault := fault_of(words)) is not None} == {}


def test_a_wrong_command_is_seen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert fault_of(("evaluate", "quickstart")) is not None
    assert fault_of(("train", "quickstart", "trainer.max_stepz=3")) is not None
    assert fault_of(("export", "runs/mine", "generate.temperature=0.5")) is not None
    assert fault_of(("export", "runs/mine", "export=gguf")) is None
    assert list(
        command_lines("    cd x && bitnet-train ls \\\n        weight | head  # such\n\nbitnet-train not code\n")
    ) == [["ls", "weight"]]


def any_text(overrides: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words with one path of a text for all, as which file it is changes nothing here."""
    return tuple("data.path=text.txt" if word.startswith("data.path=") else word for word in overrides)


@cache
def composed_once(word: str | None, overrides: tuple[str, ...]) -> Composed:
    """Return what `compose` does; many lines name the same run and set nothing."""
    return compose(word, list(overrides))


def fault_of(words: tuple[str, ...]) -> str | None:
    """Return why the program does not take these words, None where it does."""
    if words[0] in GLOBAL_FLAGS or "--help" in words:
        return None
    try:
        call = read_call(words)
        if call.verb.name == "sweep":
            read_asked(call.words[0] if call.words else None, call.overrides)
            return None
        if not call.verb.is_stage:
            composed_once(None, call.overrides)
            return None
        composed = composed_once(call.words[0] if call.words else None, any_text(overrides_of(call)))
        refuse_unread_keys(
            composed.config, composed.origins, composed.target, call.verb.name, {n: v.reads for n, v in VERBS.items()}
        )
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return None if composed.target.kind in WORD_KINDS[call.verb.word] else f"names a {composed.target.kind}"
