r"""Open thousands of damaged and hostile files of others: each is a `FormatError`, or gives a model that computes.

    python -m scripts.fuzz.readers --count 10000
    python -m scripts.fuzz.readers --door gguf --first 4711 --count 1     repeats one
    python -m scripts.fuzz.readers --truncate                             cuts every header at every byte

Doors: a GGUF with 1-bit weights, a folder with `quant_method: bitnet` whose weights an index names, and a packed folder
read for export. Every mutation is drawn from the seed and its number. Files are changed at random, and with intent:
lengths of 2^63, offsets that overlap, names that leave the folder, types that do not exist, sizes of 2^60. Hashes are
not checked, for that would stop nearly all of them at the door. None may take a second of CPU, or map 256 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a config that asks for another repository asks in vain

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from transformers.utils import logging

from bitnet_train.errors import ConversionError, FormatError
from bitnet_train.exporters.options import ExportOptions
from bitnet_train.exporters.registry import export_as
from bitnet_train.importers.load import load_pretrained
from bitnet_train.model.convert import convert
from bitnet_train.packed.source import open_packed
from bitnet_train.packed.writer import export_packed
from bitnet_train.quant.scheme import WeightScheme
from scripts.fuzz import loader

Mutation = Callable[[random.Random, bytes], bytes]

SLOWEST_S = 1.0  # of CPU: other work on the machine is not the reader's fault
LARGEST_BYTES = 256 << 20
INDEX, SHARD = "model.safetensors.index.json", "model-00001-of-00001.safetensors"
NUMBERS = (0, 1, 2, 31, 33, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
LARGE = (*NUMBERS, 1 << 32, 1 << 40, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
NAMES = ("../model.safetensors", "/etc/passwd", "..", "", "a/../../b.safetensors", "other.safetensors", "x" * 5000)


def edit_gguf(dice: random.Random, data: bytes) -> bytes:
    """Change numbers behind a name in the header: of a key its type and value, of a tensor its shape, type, offset."""
    changed = bytearray(data)
    names = _names(data)
    for _ in range(dice.randint(1, 3)):
        start, end = dice.choice(names)
        at = dice.choice((start - 8, end, end, end + 4, end + 8, end + 12, end + 20, end + 24))
        form, numbers = dice.choice((("<I", NUMBERS), ("<Q", LARGE)))
        if dice.random() < 0.3:
            _write(changed, start, data[slice(*dice.choice(names))][: end - start])
        else:
            _write(changed, at, struct.pack(form, dice.choice((*numbers, dice.randrange(64)))))
    return bytes(changed)


def edit_counts(dice: random.Random, data: bytes) -> bytes:
    """Change the version, or how many tensors and keys there are said to be."""
    changed = bytearray(data)
    at, form, numbers = dice.choice(((4, "<I", NUMBERS), (8, "<Q", LARGE), (16, "<Q", LARGE)))
    _write(changed, at, struct.pack(form, dice.choice((*numbers, dice.randrange(64)))))
    return bytes(changed)


def edit_json(dice: random.Random, data: bytes) -> bytes:
    """Change values anywhere in a JSON document; one that has come to hold itself is cut instead."""
    try:
        return loader.edit_json(dice, data)
    except ValueError:
        return data[:-1]


def edit_index(dice: random.Random, data: bytes) -> bytes:
    """Let the index name other files."""
    content = json.loads(data)
    names = list(content["weight_map"])
    for name in dice.sample(names, dice.randint(1, len(names))):
        content["weight_map"][name] = dice.choice(NAMES)
    return json.dumps(content).encode()


def _write(data: bytearray, at: int, content: bytes) -> None:
    if at >= 0 and at + len(content) <= len(data):
        data[at : at + len(content)] = content


@lru_cache(maxsize=2)
def _names(data: bytes) -> tuple[tuple[int, int], ...]:
    """Where the names of keys and tensors lie: text of a plausible length, with a dot in it."""
    found = []
    for start in range(24, min(len(data), 1 << 16) - 8):
        length = int.from_bytes(data[start : start + 8], "little")
        name = data[start + 8 : start + 8 + length]
        if 4 < length < 64 and b"." in name and all(48 <= letter < 123 or letter == 46 for letter in name):
            found.append((start + 8, start + 8 + length))
    return tuple(found)


SAFETENSORS = (
    loader.flip_bytes,
    loader.cut_or_grow,
    loader.lie_about_length,
    loader.edit_header,
    loader.edit_header,
)
JSON = (loader.flip_bytes, loader.cut_or_grow, edit_json, edit_json, edit_json)
FILES: dict[str, dict[str, tuple[Mutation, ...]]] = {
    "gguf": {"model.gguf": (loader.flip_bytes, loader.cut_or_grow, edit_counts, edit_gguf, edit_gguf, edit_gguf)},
    "hf_bitnet": {
        SHARD: SAFETENSORS,
        "config.json": JSON,
        INDEX: (edit_index, edit_json, loader.cut_or_grow),
        "generation_config.json": JSON,
        "tokenizer.json": (edit_json, loader.cut_or_grow),
    },
    "packed": {"weights.safetensors": SAFETENSORS, "manifest.json": JSON, "config.json": JSON},
}
HEADERS = {"gguf": "model.gguf", "hf_bitnet": SHARD, "packed": "weights.safetensors"}


@torch.no_grad()
def open_door(door: str, folder: Path) -> str:
    """Return how it went: `refused`, or `works`. Any other exception than ours is a defect and comes through."""
    try:
        if door == "packed":
            _read_packed(folder)
            return "works"
        loaded = load_pretrained(str(folder / "model.gguf" if door == "gguf" else folder))
    except (FormatError, ConversionError):
        return "refused"
    loaded.model(torch.tensor([[1, 2, 0]]))
    return "works"


def _read_packed(folder: Path) -> None:
    with open_packed(folder, verify=False) as source:
        for name in (*source.layers, *source.tables, *source.floats):
            source.dense(name)


def mutate(dice: random.Random, door: str, folder: Path) -> tuple[Path, bytes, str]:
    """Return a file of `folder`, its damaged content, and what was done to it."""
    name = dice.choice(list(FILES[door]))
    mutation = dice.choice(FILES[door][name])
    return folder / name, mutation(dice, (folder / name).read_bytes()), f"{door} {name}: {mutation.__name__}"


def fuzz(door: str, folder: Path, seed: int, number: int) -> tuple[str, str, float]:
    """Damage `folder`, open it and repair it; return what was done, how it went, and the seconds of CPU it took."""
    path, content, what = mutate(random.Random(f"{seed}-{number}"), door, folder)
    return what, *attempt(door, folder, path, content, f"mutation {number} of seed {seed}, {what}")


def attempt(door: str, folder: Path, path: Path, content: bytes, note: str) -> tuple[str, float]:
    """Open `folder` with another `content` of one file; return how it went and the seconds of CPU it took."""
    whole = path.read_bytes()
    path.unlink()  # a file that a reader may still have mapped is not changed under it
    path.write_bytes(content)
    start = time.process_time()
    try:
        with little_memory(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return open_door(door, folder), time.process_time() - start
    except BaseException as error:
        error.add_note(note)
        raise
    finally:
        path.unlink()
        path.write_bytes(whole)


@contextmanager
def little_memory() -> Iterator[None]:
    """Let this process map `LARGEST_BYTES` more than it has, and no byte beyond."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + LARGEST_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def header_bytes(door: str, data: bytes) -> int:
    """Return the length of what describes the data of a door's main file."""
    if door == "gguf":
        return max(end for _, end in _names(data)) + 64
    return 8 + int.from_bytes(data[:8], "little")


def make_folders(work: Path) -> dict[str, Path]:
    """Write one small sound model through every exporter, and return the folder of each door."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*letters, "th", "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("t", "h")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=258, max_position_embeddings=64, eos_token_id=257, bos_token_id=None, **sizes)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    convert(model, weight=WeightScheme("ternary", "tensor"))
    export_packed(model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>"), work / "packed")
    options = ExportOptions(type="q2_0", pre_tokenizer="gpt-2")
    for door in ("gguf", "hf_bitnet"):
        export_as(door, work / "packed", work / door, options)
    folder = work / "hf_bitnet"
    whole = folder / "model.safetensors"
    names = [name for name in _header(whole.read_bytes()) if name != "__metadata__"]
    whole.rename(folder / SHARD)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, SHARD)}))
    return {door: work / door for door in FILES}


def _header(data: bytes) -> dict[str, Any]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def _truncations(folders: dict[str, Path]) -> Iterator[tuple[str, str, float]]:
    for door, folder in folders.items():
        path = folder / HEADERS[door]
        whole = path.read_bytes()
        for length in range(header_bytes(door, whole) + 1):
            yield f"{door} cut", *attempt(door, folder, path, whole[:length], f"{door}: {length} bytes")


def main() -> None:
    """Run the mutations and print how they went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--door", choices=list(FILES), help="default: all in turn")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--truncate", action="store_true", help="cut every header at every byte instead")
    asked = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    went, slowest = Counter[str](), (0.0, "")
    with tempfile.TemporaryDirectory() as work:
        folders = make_folders(Path(work))
        doors = [asked.door] if asked.door else list(folders)
        for door in doors:
            assert open_door(door, shutil.copytree(folders[door], Path(work) / f"{door} sound")) == "works"
        numbers = range(asked.first, asked.first + asked.count)
        drawn = ((number, doors[number % len(doors)]) for number in numbers)
        runs = (fuzz(door, folders[door], asked.seed, number) for number, door in drawn)
        for what, how, seconds in _truncations(folders) if asked.truncate else runs:
            went[f"{what}: {how}"] += 1
            slowest = max(slowest, (seconds, what))
            if seconds > SLOWEST_S:
                sys.exit(f"{what} took {seconds:.2f} s")
    for line, count in sorted(went.items()):
        print(f"{count:6d}  {line}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{sum(went.values())} opened; the slowest took {slowest[0]:.3f} s: {slowest[1]}; peak {peak} MiB in all")


if __name__ == "__main__":
    main()
