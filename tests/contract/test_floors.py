"""Imports go down only. Read from the source with `ast`, so imports inside functions and under TYPE_CHECKING count."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
FLOORS = {
    "errors": 0,
    "columns": 1,
    "disk": 1,
    "facts": 1,
    "json_text": 1,
    "rust_panic": 1,
    "process": 1,
    "progress": 1,
    "settings": 1,
    "when_imported": 1,
    "word_as_path": 1,
    "quant": 2,
    "formats": 2,
    "gguf": 2,
    "templates": 2,
    "whole": 2,
    "kernels": 3,
    "model": 4,
    "packed": 5,
    "train": 6,
    "runtime": 6,
    "importers": 6,
    "exporters": 7,
    "evaluate": 7,
    "bench": 7,
    "validation": 8,
    "sensitivity": 8,
    "report": 8,
    "serve": 9,
    "sweep": 9,
    "config": 10,
    "run": 11,
    "python": 11,
    "verbs": 12,
    "cli": 13,
    "__main__": 14,
}
SERVE_FLOORS = {"settings": 0, "child": 0, "guard": 0, "worker": 1, "chat": 1, "api": 2, "playground": 3}  # in `serve/`
TRAIN_FLOORS = {"choice": 0, "data": 1, "trackers": 1, "losses": 2, "loop": 3, "blocks": 4}  # the same inside `train/`
DOOR = "__init__"  # the package's own __init__: public names, imported on first use, and the version
WITH_BARS = "progress"  # a bar on a terminal and in a notebook: these beside the standard library
BARS = {"rich", "IPython"}
LOWEST_FLOOR = {"torch": 2, "numpy": 2, "safetensors": 2, "transformers": 4, "peft": 4, "hydra": 10, "omegaconf": 10}
ONLY_IN = {
    "lightning": {"train"},
    "datasets": {"train"},
    "pytorch_lightning": set(),
    "hydra": {"config"},
    "omegaconf": {"config"},
}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the dotted name of every imported module; `from p import n` as `p.n`, for `n` may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def trespasses(room: str, imported: str) -> str:
    """Say why `room` may not import `imported`, or nothing."""
    top, _, rest = imported.partition(".")
    if top == "bitnet_train":
        return _inside(room, rest.partition(".")[0], FLOORS)
    floor = FLOORS.get(room, 0)
    if top in ONLY_IN and room not in ONLY_IN[top]:
        return f"{top} belongs in {ONLY_IN[top] or 'no room'}"
    if floor < LOWEST_FLOOR.get(top, 0):
        return f"{top} begins on floor {LOWEST_FLOOR[top]}, {room} is on floor {floor}"
    if room == WITH_BARS and top in BARS:
        return ""
    if floor < 2 and top not in sys.stdlib_module_names:
        return "floors 0 and 1 are the standard library only"
    return ""


def _inside(room: str, other: str, floors: dict[str, int]) -> str:
    if room == other or other in ("", "__version__"):
        return ""
    if room not in floors or other not in floors:
        return f"`{room}` or `{other}` has no floor"
    if floors[other] > floors[room]:
        return f"floor {floors[other]} is above floor {floors[room]}"
    return "siblings do not import each other" if floors[other] == floors[room] else ""


def test_every_file_lies_in_a_room_with_a_floor() -> None:
    unknown = {room_of(path) for path in sources()} - set(FLOORS) - {DOOR}
    assert unknown == set(), "give the new room a floor in FLOORS"


def test_files_import_only_downwards() -> None:
    found = [
        f"{path}: {name}: {why}"
        for path in sources()
        if room_of(path) != DOOR
        for name in imports(ast.parse(path.read_text()))
        if (why := trespasses(room_of(path), name))
    ]
    assert found == []
    assert len(sources()) > 100


@pytest.mark.parametrize(("room", "floors", "least"), [("train", TRAIN_FLOORS, 50), ("serve", SERVE_FLOORS, 1)])
def test_files_of_a_large_room_import_only_downwards_in_it(room: str, floors: dict[str, int], least: int) -> None:
    files = sorted(
        path for path in (PACKAGE / room).rglob("*.py") if path.parent != PACKAGE / room or path.stem != DOOR
    )
    found = [
        f"{path}: {name}: {why}"
        for path in files
        for name in imports(ast.parse(path.read_text()))
        if name.startswith(f"bitnet_train.{room}.")
        if (why := _inside(path.relative_to(PACKAGE / room).parts[0].removesuffix(".py"), name.split(".")[2], floors))
    ]
    assert found == []
    assert len(files) >= least


def test_the_table_of_contributing_is_that_of_the_floors() -> None:
    written = {}
    for line in (PACKAGE.parent / "CONTRIBUTING.md").read_text().splitlines():
        if row := re.match(r"\| (\d+) \| ([^|]+) \|", line):
            written |= {room.strip("/").removesuffix(".py"): int(row[1]) for room in re.findall(r"`([\w./]+)`", row[2])}
    assert written == FLOORS


@pytest.mark.parametrize(
    ("room", "imported"),
    [
        ("errors", "rich.table"),
        ("quant", "bitnet_train.formats.planes"),
        ("quant", "bitnet_train.kernels.ops"),
        ("kernels", "transformers.AutoModel"),
        ("model", "lightning.pytorch"),
        ("model", "bitnet_train.packed.writer"),
        ("train", "bitnet_train.runtime.load"),
        ("runtime", "bitnet_train.train.losses.token_losses"),
        ("runtime", "datasets.load_dataset"),
        ("train", "omegaconf.OmegaConf"),
        ("train", "bitnet_train.config.schema"),
        ("verbs", "pytorch_lightning.Trainer"),
        ("verbs", "hydra.compose"),
        ("run", "bitnet_train.verbs.train"),
        ("evaluate", "bitnet_train.bench.timing"),
        ("importers", "bitnet_train.runtime.load"),
        ("exporters", "bitnet_train.nowhere.thing"),
    ],
)
def test_a_trespass_is_seen(room: str, imported: str) -> None:
    assert trespasses(room, imported) != ""


@pytest.mark.parametrize(
    ("room", "imported"),
    [
        ("formats", "torch.Tensor"),
        ("exporters", "bitnet_train.formats.planes"),
        ("train", "lightning.pytorch"),
        ("config", "hydra.compose"),
        ("verbs", "bitnet_train.train.loop.fit"),
        ("runtime", "bitnet_train.progress.track"),
    ],
)
def test_a_way_down_is_allowed(room: str, imported: str) -> None:
    assert trespasses(room, imported) == ""


def test_imports_inside_functions_and_under_type_checking_are_counted() -> None:
    code = "def f():\n    import lightning\nif TYPE_CHECKING:\n    from bitnet_train.train.loop import fit\n"
    assert sorted(imports(ast.parse(code))) == ["bitnet_train.train.loop.fit", "lightning"]
