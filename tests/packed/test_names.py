"""The names of a packed folder's files and tensors are spelled in `packed/names.py` and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitnet_train.packed import export_packed, read_manifest
from bitnet_train.packed.names import (
    EXPORT_NAME,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    bias_name,
    codes_name,
    planes_name,
    scale_name,
)

PACKAGE = Path(__file__).parents[2] / "bitnet_train"
HOME = PACKAGE / "packed" / "names.py"
SUFFIXES = (".planes", ".codes", ".multipliers", ".scale")
PARTS = {"planes", "codes"}
OTHER_MANIFESTS = {"train/loop/checkpoint_manifest.py"}  # of a checkpoint, which has one of its own


def spelled(source: str) -> Iterator[str]:
    """Every piece of text in `source` that is such a name, or makes one of a module's name; docstrings are not."""
    tree = ast.parse(source)
    sentences = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    made = (part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values[-1:])
    for node in made:
        if isinstance(node, ast.Constant) and str(node.value) in SUFFIXES:
            yield str(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in sentences:
            if node.value in (MANIFEST_NAME, WEIGHTS_NAME, EXPORT_NAME):
                yield node.value
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            texts = {part.value for part in node.elts if isinstance(part, ast.Constant) and type(part.value) is str}
            yield from texts & PARTS if "scale" in texts else ()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from (text for argument in node.args if (text := stored_bias(node.func.attr, argument)))


def stored_bias(method: str, argument: ast.expr) -> str:
    """A bias that is read under a name spelled on the spot; of a model it is spelled so in Hugging Face's own names."""
    last = argument.values[-1] if isinstance(argument, ast.JoinedStr) and argument.values else None
    is_bias = isinstance(last, ast.Constant) and last.value == ".bias"
    return ".bias" if is_bias and method in {"dense", "float", "float32", "array"} else ""


def test_no_other_file_spells_a_name_of_a_packed_folder() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py") if path != HOME}
    found = {name: set(spelled(path.read_text(encoding="utf-8"))) for name, path in files.items()}
    for name in OTHER_MANIFESTS:
        found[name] -= {MANIFEST_NAME}
    spelling = {name: sorted(names) for name, names in found.items() if names}
    assert spelling == {}, "ask `packed/names.py`, or the reader"
    assert len(found) > 100


@pytest.mark.parametrize(
    "line",
    [
        'weights.read(f"{layer.name}.planes")',
        'name = f"{table}.codes"',
        'x[f"{name}.scale"]',
        'folder / "manifest.json"',
        'WEIGHTS = "weights.safetensors"',
        'RECORD = "export.json"',
        'weights.read(f"{table}.multipliers")',
        '[f"{name}.{part}" for part in ("codes", "scale")]',
        'source.dense(f"{name}.bias")',
    ],
)
def test_each_way_to_spell_one_is_seen(line: str) -> None:
    assert list(spelled(line))


def test_a_folder_has_the_names_that_its_entries_say(make_trained, tmp_path):
    export_packed(make_trained(), None, tmp_path / "packed", {}, embedding="int8", head="int8")
    manifest = read_manifest(tmp_path / "packed")
    assert {path.name for path in (tmp_path / "packed").iterdir()} >= {MANIFEST_NAME, WEIGHTS_NAME}
    for layer in manifest.layers:
        assert layer.tensor_names[:2] == (planes_name(layer.name), scale_name(layer.name))
        assert (bias_name(layer.name) in manifest.tensors) == layer.has_bias
        assert set(layer.tensor_names) <= set(manifest.tensors)
    for table in manifest.tables:
        assert list(table.tensors)[:2] == [codes_name(table.name), scale_name(table.name)]
        for name, (dtype, shape) in table.tensors.items():
            stored = manifest.tensors[manifest.stored_name(name)]
            assert (stored.dtype, stored.shape) == (dtype, shape)
