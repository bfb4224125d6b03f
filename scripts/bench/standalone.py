"""How large the stand-alone program is, and how much memory it takes: one build for each machine, stripped.

    python -m scripts.bench.standalone [FOLDER ...] [--builds FOLDER] [--out FILE]

`bitnet-run` is built for this machine and, where the cross-compiler is there, for aarch64 Linux, both by the CMake file
of `csrc/standalone` with -O3 and as static programs; an aarch64 one is started under qemu for its version alone. On
this machine it continues the bundled model, converted, and every packed FOLDER by some tokens: the most memory it held
is what it says itself (`--stats`, VmHWM), beside the bytes of the folder's weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bitnet_train as bt
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert
from bitnet_train.packed.names import WEIGHTS_NAME
from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
from scripts import RESULTS, ROOT
from scripts.bench.machine_facts import describe_run

SOURCE = ROOT / "bitnet_train" / "kernels" / "csrc" / "standalone"
CROSS = "aarch64-linux-gnu-"
ARM = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={CROSS}g++")
NEW_TOKENS = 32


def said(*command: str | Path) -> str:
    """Return the output of a command that must succeed, what it says on stderr too."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def build(folder: Path, tools: str, *options: str) -> tuple[Path, dict[str, int]]:
    """Return the stripped static program of a build, and the bytes of it."""
    third_party = said(ROOT / "scripts" / "fetch_tokenizers").strip()
    said("cmake", "-S", SOURCE, "-B", folder, f"-DBITNET_THIRD_PARTY={third_party}", "-DBITNET_STATIC=ON", *options)
    said("cmake", "--build", folder, "--target", "bitnet-run")
    program = folder / "bitnet-run-stripped"
    said(f"{tools}strip", "-o", program, folder / "bitnet-run")
    return program, {"bytes": program.stat().st_size}


def bundled(folder: Path) -> Path:
    """Pack the bundled model, with embedding and head in int8."""
    loaded = load_pretrained("tiny")
    convert(loaded.model, weight=WeightScheme("binary", "row"), activation=ActivationScheme("int8"))
    bt.export(loaded.model.eval(), loaded.tokenizer, folder / "bundled", {}, embedding="int8", head="int8")
    return folder / "bundled"


def memory(program: Path, folder: Path) -> dict[str, Any]:
    """Return the most memory that the program held while it continued a prompt, and the bytes of the weights."""
    words = ("--ids", "1 2 3 4", "-n", str(NEW_TOKENS), "--threads", "1", "--stats")
    stats = dict(line.split() for line in said(program, folder, *words).splitlines()[1:])
    return {
        "folder": folder.name,
        "weights_bytes": (folder / WEIGHTS_NAME).stat().st_size,
        "peak_rss_bytes": round(float(stats["peak_rss_mb"]) * 1e6),
        "new_tokens": int(stats["new_tokens"]),
    }


def main() -> int:
    """Build, measure and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="packed folders to run too")
    parser.add_argument("--builds", type=Path, help="where builds are kept and continued (a folder that goes)")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_standalone.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        builds = options.builds or Path(name)
        program, size = build(builds / "here", "")
        programs = {platform.machine(): size}
        if shutil.which(f"{CROSS}g++"):
            arm, programs["aarch64"] = build(builds / "aarch64", CROSS, *ARM)
            if shutil.which("qemu-aarch64"):
                assert said("qemu-aarch64", arm, "--version").startswith("bitnet-run ")
        rows = [memory(program, folder) for folder in (bundled(Path(name)), *options.folders)]
    facts = {"run": describe_run(options), "programs": programs, "memory": rows}
    facts["run"]["options"].pop("folders")
    options.out.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({"programs": programs, "memory": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
