"""Write the tables of docs/gguf.md from the result file of `llama_cpp/prove.py`.

python -m scripts.tables.gguf             # rewrite docs/gguf.md between its two markers
python -m scripts.tables.gguf --check     # exit 1 if docs/gguf.md is not what the result file says
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from scripts import RESULTS, ROOT

RESULT = RESULTS / "prove_gguf.json"
PAGE = ROOT / "docs" / "gguf.md"
BEGIN, END = "<!-- figures: written by scripts/tables/gguf.py -->", "<!-- /figures -->"
Measured = dict[str, Any]

HEADER = (
    "| model | type | MB | weights that differ | ppl float | ppl ours | ppl llama.cpp | KL ours | KL llama.cpp "
    "| KL between | same top-1 | largest, float activations |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)
GREEDY_HEADER = "| model | type | equal tokens, prompt by prompt | margin where they part |\n|---|---|---|---|"


def row(name: str, file_type: str, facts: Measured) -> str:
    """Return the line of one file."""
    logits = facts["logits"]
    perplexity, kl = logits["perplexity"], logits["kl_nats"]
    cells = [
        name,
        file_type.upper(),
        f"{facts['file_bytes'] / 1e6:.1f}",
        f"{facts['weights_differing']} of {facts['weights']:,}",
        *(f"{perplexity[run]:,.2f}" for run in ("float", "ours", "llama_cpp")),
        *(f"{kl[pair]:.1e}" for pair in ("ours from float", "llama_cpp from float", "ours from llama_cpp")),
        f"{logits['top1_agreement']['ours from llama_cpp']:.1%}",
        f"{logits['largest_nats']['dense from float']:.0e}",
    ]
    return "| " + " | ".join(cells) + " |"


def greedy_row(name: str, file_type: str, facts: Measured) -> str:
    """Return the line of one file's continuations."""
    greedy = facts["greedy"]
    equal = ", ".join(f"{each['equal_tokens']} of {each['new_tokens']}" for each in greedy)
    margins = [each["logit_margin_where_they_part"] for each in greedy]
    margin = ", ".join("" if value is None else f"{value:.2f}" for value in margins if value is not None)
    return f"| {name} | {file_type.upper()} | {equal} | {margin} |"


def files(models: Measured) -> Iterator[tuple[str, str, Measured]]:
    """Yield (model, type, facts) of every file that was proved."""
    for name, model in models.items():
        for file_type, facts in model["types"].items():
            yield name, file_type, facts


def block() -> str:
    """Return everything between the markers."""
    models = json.loads(RESULT.read_text(encoding="utf-8"))["models"]
    parts = [BEGIN, HEADER, *(row(*each) for each in files(models)), ""]
    for name, model in models.items():
        facts, options = model["facts"], model["facts"]["options"]
        tokens = next(iter(model["types"].values()))["logits"]["tokens"]
        schemes, widths = "; ".join(model["schemes"]), ", ".join(map(str, model["inputs_of_rows"]))
        parts.append(
            f"- `{name}`: {model['base_model']}, {schemes}, rows of {widths} inputs; {tokens:,} tokens of "
            f"{options['text']} in windows of {options['window']}. {facts['date']}, commit {facts['commit']}, "
            f"llama.cpp {facts['llama_cpp']}."
        )
        parts += [f"  - {reason}" for reason in model["refused"].values()]
    parts += ["", GREEDY_HEADER, *(greedy_row(*each) for each in files(models)), END]
    return "\n".join(parts)


def main() -> int:
    """Check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    before = PAGE.read_text(encoding="utf-8")
    head, rest = before.split(BEGIN)
    after = head + block() + rest.split(END)[1]
    if parser.parse_args().check:
        if before != after:
            print("docs/gguf.md is stale: run `python -m scripts.tables.gguf`", file=sys.stderr)
        return int(before != after)
    PAGE.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
