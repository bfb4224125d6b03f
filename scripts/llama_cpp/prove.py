"""Prove exported GGUF files with the real llama.cpp on real text, and write a JSON result file.

    export BITNET_TEST_LLAMA_CPP="$(scripts/build_llama_cpp)"
    python -m scripts.llama_cpp.prove --work DIR --text wiki.test.raw NAME=PACKED_FOLDER ...

Every packed folder is exported in every type that it fits. Of each file it is recorded:

    weights     how many values the file holds, and how many of them differ from the packed ones when its bytes are
                decoded (0, or the script fails)
    tokens      whether llama.cpp reads the text as the same tokens
    logits      five runs over the same windows of tokens:
                  ours       the native runtime: int8 activations, one scale a token
                  llama_cpp  llama.cpp on the file: int8 activations, one scale for 32 (Q1_0, Q2_0) or 256 (TQ) values
                  float      our weights in transformers, float32 activations
                  rounded    the same, with activations rounded as llama.cpp does (`ggml_activations.py`)
                  dense      llama.cpp on the file that llama.cpp itself dequantised to float32: float32 activations
                `dense` from `float`, and `llama_cpp` from `rounded`, differ in the order of float sums alone: both
                hold the same model, and llama.cpp adds nothing but its rounding. How far `ours` and `llama_cpp` are
                from `float` is what each activation quantiser costs.
    greedy      how the texts of a few prompts continue

A model that is not named keeps what an earlier run wrote about it. `tables/gguf.py` puts the figures into docs/gguf.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from bitnet_train import NativeModel
from bitnet_train.errors import FormatError
from bitnet_train.exporters import gguf
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.formats.ggml import GGML_TYPES
from bitnet_train.packed.source import PackedSource, open_packed
from scripts import RESULTS
from scripts.bench.machine_facts import describe_run
from scripts.llama_cpp.float_model import float_model
from scripts.llama_cpp.ggml_activations import round_as_ggml
from scripts.llama_cpp.libllama import LlamaCpp, quantize_file
from scripts.llama_cpp.libllama_api import VERSION
from scripts.llama_cpp.logit_runs import compare_logits, torch_logits, windows

PROMPTS = (
    "def read_lines(path):\n",
    "import os\nimport sys\n\n\nclass ",
    "The tower was built in ",
    "Once upon a time",
)
NEW_TOKENS = 32


def count_weights(folder: Path, packed: Path) -> dict[str, int]:
    """Decode every weight of the file and compare; fails at the first that differs."""
    weights = 0
    with open_packed(packed) as source:
        for name, values in gguf.read_back(folder):
            wanted = gguf.expected(source, name, ExportOptions()) if name in source.floats else _dense(source, name)
            if not torch.equal(values, wanted):
                raise AssertionError(f"{name} of {folder.name} is not what was packed")
            weights += 0 if _is_alias(source, name) else values.numel()
    return {"weights": weights, "weights_differing": 0}


def _is_alias(source: PackedSource, name: str) -> bool:
    """Tell whether a weight is stored under another name: a tied head."""
    return name in source.tied or f"{name.removesuffix('.weight')}.codes" in source.tied


def _dense(source: PackedSource, name: str) -> torch.Tensor:
    module, _, leaf = name.rpartition(".")
    if leaf != "bias":
        return source.dense(source.tied.get(name, name) if name in source.tied else module)
    packed = source.layer(module) if module in source.layers else source.table(module)
    assert packed.bias is not None
    return packed.bias


def compare_greedy(theirs: LlamaCpp, ours: NativeModel) -> list[dict[str, Any]]:
    """Continue every prompt on both sides; how many tokens are equal until the first that is not."""
    rows = []
    for prompt in PROMPTS:
        ids = theirs.tokenize(prompt, add_special=False)
        a, b = theirs.greedy(ids, NEW_TOKENS), ours.generate_ids(ids, NEW_TOKENS, stop_ids=())
        equal = next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), NEW_TOKENS)
        margin = None if equal == NEW_TOKENS else _margin(ours, [*ids, *b[:equal]], a[equal], b[equal])
        row = {"prompt": prompt, "llama_cpp": theirs.text(a), "ours": theirs.text(b), "equal_tokens": equal}
        rows.append({**row, "new_tokens": NEW_TOKENS, "logit_margin_where_they_part": margin})
    return rows


def _margin(ours: NativeModel, ids: list[int], theirs: int, chosen: int) -> float:
    last = ours.logits(ids)[-1]
    return float(last[chosen] - last[theirs])


def prove_file(packed: Path, out: Path, ids: list[int], text: str, options: argparse.Namespace) -> dict[str, Any]:
    """Take every figure of one exported folder."""
    file, dense_file = out / gguf.MODEL_NAME, out.with_suffix(".f32.gguf")
    quantize_file(file, dense_file, "f32", allow_requantize=True)
    ours = NativeModel.load(packed, num_threads=options.threads)
    sizes = {"context_tokens": options.window, "num_threads": options.threads}
    with LlamaCpp(file, **sizes) as theirs, LlamaCpp(dense_file, **sizes) as dense:
        assert theirs.tokenize(text, add_special=False) == ids, "llama.cpp reads the text as other tokens"
        runs = {
            "ours": ours.logits,
            "llama_cpp": theirs.logits,
            "float": torch_logits(float_model(packed)),
            "rounded": torch_logits(round_as_ggml(float_model(packed), file)),
            "dense": dense.logits,
        }
        texts = windows(ids, options.window, options.tokens)
        facts = {
            "description": theirs.description,
            "file_bytes": file.stat().st_size,
            "tokens_read_alike": len(ids),
            **count_weights(out, packed),
            "logits": compare_logits(runs, texts, out.name),
            "greedy": compare_greedy(theirs, ours),
        }
    dense_file.unlink()
    return facts


def prove(name: str, packed: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Prove one packed folder in all types that it fits."""
    tokenizer = AutoTokenizer.from_pretrained(packed)
    text = options.text.read_text(encoding="utf-8")[: 8 * options.tokens]
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    assert len(ids) > options.tokens, len(ids)
    proved: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for file_type in options.types:
        out = options.work / f"{name}-{file_type}"
        shutil.rmtree(out, ignore_errors=True)
        try:
            export_as("gguf", packed, out, ExportOptions(type=file_type))
        except FormatError as error:
            refused[file_type] = str(error)
        else:
            proved[file_type] = prove_file(packed, out, ids, text, options)
    with open_packed(packed) as source:
        schemes = sorted({f"{e.scheme.title}, {e.scheme.granularity}" for e in source.layers.values()})
        widths = sorted({entry.num_inputs for entry in source.layers.values()})
        facts = {"base_model": source.manifest.base_model, "schemes": schemes, "inputs_of_rows": widths}
    return {**facts, "types": proved, "refused": refused}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--types", nargs="*", default=list(GGML_TYPES))
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens that are predicted")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "prove_gguf.json")
    return parser.parse_args()


def main() -> None:
    """Prove every model that is named, and keep what was known of the others."""
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    models = json.loads(options.out.read_text())["models"] if options.out.is_file() else {}
    named = dict(entry.split("=", 1) for entry in options.models)
    options.models = list(named)  # no path of the machine gets into the file
    for name, folder in named.items():
        facts = {**describe_run(options), "llama_cpp": VERSION}
        models[name] = {"facts": facts, **prove(name, Path(folder), options)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"models": models}, indent=1) + "\n")


if __name__ == "__main__":
    main()
