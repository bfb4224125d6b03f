"""`bitnet-train doctor`: is this machine ready? One line a check; what is broken, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bitnet_train import __version__
from bitnet_train.columns import fold
from bitnet_train.config.layout import groups, house, recipes
from bitnet_train.errors import BitnetTrainError
from bitnet_train.verbs import Call

NEEDED = ("torch", "lightning", "transformers", "peft", "datasets", "hydra-core", "wandb", "safetensors", "rich")
OPTIONAL = ("gguf", "tensorboard")
LITTLE_DISK_BYTES = 2 * 2**30  # a run of a 135 M parameter model with three checkpoints writes about this much
_FLAGS = ("popcnt", "avx2", "avx512f", "avx512_vpopcntdq", "avx512_vnni", "asimd")


@dataclass(frozen=True)
class Check:
    """One line: `state` is ok, note (works, but read on) or broken."""

    name: str
    state: str
    value: str


def doctor(call: Call) -> dict[str, Any]:
    """Run all checks; the fact `passed` is False when one is broken."""
    checks = [check for group in CHECKS for check in _safely(group)]
    if not call.quiet:
        for check in checks:
            print(fold(f"{check.state:<8}{check.name:<18}{check.value}", 26, first=0))
    return {"passed": all(check.state != "broken" for check in checks), "checks": [asdict(check) for check in checks]}


def _safely(group: Callable[[], list[Check]]) -> list[Check]:
    try:
        return group()
    except (BitnetTrainError, ImportError, OSError, RuntimeError) as error:
        return [Check(group.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}")]


def _versions() -> list[Check]:
    allowed = (3, 11) <= sys.version_info < (3, 14)
    python = Check("python", "ok" if allowed else "broken", f"{platform.python_version()} (3.11 to 3.13 are supported)")
    return [
        Check("bitnet-train", "ok", __version__),
        python,
        Check("platform", "ok", platform.platform()),
        *(_package(name, "broken", "pip install bitnet-train") for name in NEEDED),
        *(_package(name, "note", f"pip install 'bitnet-train[{name}]'") for name in OPTIONAL),
    ]


def _package(name: str, if_missing: str, cure: str) -> Check:
    try:
        return Check(name, "ok", version(name))
    except PackageNotFoundError:
        return Check(name, if_missing, f"not installed: {cure}")


def _files() -> list[Check]:
    tiny = Path(__file__).resolve().parents[1] / "assets" / "tiny" / "model.safetensors"
    found = Check("configuration", "ok", f"{len(recipes())} recipes, {len(groups())} groups in {house()}")
    if tiny.is_file():
        return [found, Check("tiny model", "ok", f"{tiny.stat().st_size / 1e6:.1f} MB")]
    return [found, Check("tiny model", "broken", f"{tiny} is missing: install bitnet-train again")]


def _cpu() -> list[Check]:
    info = Path("/proc/cpuinfo")
    words = set(info.read_text().split()) if info.is_file() else set()
    flags = [flag for flag in _FLAGS if flag in words]
    return [Check("cpu", "ok", f"{os.cpu_count()} cores, {' '.join(flags) or platform.machine()}")]


def _kernel() -> list[Check]:
    from bitnet_train.kernels.ops import available_isas, backend

    isas = Check("kernels", "ok", f"{backend()} of {', '.join(available_isas())}")
    return [_extension(), isas, *_choices(backend())]


def _extension() -> Check:
    from bitnet_train.kernels.isa import IMPORT_FAILURE, core

    if core is not None:
        return Check("extension", "ok", "built")
    if find_spec("bitnet_train.kernels._core") is None:
        return Check("extension", "note", _NOT_BUILT)
    return Check("extension", "broken", f"there, and cannot be loaded ({IMPORT_FAILURE}): install bitnet-train again")


def _choices(isa: str) -> list[Check]:
    """Say which kernel a large weight gets, for every pair of codes and for groups of an unusual size."""
    from bitnet_train.kernels.isa import REFERENCE, core
    from bitnet_train.kernels.ops import ACTIVATIONS
    from bitnet_train.quant.scheme import CODES

    if core is None or isa == REFERENCE:
        return []
    size = 2048
    checks = []
    for weights in CODES:
        chosen = {a: core.chosen_kernel((size, size, size, weights, a, True)) for a in ACTIVATIONS}
        odd = core.chosen_kernel((size, size, _ODD_GROUP, weights, "int8", True))
        words = [*(f"{activation} {kernel}" for activation, kernel in chosen.items()), f"groups of {_ODD_GROUP} {odd}"]
        checks.append(Check(f"{weights} weights", "ok", ", ".join(words)))
    return checks


_ODD_GROUP = 32  # look-up kernels take whole rows and groups of a multiple of 64


_NOT_BUILT = "not built, so the slow reference kernel runs; install a C++ compiler, then bitnet-train again"


def _arithmetic() -> list[Check]:
    """Say what `trainer.precision`, `products` and `num_threads` come to here when left alone, and by how much."""
    from bitnet_train.quant.scheme import ActivationScheme, WeightScheme
    from bitnet_train.train.loop.machine import arithmetic, thread_count
    from bitnet_train.train.loop.products import choose_products

    found, weight = arithmetic("auto"), WeightScheme(granularity="group", learnable_scale=True)
    return [
        Check("precision", "ok", found.describe()),
        Check(
            "products", "ok", choose_products("auto", found.precision, "auto", weight, ActivationScheme()).describe()
        ),
        Check("threads", "ok", f"{thread_count()} for training"),
    ]


def _gpu() -> list[Check]:
    import torch

    if not torch.cuda.is_available():
        return [Check("gpu", "note", "none; everything runs on the CPU")]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [Check("gpu", "ok", ", ".join(names))]


def _tracking() -> list[Check]:
    from bitnet_train.train.trackers.wandb_tracker import wandb_has_key

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb_has_key() else "offline")
    return [Check("wandb", "ok", f"{mode} ({'a key is set' if wandb_has_key() else 'no key set'})")]


def _disk() -> list[Check]:
    free = shutil.disk_usage(".").free
    state = "ok" if free >= LITTLE_DISK_BYTES else "note"
    if not os.access(".", os.W_OK):
        return [Check("disk", "broken", f"{Path.cwd()} cannot be written: runs go there, or to `run.root`")]
    return [Check("disk", state, f"{free / 2**30:.1f} GiB free in {Path.cwd()}")]


CHECKS: tuple[Callable[[], list[Check]], ...] = (
    _versions,
    _files,
    _cpu,
    _arithmetic,
    _kernel,
    _gpu,
    _tracking,
    _disk,
)
