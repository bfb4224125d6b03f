"""Imports go down only. Read from the source with `ast`, so imports inside functions and under TYPE_CHECKING count."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
FLOORS = {
    "errors": 0,
    "when_imported": 0,
    "quant": 1,
    "formats": 1,
    "kernels": 2,
    "model": 3,
    "exporters": 4,
    "train": 5,
    "runtime": 5,
    "report": 5,
    "playground": 5,
    "config": 6,
    "cli": 6,
    "stages": 6,
    "starting_point": 6,
    "continuation": 6,
    "delivery": 6,
    "folder_size": 6,
    "sensitivity": 6,
    "reconstruction": 6,
    "run_directory": 6,
    "assembly": 6,
    "session": 6,
    "side_by_side": 6,
    "expectation": 6,
    "dry_run": 6,
    "run_length": 6,
    "run_machine": 6,
    "evaluation": 6,
    "summary": 6,
    "trained_settings": 6,
    "__main__": 6,
}
DOOR = "__init__"  # the package's own __init__: public names, imported on first use, and the version
ANYWHERE = ("progress",)  # a bar on a terminal: standard library and rich only
LOWEST_FLOOR = {"torch": 1, "numpy": 1, "safetensors": 1, "transformers": 3, "peft": 3, "hydra": 6, "omegaconf": 6}
ONLY_IN = {"lightning": {"train"}, "datasets": {"train"}, "pytorch_lightning": set()}


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
        return _inside(room, rest.partition(".")[0])
    floor = FLOORS.get(room, 0)
    if top in ONLY_IN and room not in ONLY_IN[top]:
        return f"{top} belongs in {ONLY_IN[top] or 'no room'}"
    if floor < LOWEST_FLOOR.get(top, 0):
        return f"{top} begins on floor {LOWEST_FLOOR[top]}, {room} is on floor {floor}"
    if floor == 0 and top not in sys.stdlib_module_names:
        return "floor 0 is the standard library only"
    return ""


def _inside(room: str, other: str) -> str:
    if room == other or other in ("", "__version__", *ANYWHERE):
        return ""
    if room not in FLOORS or other not in FLOORS:
        return f"`{room}` or `{other}` has no floor in FLOORS"
    if FLOORS[other] > FLOORS[room]:
        return f"floor {FLOORS[other]} is above floor {FLOORS[room]}"
    if FLOORS[other] == FLOORS[room] < 6:
        return "siblings do not import each other"
    return ""


def test_every_file_lies_in_a_room_with_a_floor() -> None:
    unknown = {room_of(path) for path in sources()} - set(FLOORS) - {DOOR, *ANYWHERE}
    assert unknown == set(), "give the new room a floor in FLOORS"


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_imports_only_downwards(path: Path) -> None:
    room = room_of(path)
    if room == DOOR:
        return
    found = imports(ast.parse(path.read_text()))
    if room in ANYWHERE:
        allowed = {*sys.stdlib_module_names, "rich"}
        assert [name for name in found if name.partition(".")[0] not in allowed] == []
        return
    assert [f"{name}: {why}" for name in found if (why := trespasses(room, name))] == []


@pytest.mark.parametrize(
    ("room", "imported"),
    [
        ("errors", "rich.table"),
        ("quant", "bitnet_train.formats.planes"),
        ("quant", "bitnet_train.kernels.ops"),
        ("kernels", "transformers.AutoModel"),
        ("model", "lightning.pytorch"),
        ("model", "bitnet_train.exporters.packed"),
        ("train", "bitnet_train.runtime.load"),
        ("runtime", "bitnet_train.train.losses"),
        ("runtime", "datasets.load_dataset"),
        ("train", "omegaconf.OmegaConf"),
        ("train", "bitnet_train.config.schema"),
        ("stages", "pytorch_lightning.Trainer"),
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
        ("stages", "bitnet_train.train.fit"),
        ("runtime", "bitnet_train.progress.track"),
    ],
)
def test_a_way_down_is_allowed(room: str, imported: str) -> None:
    assert trespasses(room, imported) == ""


def test_imports_inside_functions_and_under_type_checking_are_counted() -> None:
    code = "def f():\n    import lightning\nif TYPE_CHECKING:\n    from bitnet_train.train import fit\n"
    assert sorted(imports(ast.parse(code))) == ["bitnet_train.train.fit", "lightning"]
