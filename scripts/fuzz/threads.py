"""The native runtime on teams of threads, called from several threads at once, for a sanitizer to look at.

    python -m scripts.fuzz.threads

torch stays out of this process. Two models share nothing but the code; calls of one model wait for each other. What is
generated is the same every time, whoever asks and whatever runs beside it.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from bitnet_train.kernels.isa import core
from bitnet_train.runtime.native.model import NativeModel
from scripts.fuzz.native import KINDS, make_folders

TEAMS = (1, 2, 4)
PROMPTS = ([1, 2, 3], [4], [5, 6, 7, 8, 9], [200] * 20)
_CALLERS, _ROUNDS = 4, 3


def main() -> None:
    """Generate alone, in batches and in streams; quantise; on teams of several sizes."""
    with tempfile.TemporaryDirectory() as work:
        folders = {kind: Path(work) / kind for kind in KINDS}
        make_folders(folders)
        for kind, folder in folders.items():
            models = [NativeModel.load(folder, num_threads=threads) for threads in TEAMS]
            alone = [models[0].generate_ids(prompt, 8, stop_ids=()) for prompt in PROMPTS]
            calls = [(model, number % len(PROMPTS)) for model in models for number in range(_CALLERS * _ROUNDS)]
            with ThreadPoolExecutor(_CALLERS) as pool:
                written = list(pool.map(lambda call: call[0].generate_ids(PROMPTS[call[1]], 8, stop_ids=()), calls))
                texts = list(
                    pool.map(
                        lambda model: [each.text for each in model.generate(["a", "bc", "d"], max_new_tokens=8)], models
                    )
                )
            assert all(ids == alone[number] for ids, (_, number) in zip(written, calls, strict=True)), kind
            assert texts == [texts[0]] * len(models), kind
            print(f"{kind}: {len(calls)} texts and {len(models)} batches on teams of {TEAMS}, all as alone")
    _training_kernels()


def _training_kernels() -> None:
    """Run the element-wise half of training and a product on teams: the same values on every one."""
    assert core is not None, "the extension is not built"
    generator = np.random.default_rng(0)
    x = generator.standard_normal((70, 300), np.float32)
    planes = generator.integers(0, 256, (1, 90, 40), np.uint8)
    planes[:, :, 37:] = 0
    planes[:, :, 37] &= 15
    scale = np.ones((90, 1), np.float32)
    found = {}
    for threads in TEAMS:
        stream, kernel, half = core.pack(planes, scale, 300, 300, "binary", "int8", threads)
        y = np.empty((70, 90), np.float32)
        core.packed_linear(kernel, (90, 300, 300, "binary", "int8", half), stream, x, None, y, threads)
        found[kernel, y.tobytes()] = threads
    assert len(found) == 1, found.values()
    print(f"{next(iter(found))[0]}: one product on teams of {TEAMS}, all the same")


if __name__ == "__main__":
    main()
