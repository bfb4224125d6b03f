"""Real prompts from the files they are published in; the fields of a row tell which file it is.

    kind        fields of a row (source)                                        becomes
    summary     meeting_transcripts, general_query_list (QMSum, 2104.05938)     transcript and query; reference answer
    code        task_id, prompt, canonical_solution (HumanEval, 2107.03374)     a function to complete
    chat        turns (MT-bench, Vicuna bench, 2306.05685)                      one or more user turns
    plain       prompt                                                          a text to continue

A summary keeps its query whole and loses the end of the transcript where the model's context ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from bitnet_train.evaluate.jsonl import Row, read_rows, spread

Kind = Literal["summary", "code", "chat", "plain"]

CODE_STOPS = ("\nclass ", "\ndef ", "\n#", "\n@", "\nif ", "\nprint(", "\nassert ", "\n```")  # as HumanEval's authors


@dataclass(frozen=True)
class Prompt:
    """One prompt of a file: the user's turns, and for a summary the document to summarise and a reference answer."""

    kind: Kind
    name: str
    turns: tuple[str, ...]
    document: str = ""
    reference: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end what is written."""
        return CODE_STOPS if self.kind == "code" else ()


def read_prompts(path: str | Path, most: int | None = None, key: str = "evaluate.prompts") -> list[Prompt]:
    """Read up to `most` prompts, evenly spread over a .jsonl or .jsonl.gz file.

    Every row is read, so that a wrong one shows at once: ConfigError or DataError names the file, the line, the field.
    """
    return spread([_prompt(row) for row in read_rows(Path(path), key)], most)


def _prompt(row: Row) -> Prompt:
    for name, read in _KINDS.items():
        if name in row.fields:
            return read(row)
    raise row.error(" or ".join(_KINDS), "a row has one of these, and that says what kind of prompt it is.")


def _summary(row: Row) -> Prompt:
    spoken = row.fields["meeting_transcripts"]
    if not isinstance(spoken, list) or not all(isinstance(turn, dict) and "content" in turn for turn in spoken):
        raise row.error("meeting_transcripts", "a list of {speaker, content} is needed.")
    asked = [*_asked(row, "general_query_list"), *_asked(row, "specific_query_list")]
    if not asked:
        raise row.error("general_query_list", "a list of {query, answer} with at least one entry is needed.")
    document = "\n".join(f"{turn.get('speaker', 'Speaker')}: {turn['content']}" for turn in spoken)
    answer = asked[0].get("answer")
    return Prompt("summary", f"line {row.line}", (str(asked[0]["query"]),), document, str(answer) if answer else None)


def _asked(row: Row, name: str) -> list[dict[str, Any]]:
    found = row.fields.get(name, [])
    fits = isinstance(found, list) and all(isinstance(item, dict) and item.get("query") for item in found)
    if not fits:
        raise row.error(name, "a list of {query, answer} is needed.")
    return found


def _code(row: Row) -> Prompt:
    return Prompt("code", row.text("task_id"), (row.text("prompt"),))


def _chat(row: Row) -> Prompt:
    name = row.fields.get("question_id", f"line {row.line}")
    category = row.fields.get("category")
    return Prompt("chat", f"{name} ({category})" if category else str(name), tuple(row.texts("turns", least=1)))


def _plain(row: Row) -> Prompt:
    return Prompt("plain", f"line {row.line}", (row.text("prompt"),))


_KINDS: Mapping[str, Callable[[Row], Prompt]] = MappingProxyType(
    {"meeting_transcripts": _summary, "task_id": _code, "turns": _chat, "prompt": _plain}
)
