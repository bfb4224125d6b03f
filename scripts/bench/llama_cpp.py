"""Time packed models against llama.cpp on the same +-1 weights, in one run, and write a JSON result file.

    python -m scripts.bench.llama_cpp --work DIR --llama-cpp BUILD/bin [--smollm2 FILE.gguf] [--models NAME ...]

Models: a synthetic Llama with embedding and head at 1 bit (`synthetic-1-bit`) and at int8 (`synthetic-int8`), and
SmolLM2-135M with its tied table at int8 (`smollm2-int8`); made once in --work, untrained, for speed does not depend on
the signs. The contenders of a model are timed in turn, round by round, each in a process of its own and pinned to the
same cores; figures are medians over all rounds. Types of llama.cpp that are never the fastest are timed once. A model
that is not named keeps what an earlier run wrote about it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from bitnet_train.bench.llama_cpp import llama_row
from bitnet_train.bench.row import Row, merged
from bitnet_train.bench.timing import Workload
from bitnet_train.bench.worker import Task, measure_apart, ways
from scripts import RESULTS, ROOT
from scripts.bench.llama_cpp_report import print_memory, print_report
from scripts.bench.machine_facts import describe_run
from scripts.llama_cpp.logits import agreement
from scripts.llama_cpp.models import FILE_TYPES, Subject, make_artefact, quantize, write_gguf

EVERY_ROUND = ("Q1_0", "TQ2_0", "Q4_0")
CONTEXTS = (128, 512, 1024, 2048, 4096, 8192)
CONTEXT_NEW_TOKENS = 16
PROOF_TYPE = {"synthetic": "Q1_0", "smollm2": "Q2_0"}  # stores +-1 without loss, and takes this model's widths


@dataclass(frozen=True)
class Peer:
    """One GGUF: its type, and the type of its embedding and head."""

    file_type: str
    tables: str
    path: Path

    @property
    def label(self) -> str:
        """Name in results."""
        return f"{self.file_type}, tables {self.tables}"


def subjects(names: list[str], smollm2: Path | None) -> list[Subject]:
    """Return the models to compare."""
    known = [Subject("synthetic", "1-bit"), Subject("synthetic", "int8")]
    known += [Subject("smollm2", "int8", smollm2)] if smollm2 else []
    return [subject for subject in known if not names or subject.label in names]


def table_types(subject: Subject) -> list[tuple[str, list[str]]]:
    """Return how llama.cpp may store embedding and head: a name, and the flags of `llama-quantize`."""
    if subject.tables == "1-bit":
        return [("as all", ["--pure"])]
    widths = ("q6_k", "q8_0") if subject.gguf is None else ("q8_0",)  # 576 is no multiple of q6_k's 256
    return [(width, ["--token-embedding-type", width, "--output-tensor-type", width]) for width in widths]


def make_peers(subject: Subject, source: Path, tools: Path) -> tuple[list[Peer], dict[str, str]]:
    """Quantise into every type; return the files, and for those that llama.cpp refuses its message."""
    peers, refused = [], {}
    for tables, flags in table_types(subject):
        for file_type in FILE_TYPES:
            name = f"{subject.label}.{file_type}.{tables.replace(' ', '-')}.gguf"
            peer = Peer(file_type, tables, source.with_name(name))
            problem = quantize(tools / "llama-quantize", source, peer.path, file_type, flags)
            if problem:
                refused[peer.label] = problem
            elif tables != "q8_0" or subject.gguf is not None or file_type in EVERY_ROUND:
                peers.append(peer)
    return peers, refused


def compare(subject: Subject, options: argparse.Namespace) -> dict[str, Any]:
    """Build one model for both sides, prove that they are the same, and time them."""
    folder, sizes = sized_artefact(subject, options)
    source = write_gguf(folder, options.work / f"{subject.label}.gguf", subject.gguf)
    peers, refused = make_peers(subject, source, options.llama_cpp)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    proof = next((peer for peer in peers if peer.file_type == PROOF_TYPE[subject.name]), None)
    same = agreement(folder, proof.path, options.llama_cpp / "llama-perplexity", text) if proof else None
    facts: dict[str, Any] = {
        **sizes,
        "gguf_bytes": {peer.label: peer.path.stat().st_size for peer in peers},
        "refused": refused,
        "same_model": {"gguf": proof.label, **same} if proof and same else None,
    }
    if options.build_only:
        return facts
    rows = [row for threads in options.threads for row in race(folder, peers, threads, options)]
    return {**facts, "rows": rows, "contexts": contexts(folder, options)}


def sized_artefact(subject: Subject, options: argparse.Namespace) -> tuple[Path, dict[str, int]]:
    """Return the packed folder, and the bytes of it and of the keys and values of a prompt."""
    folder = make_artefact(subject, options.work / subject.label)
    artefact_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return folder, {"artefact_bytes": artefact_bytes, "cache_bytes": cache_bytes(folder, options.prompt_tokens + 1)}


def compare_memory(subject: Subject, options: argparse.Namespace) -> None:
    """Print the memory that our fastest way takes, after one repeat of what is timed otherwise."""
    folder, sizes = sized_artefact(subject, options)
    workload = Workload(options.prompt_tokens, options.new_tokens, 1)
    for threads in options.threads:
        row = measure_apart(Task(str(folder), ways(folder)[0], threads, None, workload), tuple(options.cpus[:threads]))
        print(f"\n{folder.name}, {threads} threads: {sizes}, {row.memory}")
        print_memory(asdict(row.memory), sum(sizes.values()))


def race(folder: Path, peers: list[Peer], threads: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time all contenders on one number of threads, round by round."""
    workload = Workload(options.prompt_tokens, options.new_tokens, options.repeats)
    pin = tuple(options.cpus[:threads])
    ours = {way: Task(str(folder), way, threads, None, workload) for way in ways(folder)}
    rows: dict[tuple[str, str], list[Row]] = {}
    for number in range(options.rounds):
        for way, task in ours.items():
            if number == 0 or way == next(iter(ours)):
                rows.setdefault(("ours", way), []).append(measure_apart(task, pin))
        for peer in peers:
            often = peer.file_type in EVERY_ROUND
            if number == 0 or often:
                amount = workload if often else replace(workload, repeats=1)
                row = llama_row(options.llama_cpp / "llama-bench", peer.path, threads, amount, pin)
                rows.setdefault(("llama.cpp", peer.label), []).append(row)
        print(f"{folder.name}, {threads} threads: round {number + 1} of {options.rounds}", flush=True)
    return [{"side": side, "label": label, **merged(each).to_dict()} for (side, label), each in rows.items()]


def cache_bytes(folder: Path, num_tokens: int) -> int:
    """Return the bytes of so many float32 keys and values."""
    config = LlamaConfig.from_pretrained(folder)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * 4 * num_tokens * config.num_hidden_layers * config.num_key_value_heads * head_dim


def contexts(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a token of ours after more and more tokens, with the native runtime."""
    way = ways(folder)[0]
    longest = LlamaConfig.from_pretrained(folder).max_position_embeddings - CONTEXT_NEW_TOKENS - 1
    lengths = tuple(sorted({min(length, longest) for length in CONTEXTS}))
    if way != "native" or options.no_contexts:
        return []
    workload = Workload(1, CONTEXT_NEW_TOKENS, 1, lengths)
    tasks = [Task(str(folder), way, threads, None, workload) for threads in options.threads]
    measured = [measure_apart(task, tuple(options.cpus[: task.num_threads])) for task in tasks]
    return [{"num_threads": row.num_threads, "ms_per_token": row.context_ms} for row in measured]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the models, kept between runs (10 GB)")
    parser.add_argument("--llama-cpp", type=Path, required=True, help="folder of llama-bench, llama-quantize, ...")
    parser.add_argument("--smollm2", type=Path, help="a GGUF of SmolLM2-135M")
    parser.add_argument("--models", nargs="*", default=[], help="names of models; all if left out")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench_llama_cpp.json")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--cpus", type=int, nargs="*", default=[1, 0], help="cores; n threads take the first n")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs in a round")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--no-contexts", action="store_true", help="leave the growth with context out")
    parser.add_argument("--build-only", action="store_true", help="make the models and prove them equal, time nothing")
    parser.add_argument("--memory-only", action="store_true", help="print what ours takes in memory, write nothing")
    return parser.parse_args()


def main() -> None:
    """Compare every model and write the file."""
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.memory_only:
        for subject in subjects(options.models, options.smollm2):
            compare_memory(subject, options)
        return
    before = json.loads(options.out.read_text())["models"] if options.out.is_file() else {}
    result = {"models": before}
    for subject in subjects(options.models, options.smollm2):
        result["models"][subject.label] = {"facts": describe_run(options), **compare(subject, options)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    if not options.build_only:
        print_report(result)


if __name__ == "__main__":
    main()
