"""Prove on a GPU what CI proves on the CPU, and measure what only a GPU can say. Ten minutes, one result file.

    python -m scripts.gpu_check [--model SOURCE] [--corpus FILE] [--minutes 10] [--out FILE]
    python -m scripts.gpu_check --small        # the same stages on the CPU, in tiny: whether the script itself works

Three stages: `agreement`, `speed`, `training` (`scripts/gpu_check/__init__.py`). Each is written to the result file
when it is done, so that a call that was interrupted goes on with the next one, and a training from its checkpoint;
another device, commit or other options begin anew. The exit code is 1 where something does not agree.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bitnet_train.errors import BitnetTrainError, ConfigError
from bitnet_train.train.loop.devices import check_devices
from scripts import RESULTS
from scripts.bench.machine_facts import describe_run
from scripts.gpu_check.agreement import check_agreement
from scripts.gpu_check.speed import measure_speed
from scripts.gpu_check.training import train_for

Facts = dict[str, Any]
KEY = ("device", "commit", "options")  # what a result that is gone on with has to share


def main(words: list[str] | None = None) -> int:
    """Run the stages that the result file lacks; 1 where the GPU and the CPU do not agree, 2 where there is no GPU."""
    chosen = arguments(words)
    try:
        result = checked(chosen)
    except BitnetTrainError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    disagree = [name for name, holds in result["agreement"]["holds"].items() if not holds]
    print(f"{chosen.out}: {'disagrees: ' + ', '.join(disagree) if disagree else 'all agrees'}")
    return int(bool(disagree))


def arguments(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "python -m scripts.gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="on the CPU, in tiny, in less than a minute")
    parser.add_argument("--model", help="`model.source` of the training; the recipe's own if left out")
    parser.add_argument("--corpus", type=Path, help="text of the training; the standard library if left out")
    parser.add_argument("--minutes", type=float, default=10.0, help="of all stages together")
    parser.add_argument("--work", type=Path, help="folder of the training, kept; beside the result if left out")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu_check.json")
    chosen = parser.parse_args(words)
    chosen.work = chosen.work or chosen.out.with_suffix(".work")
    return chosen


def checked(chosen: argparse.Namespace) -> Facts:
    """Return the result, of which what was there already is taken over.

    Raises ConfigError where there is no GPU.
    """
    start = time.monotonic()
    device = device_of(chosen.small)
    result = begun(chosen, device)
    stages: dict[str, Callable[[], Facts]] = {
        "agreement": lambda: check_agreement(device, chosen.small, chosen.work),
        "speed": lambda: measure_speed(device, chosen.small),
        "training": lambda: train_for(chosen, 60 * chosen.minutes - (time.monotonic() - start)),
    }
    for name, stage in stages.items():
        if name in result:
            print(f"{name}: kept from {result['run']['date']}", flush=True)
            continue
        print(f"{name} ...", flush=True)
        since = time.monotonic()
        found = stage()
        result[name] = {"seconds": time.monotonic() - since, **found}
        write(chosen.out, result)
    return result


def device_of(small: bool) -> torch.device:
    """Return the device to check: the CPU itself where it is `small`."""
    if small:
        return torch.device("cpu")
    check_devices("gpu", 1, "auto")
    if not torch.cuda.is_available():
        raise ConfigError("`scripts.gpu_check` measures CUDA and ROCm devices, and torch sees none. Use `--small`.")
    return torch.device("cuda")


def begun(chosen: argparse.Namespace, device: torch.device) -> Facts:
    """Return what the result file holds of this very check, else its head alone."""
    run = describe_run(chosen)
    run["device"] = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    try:
        kept = json.loads(chosen.out.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"run": run}
    is_same = all(kept.get("run", {}).get(name) == run[name] for name in KEY)
    return kept if is_same else {"run": run}


def write(path: Path, result: Facts) -> None:
    """Write the result, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
