"""Folders that are damaged on purpose: the program refuses them with a sentence, or runs; it never crashes."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow, pytest.mark.toolchain]

ROUNDS = 300
CASES = [
    {"embedding": "int4", "head": "int5"},
    {"family": "phi3"},
    {"roles": ("attention", "embedding"), "family": "llama"},
]
ODD: list[Any] = [
    None,
    -1,
    0,
    1,
    2**31,
    2**53,
    2**64,
    1e308,
    "",
    "x",
    [],
    {},
    True,
    ["x"],
    [[0, 0]],
    "norm",
    "planes",
    0.5,
]


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value that can be changed: its container, and the key in it."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += [(value, key), *spots(item)]
    return found


def changed(value: Any, rng: random.Random) -> None:
    container, key = rng.choice(spots(value))
    what = rng.randrange(4)
    if what == 0:
        container[key] = rng.choice(ODD)
    elif what == 1:
        del container[key]
    elif what == 2 and isinstance(container[key], int) and not isinstance(container[key], bool):
        container[key] += rng.choice([-64, -1, 1, 64])
    elif isinstance(container, list):
        container.append(container[key])
    else:
        container[rng.choice(list(container))] = container[key]


def damage(folder: Path, rng: random.Random, whole: dict[str, bytes]) -> None:
    for name, content in whole.items():
        (folder / name).write_bytes(content)
    name = rng.choice(["native.json", "native.json", "weights.safetensors", "header", "tokenizer.json"])
    if name == "header":
        weights = whole["weights.safetensors"]
        end = 8 + int.from_bytes(weights[:8], "little")
        header = json.loads(weights[8:end])
        changed(header, rng)
        text = json.dumps(header).encode()
        (folder / "weights.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + weights[end:])
    elif name == "native.json" and rng.random() < 0.8:
        body = json.loads(whole[name])
        changed(body, rng)
        (folder / name).write_text(json.dumps(body))
    else:
        content = bytearray(whole[name])
        for _ in range(rng.choice([1, 4, 64])):
            content[rng.randrange(min(len(content), 4096))] = rng.randrange(256)
        (folder / name).write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_damaged_folder_is_refused_or_runs_and_never_crashes(program, native, case, tmp_path):
    folder = shutil.copytree(native(**case), tmp_path / "damaged")
    whole = {name: (folder / name).read_bytes() for name in ("native.json", "weights.safetensors", "tokenizer.json")}
    rng, refused = random.Random(str(case)), 0
    for _ in range(ROUNDS // len(CASES)):
        damage(folder, rng, whole)
        words = [program, folder, "--ids", "1 2 3", "-n", "2", "--threads", "1"]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        assert done.returncode in (0, 1), f"{done.returncode} {done.stderr[-3000:]}"
        assert done.returncode == 0 or done.stderr.startswith("bitnet-run: "), done.stderr
        refused += done.returncode
    assert refused > ROUNDS // len(CASES) // 2  # else nothing was damaged
