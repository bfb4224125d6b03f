"""Make a multiple-choice file from any text or from GSM8K, the same every time.

python -m scripts.corpus.choices wiki.test.raw choices.jsonl            # which continuation follows this beginning?
python -m scripts.corpus.choices gsm8k/test.jsonl choices.jsonl         # which number answers this question?

From a text: a paragraph is cut in two; the choices are its own next words and those of three other paragraphs, equally
many words each. From GSM8K rows: the final answer, and those of three other questions. Rows are those that
`evaluate.choices` reads. Such a file tells models apart and needs no download; it is no published benchmark.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

SEED = 20261122
CONTEXT_WORDS, CHOICE_WORDS, NUM_CHOICES = 48, 12, 4

Row = dict[str, object]


def from_text(text: str, count: int) -> list[Row]:
    """Ask for the continuation of paragraphs that are long enough, at most `count` of them."""
    paragraphs = [line.split() for line in text.split("\n")]
    long = [words for words in paragraphs if len(words) >= CONTEXT_WORDS + CHOICE_WORDS]
    random.Random(SEED).shuffle(long)
    contexts = [" ".join(words[:CONTEXT_WORDS]) for words in long]
    answers = [" ".join(words[CONTEXT_WORDS : CONTEXT_WORDS + CHOICE_WORDS]) for words in long]
    return [{"context": context, **row} for context, row in zip(contexts, _with_others(answers, count), strict=False)]


def from_gsm8k(rows: list[Row], count: int) -> list[Row]:
    """Ask for the final answer of questions, at most `count` of them."""
    random.Random(SEED).shuffle(rows)
    answers = [str(row["answer"]).rpartition("#### ")[2].strip() for row in rows]
    return [
        {"question": row["question"], **made} for row, made in zip(rows, _with_others(answers, count), strict=False)
    ]


def _with_others(answers: list[str], count: int) -> list[Row]:
    """Put each answer at a place of its own among different ones of other rows."""
    picker = random.Random(SEED + 1)
    made: list[Row] = []
    for answer in answers[:count]:
        others = sorted(set(answers) - {answer})
        choices = picker.sample(others, NUM_CHOICES - 1)
        place = picker.randrange(NUM_CHOICES)
        made.append({"choices": [*choices[:place], answer, *choices[place:]], "answer": place})
    return made


def main(words: list[str] | None = None) -> int:
    """Read the source, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a text file, or GSM8K's .jsonl")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=200, help="questions at most")
    arguments = parser.parse_args(words)
    text = arguments.source.read_text(encoding="utf-8")
    if arguments.source.suffix == ".jsonl":
        rows = from_gsm8k([json.loads(line) for line in text.splitlines() if line.strip()], arguments.count)
    else:
        rows = from_text(text, arguments.count)
    if not rows:
        parser.error(f"{arguments.source} has no paragraph of {CONTEXT_WORDS + CHOICE_WORDS} words.")
    arguments.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} questions in {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
