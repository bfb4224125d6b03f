"""Write the table of measured recipes into README.md from `recipes/results/*.json`.

python scripts/results_table.py                # rewrite README.md between its two markers
python scripts/results_table.py --keep RUN     # first keep the summary of a finished run as the recipe's result
python scripts/results_table.py --check        # exit 1 if README.md is not what the result files say
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "recipes" / "results"
BEGIN, END = "<!-- results: written by scripts/results_table.py -->", "<!-- /results -->"
HEADER = (
    "| recipe | what trains | tokens | time | ppl FP | ppl swapped | ppl trained | ratio | layers fp16 | layers packed "
    "| decode | validation |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def megabytes(num_bytes: float) -> str:
    """Render bytes in units of 10^6."""
    return f"{num_bytes / 1e6:.2f} MB"


def row(summary: dict[str, Any]) -> str:
    """One table row from the `run` facts of a recipe."""
    train, perplexity, size = summary["train"], summary["perplexity"], summary["size"]
    cells = [
        f"[`{summary['recipe']}`](recipes/{summary['recipe']}.yaml)",
        "every latent" if summary["adapter"] == "none" else summary["adapter"],
        f"{train['tokens']:,}",
        f"{train['seconds'] / 60:.1f} min",
        f"{perplexity['full_precision']:.2f}",
        f"{perplexity['swapped']:,.1f}",
        f"{perplexity['trained']:.2f}",
        f"{perplexity['ratio']:.2f}",
        megabytes(size["fp16_bytes"]),
        megabytes(size["packed_bytes"] + size["scale_bytes"]),
        f"{summary['decode_tokens_per_s']:.0f} tok/s",
        summary["validation"],
    ]
    return "| " + " | ".join(cells) + " |"


def table() -> str:
    """The whole block between the markers."""
    summaries = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    machines = sorted({f"{s['made_by']['cores']} cores, {s['made_by']['machine']}" for s in summaries})
    note = f"Measured on {'; '.join(machines)}; held-out text of each recipe's own data." if summaries else ""
    return "\n".join([BEGIN, HEADER, *map(row, summaries), "", note, END])


def main() -> int:
    """Keep, check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="RUN", help="a finished run directory")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.keep:
        summary = json.loads((arguments.keep / "facts" / "run.json").read_text())
        RESULTS.mkdir(exist_ok=True)
        del summary["run_dir"]
        summary["source"] = Path(summary["source"]).name  # where the file lay on this machine is nobody's business
        (RESULTS / f"{summary['recipe']}.json").write_text(json.dumps(summary, indent=2) + "\n")
    readme = ROOT / "README.md"
    before = readme.read_text()
    head, rest = before.split(BEGIN)
    after = head + table() + rest.split(END)[1]
    if arguments.check:
        if before != after:
            print("README.md is stale: run `python scripts/results_table.py`", file=sys.stderr)
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
