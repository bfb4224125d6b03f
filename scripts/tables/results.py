"""Write the tables of README.md, recipes/README.md and pages of docs/ from the result files in `recipes/results/`.

python -m scripts.tables.results              # rewrite what stands between the markers of each table
python -m scripts.tables.results --keep RUN   # first keep the summary of a finished run as the recipe's result,
                                               # with all texts of its last `bitnet-train evaluate RUN`
python -m scripts.tables.results --check      # exit 1 if a page is not what the result files say
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bitnet_train.report.evaluate_facts import EvaluateFacts
from bitnet_train.run.directory import RunDirectory
from bitnet_train.run.result import RunFacts
from bitnet_train.run.summary import texts
from scripts import ROOT
from scripts.ablate.table import grid_table, rate_table, task_table
from scripts.tables.choose import choice_table
from scripts.tables.reads import ratio_lines
from scripts.tables.recipes import recipe_table
from scripts.tables.speed import cache_table, decode_table, memory_table, processes_table, size_table, step_table
from scripts.tables.standalone import standalone_table

RESULTS = ROOT / "recipes" / "results"
ABLATE = "python -m scripts.ablate.run"
TINY, PRODUCTS, SMOLLM2, TASK, TASK_SMOLLM2, RATES = (
    RESULTS / f"{name}.json"
    for name in (
        "ablation_tiny",
        "ablation_products",
        "ablation_smollm2",
        "ablation_task",
        "ablation_task_smollm2",
        "baseline_rates",
    )
)
ON_A_TASK = f"{ABLATE} recipes/ablations/task.yaml"
ON_SMOLLM2 = f"{ABLATE} recipes/ablations/smollm2.yaml --threads 1"

# page -> name of a table in it -> its lines
PAGES: dict[str, dict[str, Callable[[], list[str]]]] = {
    "README.md": {"results": lambda: recipe_table(RESULTS, "recipes/")},
    "docs/choose.md": {"choices": lambda: choice_table(RESULTS)},
    "docs/quality.md": {"reads": lambda: ratio_lines(RESULTS / "smollm2_binary_full.json")},
    "docs/speed.md": {
        "sizes": lambda: size_table(RESULTS),
        "decode": decode_table,
        "steps": step_table,
        "memory": memory_table,
        "cache": cache_table,
    },
    "docs/embed.md": {"standalone": standalone_table},
    "docs/scale.md": {"processes": processes_table},
    "recipes/README.md": {
        "recipes": lambda: recipe_table(RESULTS, ""),
        "baselines": lambda: grid_table(TINY, ("best", "base", "baseline"), ABLATE),
        "rates": lambda: rate_table(RATES, f"{ABLATE} recipes/ablations/baseline_rates.yaml --out {_relative(RATES)}"),
        "alone": lambda: grid_table(TINY, ("base", "alone"), ABLATE),
        "together": lambda: grid_table(TINY, ("best", "added", "left out"), ABLATE),
        "products": lambda: grid_table(PRODUCTS, ("base", "alone"), f"{ABLATE} recipes/ablations/products.yaml"),
        "smollm2": lambda: grid_table(SMOLLM2, ("best", "added", "left out", "base", "alone", "baseline"), ON_SMOLLM2),
        "task": lambda: task_table(TASK, ON_A_TASK),
        "task_smollm2": lambda: task_table(TASK_SMOLLM2, f"{ON_A_TASK} --seeds 0 --tokens 60000"),
    },
}


def written(page: str, text: str) -> str:
    """Return the text of a page with every table of `PAGES` made anew between its markers."""
    for name, lines in PAGES[page].items():
        begin, end = f"<!-- {name}: written by scripts/tables/results.py -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{page}: `{begin}` and `{end}` must each stand there once.")
        head, rest = text.split(begin)
        text = "\n".join([head + begin, *lines(), end]) + rest.split(end)[1]
    return text


def keep(run: Path) -> None:
    """Keep the summary of a finished run as the result of its recipe."""
    summary, evaluated = RunDirectory(run).kept(RunFacts), RunDirectory(run).kept(EvaluateFacts)
    if summary is None or evaluated is None:
        raise SystemExit(f"{run} did not go the whole way: `bitnet-train run` writes its summary.")
    kept = replace(
        summary,
        texts=texts(evaluated),  # `evaluate` may have read more of them after the run
        run_dir=None,
        source=Path(summary.source).name,  # where the file lay on this machine is nobody's business
    )
    path = RESULTS / f"{kept.recipe}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept.to_dict(), indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Keep, check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="RUN", help="a finished run directory")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.keep:
        keep(arguments.keep)
    stale = []
    for page in PAGES:
        path = ROOT / page
        before = path.read_text(encoding="utf-8")
        after = written(page, before)
        if before != after:
            stale.append(page)
        if not arguments.check:
            path.write_text(after, encoding="utf-8")
    if arguments.check and stale:
        print(f"{', '.join(stale)}: stale. Run `python -m scripts.tables.results`.", file=sys.stderr)
    return int(arguments.check and bool(stale))


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


if __name__ == "__main__":
    sys.exit(main())
