"""What is run by hand, from the root of the repository: `python -m scripts.FOLDER.NAME`.

ablate/       what each lever buys: grids of short trainings
assets/       makes what the package bundles
bench/        speed and memory, measured beside named peers
corpus/       training text, held-out text and choices from files as they are published
frontier/     llama.cpp's types and packed folders of one model on the same tokens: size, quality, speed
faults.py     every kind of fault, each done to a real process, and what came of it
fuzz/         thousands of bad inputs for everything that reads: `python -m scripts.fuzz`
gpu_check/    what a GPU has to prove, in one command: `python -m scripts.gpu_check`
llama_cpp/    the real llama.cpp beside ours: the same weights, tokens and logits
site/         what MkDocs calls as it builds the documentation site
tables/       tables and pictures of README, docs and recipes, from result files
results/      what `bench`, `frontier` and `llama_cpp` measured, `faults` found, and bad inputs came to

audit         packages with known holes
fetch_tokenizers  libraries of the stand-alone program
sanitize      the C++ core under its sanitizers
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "scripts" / "results"

# `python -m` looks in this folder first, where the package may lie without its kernels: an installed one goes before.
# Under `-P` it does not, and what stands first was put there by PYTHONPATH.
if sys.path[0] == str(ROOT) and not sys.flags.safe_path:
    sys.path.append(sys.path.pop(0))


def module_command(name: str) -> list[str]:
    """Return the command that runs a module of these scripts in a process of its own, from whatever folder.

    `python -m` finds them from the root alone, and nowhere under PYTHONSAFEPATH.
    """
    start = f"import runpy, sys; sys.path.append({str(ROOT)!r}); "
    return [sys.executable, "-P", "-c", f"{start}runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"]
