"""Show what a perplexity ratio reads like: the bundled model trained for ever longer, and what each writes.

    python -m scripts.bench.ratio_texts            # train, measure, keep the result file, write docs/quality.md's table
    python -m scripts.bench.ratio_texts --tables   # only write the table
    python -m scripts.bench.ratio_texts --check    # exit 1 if the table is not what the result file says

Every row is `bitnet-train run quickstart` with fewer steps: the same model, text, learning rate and prompt.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bitnet_train.facts import plain
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.result import RunFacts
from scripts import RESULTS, ROOT
from scripts.bench.machine_facts import describe_run
from scripts.tables.page_block import keep_block

RESULT = RESULTS / "ratio_texts.json"
PAGE = ROOT / "docs" / "quality.md"
STEPS = (120, 30)
Facts = dict[str, Any]


def trained_for(steps: int, work: Path) -> Facts:
    """Return ratio, divergence, agreement and the text of a quickstart of so many steps, made in a folder of `work`."""
    run_dir = work.absolute() / f"steps-{steps}"
    words = ["run", "quickstart", f"run.dir={run_dir}", "logger=none", f"trainer.max_steps={steps}"]
    subprocess.run([sys.executable, "-m", "bitnet_train", *words], check=True, capture_output=True)
    result = RunDirectory(run_dir).kept(RunFacts)
    assert result is not None, "a whole run keeps its summary"
    held_out = result.texts[0]
    return {
        "steps": steps,
        "tokens": result.train.tokens,
        "ratio": held_out.ratio,
        "kl": held_out.kl,
        "top1_agreement": held_out.top1_agreement,
        "prompt": result.continued.prompt,
        "continuations": plain(result.continued.continuations),
    }


def table() -> list[str]:
    """Return the lines between the markers."""
    facts = json.loads(RESULT.read_text(encoding="utf-8"))
    first = facts["rows"][0]
    lines = ["The prompt:", "", *_block(first["prompt"]), "", "The original goes on:", ""]
    lines += _block(first["continuations"]["full_precision"])
    for row in facts["rows"]:
        lines += [
            "",
            f"**Ratio {row['ratio']:.2f}**, KL {row['kl']:.2f} nats, the same token in {row['top1_agreement']:.0%} "
            f"({row['steps']:,} steps):",
            "",
            *_block(row["continuations"]["packed"]),
        ]
    return [*lines, "", f"{facts['cpu'].split(' (')[0]}, {facts['date']}; held-out text of the quickstart."]


def _block(text: str) -> list[str]:
    return ["```python", *(line.rstrip() for line in text.rstrip().splitlines()), "```"]


def main() -> int:
    """Measure, or write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", action="store_true", help="write the table and train nothing")
    parser.add_argument("--check", action="store_true", help="compare the table and train nothing")
    parser.add_argument("--work", type=Path, help="where the runs are kept; else they are thrown away")
    options = parser.parse_args()
    if not (options.tables or options.check):
        with tempfile.TemporaryDirectory() as folder:
            work = options.work or Path(folder)
            facts = {**describe_run(options), "rows": [trained_for(steps, work) for steps in STEPS]}
        RESULT.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return keep_block(PAGE, "texts", "bench.ratio_texts", table(), check=options.check)


if __name__ == "__main__":
    sys.exit(main())
