"""Write the forms of a row and the mask of each into docs/data.md, by reading one of every form as training reads it.

    python -m scripts.tables.forms             # what stands between the markers
    python -m scripts.tables.forms --check     # exit 1 where it is not what the code does

Trained tokens stand between double brackets, as `--dry-run` shows them without colour. The tokenizer and the chat
template are those of the bundled model; another model frames its turns in its own way.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts import ROOT
from scripts.tables.page_block import keep_block

PAGE = ROOT / "docs" / "data.md"


@dataclass(frozen=True)
class Form:
    """One form: what it is called, the name of a file of it, its content, and what is said of it besides the path."""

    title: str
    file: str
    text: str
    words: tuple[str, ...] = ()


def _line(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


_ASKED = {"role": "user", "content": "How many legs has a spider?"}
_ANSWERED = {"role": "assistant", "content": "Eight."}
_MORE = [{"role": "user", "content": "And an ant?"}, {"role": "assistant", "content": "Six."}]

FORMS = (
    Form("Text, a file as it stands", "notes.txt", "A spider has eight legs, an ant has six of them.\n"),
    Form("Text, rows", "rows.jsonl", _line(text="A spider has eight legs, an ant has six of them.")),
    Form("Questions in a CSV", "questions.csv", "question,answer\nHow many legs has a spider?,Eight.\n"),
    Form(
        "Questions in a CSV with other columns",
        "asked.csv",
        "topic,asked,said\nanimals,How many legs has a spider?,Eight.\n",
        ("data.prompt_field=asked", "data.answer_field=said"),
    ),
    Form("Prompt and response", "pairs.jsonl", _line(prompt="How many legs has a spider?", response="Eight.")),
    Form(
        "Instructions, as Alpaca has them",
        "alpaca.jsonl",
        _line(instruction="Count the legs.", input="A spider", output="Eight.", system="Be brief."),
    ),
    Form("A chat", "chats.jsonl", _line(messages=[_ASKED, _ANSWERED, *_MORE])),
    Form(
        "A chat with a turn that is context only",
        "weighted.jsonl",
        _line(messages=[_ASKED, {**_ANSWERED, "train": False}, *_MORE]),
    ),
    Form(
        "A chat, as ShareGPT has it",
        "sharegpt.jsonl",
        _line(conversations=[{"from": "human", "value": _ASKED["content"]}, {"from": "gpt", "value": "Eight."}]),
    ),
    Form("Prompt and completion, as TRL has them", "trl.jsonl", _line(prompt=[_ASKED], completion=[_ANSWERED])),
    Form(
        "Prompt and answer without a template",
        "plain.jsonl",
        _line(prompt="legs of a spider =", completion=" eight"),
        ("data.kind=completion",),
    ),
)


def first_row(form: Form) -> str:
    """Return the first row of a form as training reads it, trained text between double brackets."""
    from transformers import AutoTokenizer

    from bitnet_train.config.compose import compose
    from bitnet_train.importers.load import tiny_folder
    from bitnet_train.train.data.module import BitDataModule

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / form.file
        path.write_text(form.text, encoding="utf-8")
        words = [f"data.path={path}", "data.validation_fraction=0", "data.min_tokens=2", "data.packing=never"]
        config = compose("quickstart", [*words, *form.words]).config
        tokenizer = AutoTokenizer.from_pretrained(tiny_folder())
        data = BitDataModule(config.data, tokenizer, batch_rows=1, seed=0, cache_dir=Path(folder) / "tokens")
        return "".join(f"[[{text}]]" if trained else text for text, trained in data.first_sample())


def lines() -> Iterator[str]:
    """Yield the part of the page."""
    yield "As it lies in the file, the command, and the first row: what stands in `[[double brackets]]` is trained."
    for form in FORMS:
        words = " ".join((f"data.path=./{form.file}", *form.words))
        yield from ("", f"### {form.title}", "", "```text", *form.text.rstrip("\n").splitlines(), "```", "")
        yield from (f"    bitnet-train run quickstart {words}", "", "```text")
        yield from (*first_row(form).splitlines(), "```")


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    return keep_block(PAGE, "forms", "tables.forms", list(lines()), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
