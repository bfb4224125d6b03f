r"""Load thousands of damaged and hostile packed folders with the native runtime: each is a `FormatError`, or works.

    python -m scripts.fuzz.loader --count 10000
    LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
        ASAN_OPTIONS=detect_leaks=0 python -m scripts.fuzz.loader --folder ARTEFACT --count 10000

Every mutation is drawn from the seed and its number, so `--first 4711 --count 1` repeats one. Files are changed at
random, and with intent: lengths of 2^63, offsets that overlap, shapes whose product overflows, sizes of 2^60 in
config.json, manifests that contradict the weights and carry a hash that fits. Hashes are not checked (`verify=False`),
for that would stop nearly all of them at the door. What loads must also compute two tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from os import environ
from pathlib import Path
from typing import Any

from bitnet_train.errors import BitnetTrainError, FormatError
from bitnet_train.packed.manifest import seal
from bitnet_train.runtime.native.model import NativeModel

NASTY: tuple[Any, ...] = (
    *(0, 1, 2, 3, -1, 7, 63, 64, 65, 1 << 16, (1 << 24) + 1, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 60, 1 << 62),
    *((1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, 10**400, -(1 << 63), 0.5, -0.0, 1e308, 1e-320, True, False),
    *(None, "", "x", "\x00", "0", "../../etc/passwd", "a" * 5000, [], [1], {}, {"a": 1}, [[[]]], "model.norm"),
)
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL", "F8_E4M3", "")
SLOWEST_S = 1.0  # of CPU: other work on the machine is not the loader's fault

Mutation = Callable[[random.Random, bytes], bytes]


def flip_bytes(dice: random.Random, data: bytes) -> bytes:
    """Change up to eight bytes, most of them near the start, where headers are."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 8)):
        end = len(changed) if dice.random() < 0.3 else min(len(changed), 4096)
        changed[dice.randrange(end)] = dice.choice((0, 255, 34, 44, 48, 57, 93, 125, dice.randrange(256)))
    return bytes(changed)


def cut_or_grow(dice: random.Random, data: bytes) -> bytes:
    """Shorten the file anywhere, or write something behind it."""
    if dice.random() < 0.7:
        return data[: dice.choice((0, 1, 7, 8, 9, dice.randrange(len(data)), len(data) - 1))]
    return data + bytes(dice.choice((1, 8, 4096)))


def lie_about_length(dice: random.Random, data: bytes) -> bytes:
    """Change the length of the header alone."""
    lengths = (0, 1, 1 << 63, (1 << 63) - 1, (1 << 64) - 1, 1 << 32, len(data), len(data) - 8, len(data) - 7)
    return struct.pack("<Q", dice.choice(lengths)) + data[8:]


def edit_header(dice: random.Random, data: bytes) -> bytes:
    """Change what the header of a safetensors file says of a tensor, and leave the data."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    names = [name for name in header if name != "__metadata__"]
    name, other = dice.choice(names), dice.choice(names)
    edit = dice.randrange(9)
    entry = header[name]
    if edit == 0:
        entry["data_offsets"] = list(header[other]["data_offsets"])
    elif edit == 1:
        entry["data_offsets"][dice.randrange(2)] = dice.choice(NASTY)
    elif edit == 2:
        entry["data_offsets"] = [at + dice.choice((-1, 1, 64)) for at in entry["data_offsets"]]
    elif edit == 3 and entry["shape"]:
        entry["shape"][dice.randrange(len(entry["shape"]))] = dice.choice(NASTY)
    elif edit == 4:
        entry["shape"] = dice.choice((entry["shape"][::-1], [*entry["shape"], 1], [1 << 32, 1 << 32], [0], []))
    elif edit == 5:
        entry["dtype"] = dice.choice(DTYPES)
    elif edit == 6:
        header[name], header[other] = header[other], header[name]
    elif edit == 7:
        header[dice.choice(("a", "", "model.norm.weight.weight", "x" * 9999))] = header.pop(name)
    else:
        header[name] = dice.choice(NASTY)
    text = json.dumps(header).encode()
    if dice.random() < 0.1:
        text = text[:-1] + b"," + json.dumps(name).encode() + b":" + json.dumps(entry).encode() + b"}"
    return struct.pack("<Q", len(text)) + text + data[end:]


def edit_json(dice: random.Random, data: bytes) -> bytes:
    """Change, drop or copy one to three values anywhere in a JSON document."""
    body = json.loads(data)
    sealed = isinstance(body, dict) and body.pop("manifest_sha256", None) is not None
    for _ in range(dice.randint(1, 3)):
        _edit_value(dice, body)
    if sealed and dice.random() < 0.95:
        with suppress(ValueError, RecursionError):
            return seal(body).encode()
    return json.dumps(body).encode()


def _edit_value(dice: random.Random, node: Any) -> None:
    while isinstance(node, dict | list) and node:
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        child = node[key]
        if isinstance(child, dict | list) and child and dice.random() < 0.85:
            node = child
            continue
        if dice.random() < 0.15:
            del node[key]
        elif dice.random() < 0.15 and type(child) is int:
            node[key] = child * dice.choice((2, 64, -1)) + dice.choice((-1, 0, 1))
        else:
            node[key] = dice.choice((*NASTY, _another_value(dice, node, child)))
        return


def _another_value(dice: random.Random, node: Any, child: Any) -> Any:
    """Return a value of the same document, which passes more checks than an invented one."""
    return dice.choice(list(node.values()) if isinstance(node, dict) else list(node)) if node else child


MUTATIONS: tuple[tuple[str, tuple[Mutation, ...]], ...] = (
    ("weights.safetensors", (flip_bytes, cut_or_grow, lie_about_length, edit_header, edit_header, edit_header)),
    ("config.json", (flip_bytes, cut_or_grow, edit_json, edit_json, edit_json, edit_json)),
    ("manifest.json", (flip_bytes, cut_or_grow, edit_json, edit_json, edit_json, edit_json)),
    ("generation_config.json", (flip_bytes, edit_json)),
)


def mutate(dice: random.Random, folder: Path) -> tuple[Path, bytes, str]:
    """Return a file of `folder`, its damaged content, and what was done to it."""
    name, mutations = dice.choices(MUTATIONS, weights=(5, 4, 5, 1))[0]
    mutation = dice.choice(mutations)
    return folder / name, mutation(dice, (folder / name).read_bytes()), f"{name}: {mutation.__name__}"


def load_and_use(folder: Path) -> str:
    """Return how it went: `refused`, or `works`. Any other exception than ours is a defect and comes through."""
    try:
        model = NativeModel.load(folder, num_threads=1, verify=False)
    except FormatError:
        return "refused"
    with suppress(BitnetTrainError):  # such as a vocabulary of one token
        model.generate_ids([1, 2, 0], 2)
    return "works"


def fuzz(folder: Path, seed: int, number: int) -> tuple[str, str, float]:
    """Damage `folder`, load it and repair it; return what was done, how it went, and the seconds of CPU it took."""
    path, content, what = mutate(random.Random(f"{seed}-{number}"), folder)
    whole = path.read_bytes()
    path.write_bytes(content)
    start = time.process_time()
    try:
        return what, load_and_use(folder), time.process_time() - start
    except Exception as error:
        error.add_note(f"mutation {number} of seed {seed}, {what}")
        raise
    finally:
        path.write_bytes(whole)


def _exported(folder: Path) -> Path:
    """Export the bundled model in a process of its own: torch stays out of this one, and so do its preloads."""
    code = (
        "import sys; from bitnet_train import convert, export\n"
        "from bitnet_train.importers.load import load_pretrained\n"
        "loaded = load_pretrained('tiny'); convert(loaded.model)\n"
        "export(loaded.model.eval(), loaded.tokenizer, sys.argv[1], {})"
    )
    plain = {name: value for name, value in environ.items() if name != "LD_PRELOAD"}
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=plain)
    return folder


def main() -> None:
    """Run the mutations and print how they went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="packed folder to damage copies of; default: the bundled model")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    went, slowest = Counter[str](), (0.0, "")
    with tempfile.TemporaryDirectory() as work:
        copy = Path(work) / "folder"
        copy = shutil.copytree(asked.folder, copy) if asked.folder else _exported(copy)
        for number in range(asked.first, asked.first + asked.count):
            what, how, seconds = fuzz(copy, asked.seed, number)
            went[f"{what}: {how}"] += 1
            slowest = max(slowest, (seconds, f"mutation {number}, {what}"))
            if seconds > SLOWEST_S:
                raise SystemExit(f"mutation {number} of seed {asked.seed} took {seconds:.2f} s: {what}")
    for line, count in sorted(went.items()):
        print(f"{count:6d}  {line}")
    print(f"{sum(went.values())} folders; the slowest took {slowest[0]:.3f} s: {slowest[1]}")


if __name__ == "__main__":
    main()
